package engine

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// rowsFactor is how much memory a byte of blob text takes in all until it has
// landed: itself, its rows (about 150 bytes for 81 of text), and their stream.
const rowsFactor = 4

// budget is the memory of everything between fetch and done, counted in bytes of
// text. It is a blob.Budget.
type budget struct {
	sem      *semaphore.Weighted
	used     atomic.Int64 // bytes of text
	pressure func()       // called when a read has to wait
}

// newBudget makes a budget of so many bytes of memory.
func newBudget(memory int64, pressure func()) *budget {
	return &budget{sem: semaphore.NewWeighted(memory / rowsFactor), pressure: pressure}
}

// Acquire implements blob.Budget. When a read has to wait, the shards hear of it:
// sealing an open batch is what frees memory.
func (b *budget) Acquire(ctx context.Context, n int64) error {
	if !b.sem.TryAcquire(n) {
		b.pressure()
		if err := b.sem.Acquire(ctx, n); err != nil {
			return err
		}
	}
	b.used.Add(n)
	return nil
}

// Release implements blob.Budget.
func (b *budget) Release(n int64) {
	if n > 0 {
		b.used.Add(-n)
		b.sem.Release(n)
	}
}

// memory is what is reserved now, in bytes of memory.
func (b *budget) memory() int64 { return b.used.Load() * rowsFactor }
