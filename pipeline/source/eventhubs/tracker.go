package eventhubs

import (
	"context"
	"sync"
	"time"
)

// Checkpoint is how far a partition is acknowledged.
type Checkpoint struct {
	// Sequence is the sequence number of the last message of the acknowledged run.
	Sequence int64 `json:"sequence"`
	// Offset is the service's own, opaque name of the same place, for people.
	Offset string `json:"offset"`
	// Created is when the hub was made: sequence numbers mean something only within
	// one life of a hub.
	Created time.Time `json:"created"`
}

// tracker finds the end of the contiguous run of acknowledged messages in one life
// of a partition. Messages begin in order, by one goroutine; they are done in any
// order, from any goroutine.
type tracker struct {
	slots   chan struct{} // holds one token per message that is begun and not passed
	created time.Time

	mu      sync.Mutex
	pending []*message // pending[head:], in order
	head    int
	low     *Checkpoint // end of the run; nil before the first message is passed
}

// message is one message that waits to be passed by the low-water mark.
type message struct {
	sequence int64
	offset   string
	done     bool
}

func newTracker(limit int, created time.Time) *tracker {
	return &tracker{slots: make(chan struct{}, limit), created: created}
}

// begin enters the next message. It blocks while the limit of messages waits, and
// gives ctx's error when that ends first.
func (t *tracker) begin(ctx context.Context, sequence int64, offset string) (*message, error) {
	select {
	case t.slots <- struct{}{}:
	default:
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m := &message{sequence: sequence, offset: offset}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, m)
	return m, nil
}

// done marks the message and moves the low-water mark over all that are marked at
// the front. A second call for a message changes nothing.
func (t *tracker) done(m *message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.done = true
	for t.head < len(t.pending) && t.pending[t.head].done {
		front := t.pending[t.head]
		t.low = &Checkpoint{Sequence: front.sequence, Offset: front.offset, Created: t.created}
		t.pending[t.head] = nil
		t.head++
		<-t.slots
	}
	if t.head > 64 && 2*t.head > len(t.pending) { // each pointer moves once on average
		t.pending = append(t.pending[:0:0], t.pending[t.head:]...)
		t.head = 0
	}
}

// mark gives the end of the acknowledged run; false when nothing was acknowledged
// in this life.
func (t *tracker) mark() (Checkpoint, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.low == nil {
		return Checkpoint{}, false
	}
	return *t.low, true
}

// waiting gives the number of messages that the low-water mark has not passed.
func (t *tracker) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending) - t.head
}
