// Package lowwater finds how far a partition of a message broker is acknowledged:
// the end of the contiguous run of acknowledged messages from its beginning. A
// position that is saved so never skips a message that is not durable yet.
//
// It owns no goroutine. A tracker's memory is bounded by its limit.
package lowwater

import (
	"context"
	"sync"

	"github.com/millrace/millrace/pipeline/mutant"
)

// Tracker follows one partition. P is what the source calls a position. Messages
// begin in order, by one goroutine; they are done in any order, from any goroutine.
type Tracker[P any] struct {
	slots chan struct{} // holds one token per message that is begun and not passed

	mu      sync.Mutex
	pending []*Message[P] // pending[head:], in order
	head    int
	low     P // end of the run
	passed  bool
}

// Message is one message that waits to be passed by the low-water mark.
type Message[P any] struct {
	position P
	done     bool
}

// New gives a tracker in which at most limit messages wait.
func New[P any](limit int) *Tracker[P] {
	return &Tracker[P]{slots: make(chan struct{}, limit)}
}

// Begin enters the next message. It blocks while the limit of messages waits, and
// gives ctx's error when that ends first.
func (t *Tracker[P]) Begin(ctx context.Context, position P) (*Message[P], error) {
	select {
	case t.slots <- struct{}{}:
	default:
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m := &Message[P]{position: position}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, m)
	return m, nil
}

// Done marks the message and moves the low-water mark over all that are marked at
// the front. A second call for a message changes nothing.
func (t *Tracker[P]) Done(m *Message[P]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.done = true
	if mutant.On(mutant.MarkPastHole) {
		t.low, t.passed = m.position, true
	}
	for t.head < len(t.pending) && t.pending[t.head].done {
		t.low, t.passed = t.pending[t.head].position, true
		t.pending[t.head] = nil
		t.head++
		<-t.slots
	}
	if t.head > 64 && 2*t.head > len(t.pending) { // each pointer moves once on average
		t.pending = append(t.pending[:0:0], t.pending[t.head:]...)
		t.head = 0
	}
}

// Mark gives the position of the last message of the acknowledged run; false when
// nothing was acknowledged.
func (t *Tracker[P]) Mark() (P, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.low, t.passed
}

// Waiting gives the number of messages that the low-water mark has not passed.
func (t *Tracker[P]) Waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending) - t.head
}
