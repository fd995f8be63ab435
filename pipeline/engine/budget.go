package engine

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// rowsFactor is how much memory a byte of blob text takes in all until it has
// landed: itself, its rows (about 150 bytes for 81 of text), and their stream.
const rowsFactor = 4

// budget is the memory of everything between fetch and done.
type budget struct {
	total    int64
	sem      *semaphore.Weighted
	used     atomic.Int64
	pressure func() // called when a read has to wait
}

func newBudget(total int64, pressure func()) *budget {
	return &budget{total: total, sem: semaphore.NewWeighted(total), pressure: pressure}
}

// take reserves memory for so many bytes of text and gives what to give back.
// More than the whole budget is cut to it, so that one huge record still passes.
func (b *budget) take(ctx context.Context, text int64) (int64, error) {
	n := min(text*rowsFactor, b.total)
	if !b.sem.TryAcquire(n) {
		b.pressure()
		if err := b.sem.Acquire(ctx, n); err != nil {
			return 0, err
		}
	}
	b.used.Add(n)
	return n, nil
}

func (b *budget) give(n int64) {
	if n <= 0 {
		return
	}
	b.used.Add(-n)
	b.sem.Release(n)
}
