package traffic

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a courier.
const (
	maxHeld         = 10_000 // Past it, events go out at once instead of being held.
	publishAttempts = 5
	publishTimeout  = 30 * time.Second // Of one attempt.
	publishPause    = 100 * time.Millisecond
)

// courier takes events to the publish function and is unreliable on purpose.
//
// Writers publish by themselves, in send; what is held back waits here until its
// time comes (run) or until a later event of the same blob has overtaken it.
type courier struct {
	cfg     *Config
	publish func(ctx context.Context, key string, body []byte) error
	clock   Clock
	log     *slog.Logger

	published, duplicated, reordered, delayed, dropped, failed, noise atomic.Uint64

	mu   sync.Mutex
	held []heldEvent
	wake chan struct{} // Holds one token: the list has changed.
}

// heldEvent waits until due, or, when overtake is set, until another event of
// its blob was published.
type heldEvent struct {
	due      time.Time
	blob     BlobName
	body     []byte
	overtake bool
	copy     bool // Of an event that was published already.
}

// fate is what happens to an event.
type fate uint8

const (
	delivered fate = iota
	dropped
	duplicated
	reordered
	delayed
)

// fateOf decides by the place of the event alone, so that a seed repeats it.
func (c *Config) fateOf(key uint64) fate {
	h := mix(key + 9)
	limit := 0.0
	for _, f := range []struct {
		share float64
		fate  fate
	}{{c.Dropped, dropped}, {c.Duplicated, duplicated}, {c.Reordered, reordered}, {c.Delayed, delayed}} {
		limit += f.share
		if chance(h, limit) {
			return f.fate
		}
	}
	return delivered
}

// send takes one event of a blob. It blocks while the publish function does.
func (c *courier) send(ctx context.Context, n *notice) {
	body := n.body()
	wait := time.Duration(1 + below(mix(n.key+10), uint64(c.cfg.DelayMax)))
	e := heldEvent{blob: n.name, body: body}
	switch c.cfg.fateOf(n.key) {
	case dropped:
		c.dropped.Add(1)
		return
	case duplicated:
		c.deliver(ctx, n.name, body, false)
		e.due, e.copy = c.clock.Now().Add(wait), true
		c.hold(ctx, e)
	case reordered:
		c.reordered.Add(1)
		e.due, e.overtake = c.clock.Now().Add(c.cfg.ReorderMax), true
		c.hold(ctx, e)
		return
	case delayed:
		c.delayed.Add(1)
		e.due = c.clock.Now().Add(wait)
		c.hold(ctx, e)
		return
	case delivered:
		c.deliver(ctx, n.name, body, false)
	}
	for _, e := range c.take(func(e *heldEvent) bool { return e.overtake && e.blob == n.name }) {
		c.deliver(ctx, e.blob, e.body, e.copy)
	}
}

// sendNoise publishes an event that concerns nobody, when the dice say so.
func (c *courier) sendNoise(ctx context.Context, n *notice) {
	if c.try(ctx, n.name, n.body()) == nil {
		c.noise.Add(1)
	}
}

func (c *courier) hold(ctx context.Context, e heldEvent) {
	c.mu.Lock()
	full := len(c.held) >= maxHeld
	if !full {
		c.held = append(c.held, e)
	}
	c.mu.Unlock()
	if full {
		c.deliver(ctx, e.blob, e.body, e.copy)
		return
	}
	select {
	case c.wake <- struct{}{}:
	default: // A token is waiting already.
	}
}

// take removes the held events for which want is true, earliest first.
func (c *courier) take(want func(*heldEvent) bool) []heldEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	var taken []heldEvent
	c.held = slices.DeleteFunc(c.held, func(e heldEvent) bool {
		if !want(&e) {
			return false
		}
		taken = append(taken, e)
		return true
	})
	slices.SortStableFunc(taken, func(a, b heldEvent) int { return a.due.Compare(b.due) })
	return taken
}

// next is how long run may wait; without held events, an hour.
func (c *courier) next() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := time.Hour
	now := c.clock.Now()
	for i := range c.held {
		wait = min(wait, max(0, c.held[i].due.Sub(now)))
	}
	return wait
}

// run publishes held events when they are due. When ctx ends it publishes all
// that are left and returns.
func (c *courier) run(ctx context.Context) {
	free := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		now := c.clock.Now()
		for _, e := range c.take(func(e *heldEvent) bool { return !e.due.After(now) }) {
			c.deliver(free, e.blob, e.body, e.copy)
		}
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-c.clock.After(c.next()):
		}
	}
	for _, e := range c.take(func(*heldEvent) bool { return true }) {
		c.deliver(free, e.blob, e.body, e.copy)
	}
}

// deliver publishes one event and counts it.
func (c *courier) deliver(ctx context.Context, name BlobName, body []byte, second bool) {
	err := c.try(ctx, name, body)
	switch {
	case err == nil && second:
		c.published.Add(1)
		c.duplicated.Add(1)
	case err == nil:
		c.published.Add(1)
	case !second: // A lost second copy is no loss.
		c.failed.Add(1)
		c.log.Warn("event lost", slog.String("blob", name.Path), slog.Any("error", err))
	}
}

// try calls the publish function until it succeeds, a few times. The end of the
// run does not interrupt it.
func (c *courier) try(ctx context.Context, name BlobName, body []byte) error {
	ctx = context.WithoutCancel(ctx)
	key := ""
	if c.cfg.KeyBySubject {
		key = subjectOf(name)
	}
	var err error
	for attempt := range publishAttempts {
		if attempt > 0 {
			_ = sleep(ctx, c.clock, publishPause<<attempt) // ctx has no end.
		}
		once, cancel := context.WithTimeout(ctx, publishTimeout)
		err = c.publish(once, key, body)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

func (c *courier) events() EventTruth {
	return EventTruth{
		Published:  c.published.Load(),
		Duplicated: c.duplicated.Load(),
		Reordered:  c.reordered.Load(),
		Delayed:    c.delayed.Load(),
		Dropped:    c.dropped.Load(),
		Failed:     c.failed.Load(),
		Noise:      c.noise.Load(),
	}
}
