package engine

import (
	"sync"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/shard"
)

// ackTable counts down the announcements of each delivery over the shards.
type ackTable struct {
	mu      sync.Mutex
	next    shard.AckID
	waiting map[shard.AckID]*pendingAck
	// told hears how long each took, from its event until it was acknowledged.
	told func(since time.Time, n int)
}

type pendingAck struct {
	remaining int
	ack       func()
	at        time.Time // of the oldest event in it
	count     int
}

// add gives an id for each announcement; all 0 when the source needs no answer.
// A delivery without announcements is acknowledged at once.
func (t *ackTable) add(d pipeline.Delivery, now time.Time) []shard.AckID {
	ids := make([]shard.AckID, len(d.Announcements))
	if d.Ack == nil {
		return ids
	}
	if len(ids) == 0 {
		d.Ack()
		return ids
	}
	p := &pendingAck{remaining: len(ids), ack: d.Ack, at: now, count: len(ids)}
	for _, a := range d.Announcements {
		if at := happened(a, now); at.Before(p.at) {
			p.at = at
		}
	}
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
	var ready []*pendingAck
	t.mu.Lock()
	for _, id := range ids {
		p := t.waiting[id]
		delete(t.waiting, id)
		if p == nil {
			continue
		}
		if p.remaining--; p.remaining == 0 {
			ready = append(ready, p)
		}
	}
	t.mu.Unlock()
	for _, p := range ready {
		p.ack()
		t.told(p.at, p.count)
	}
}

// oldest gives the time of the oldest event that is not acknowledged, zero when
// nothing waits.
func (t *ackTable) oldest() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	var oldest time.Time
	for _, p := range t.waiting {
		if oldest.IsZero() || p.at.Before(oldest) {
			oldest = p.at
		}
	}
	return oldest
}

func (t *ackTable) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}
