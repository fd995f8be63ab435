package engine

import (
	"sync"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/shard"
)

// ackTable counts down the announcements of each delivery over the shards.
type ackTable struct {
	mu      sync.Mutex
	next    shard.AckID
	waiting map[shard.AckID]*pendingAck
}

type pendingAck struct {
	remaining int
	ack       func()
}

// add gives an id for each announcement; all 0 when the source needs no answer.
// A delivery without announcements is acknowledged at once.
func (t *ackTable) add(d pipeline.Delivery) []shard.AckID {
	ids := make([]shard.AckID, len(d.Announcements))
	if d.Ack == nil {
		return ids
	}
	if len(ids) == 0 {
		d.Ack()
		return ids
	}
	p := &pendingAck{remaining: len(ids), ack: d.Ack}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting == nil {
		t.waiting = map[shard.AckID]*pendingAck{}
	}
	for i := range ids {
		t.next++
		ids[i] = t.next
		t.waiting[t.next] = p
	}
	return ids
}

// done acknowledges the deliveries that wait for nothing any more.
func (t *ackTable) done(ids []shard.AckID) {
	var ready []func()
	t.mu.Lock()
	for _, id := range ids {
		p := t.waiting[id]
		delete(t.waiting, id)
		if p == nil {
			continue
		}
		if p.remaining--; p.remaining == 0 {
			ready = append(ready, p.ack)
		}
	}
	t.mu.Unlock()
	for _, ack := range ready {
		ack()
	}
}

func (t *ackTable) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}
