package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// earlierPatience is how long a batch waits for the one before it to be landed too,
// when the core has sent both at once.
const earlierPatience = 100 * time.Millisecond

// line lets the batches of one shard through one at a time, in the order of their
// numbers: readers find rows with one key in order. A batch whose predecessor was
// planned but is not here gives up instead of waiting: the core may be waiting for
// all its landings to return before it sends that one again.
type line struct {
	mu      sync.Mutex
	planned []uint64 // not landed yet, sorted
	waiting []uint64 // here, sorted
	busy    bool
	changed chan struct{} // closed and made anew at every change
}

func newLine() *line { return &line{changed: make(chan struct{})} }

func (l *line) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func insert(list []uint64, seq uint64) []uint64 {
	i, found := slices.BinarySearch(list, seq)
	if found {
		return list
	}
	return slices.Insert(list, i, seq)
}

func remove(list []uint64, seq uint64) []uint64 {
	if i, found := slices.BinarySearch(list, seq); found {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// plan notes that the batch will come.
func (l *line) plan(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.planned = insert(l.planned, seq)
}

// landed notes that the batch needs not come any more.
func (l *line) landed(is func(seq uint64) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.planned = slices.DeleteFunc(l.planned, is)
}

// enter waits until the batch is the first of those that are here, and until the
// one before it has landed. settle, called alone, finds out what has landed.
//
// Errors: ctx's; that of settle; ErrTransient when the batch before it is not here.
func (l *line) enter(ctx context.Context, seq uint64, settle func() error) (leave func(), err error) {
	var patience *time.Timer // runs while the batch before this one is not here
	stop := func() {
		if patience != nil {
			patience.Stop()
			patience = nil
		}
	}
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = insert(l.waiting, seq)
	defer func() {
		l.waiting = remove(l.waiting, seq)
		l.change()
	}()
	for {
		if !l.busy && l.waiting[0] == seq {
			l.busy = true
			l.mu.Unlock()
			err := settle()
			l.mu.Lock()
			if err != nil || len(l.planned) == 0 || l.planned[0] >= seq {
				if err != nil {
					l.busy = false
					return nil, err
				}
				return l.leave, nil
			}
			l.busy = false
			l.change()
		}
		changed := l.changed
		var expired <-chan time.Time
		var first uint64
		if len(l.planned) > 0 && l.planned[0] < l.waiting[0] && !l.busy {
			if patience == nil {
				patience = time.NewTimer(earlierPatience)
			}
			first, expired = l.planned[0], patience.C
		} else {
			stop()
		}
		l.mu.Unlock()
		select {
		case <-changed:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return nil, context.Cause(ctx)
		case <-expired:
			l.mu.Lock()
			return nil, fmt.Errorf("%w: batch %d of the shard comes first", pipeline.ErrTransient, first)
		}
	}
}

func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
	l.change()
}

// alone waits until nothing is being landed and keeps it so.
func (l *line) alone(ctx context.Context) (leave func(), err error) {
	for {
		l.mu.Lock()
		if !l.busy {
			l.busy = true
			l.mu.Unlock()
			return l.leave, nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
