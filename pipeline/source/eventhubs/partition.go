package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/lowwater"
)

// partition reads one partition. Its goroutine owns everything but the tracker.
type partition struct {
	s   *Source
	id  string
	log *slog.Logger

	last    *int64    // sequence number of the last message given on; nil is none
	created time.Time // the life of the hub that last belongs to; zero is unknown
	retry   backoff
	refused int // times in a row that the first link was refused

	mu   sync.Mutex
	t    *lowwater.Tracker[Checkpoint] // of the present life
	base int64                         // sequence number before the first that it was given
	end  int64                         // ... of the last message that the partition is known to have
}

func newPartition(s *Source, id string) *partition {
	return &partition{
		s: s, id: id, log: s.deps.Logger.With(slog.String("partition", id)),
		retry: backoff{min: s.cfg.RetryMin, max: s.cfg.RetryMax},
	}
}

// mark gives the end of the acknowledged run of the present life.
func (p *partition) mark() (Checkpoint, bool) {
	if t := p.tracker(); t != nil {
		return t.Mark()
	}
	return Checkpoint{}, false
}

func (p *partition) tracker() *lowwater.Tracker[Checkpoint] {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.t
}

// run reads until ctx ends, over any number of links.
func (p *partition) run(ctx context.Context, c *client, emit func(context.Context, pipeline.Delivery) error) error {
	for {
		err := p.link(ctx, c, emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var f *fatal
		if errors.As(err, &f) {
			return f.cause
		}
		wait := p.retry.next()
		switch kind := classify(err); {
		case kind == troubleStolen:
			wait = p.s.cfg.OwnershipWait
			p.s.metrics.stolen.Add(ctx, 1)
		case kind == troubleRefused && p.hopeless():
			return fmt.Errorf("event hub %q, partition %s: %w; check the consumer group %q and the right to listen", p.s.hub, p.id, err, p.s.cfg.ConsumerGroup)
		default:
			p.s.metrics.reconnects.Add(ctx, 1)
		}
		p.s.trouble(p.id, fmt.Errorf("partition %s: %w", p.id, err))
		p.log.Warn("event hub partition is not read", slog.Any("cause", err), slog.Duration("wait", wait))
		if err := pipeline.Wait(ctx, wait); err != nil {
			return err
		}
	}
}

// link checks the position, makes a link and reads until it breaks.
func (p *partition) link(ctx context.Context, c *client, emit func(context.Context, pipeline.Delivery) error) error {
	if err := p.position(ctx, c); err != nil {
		return err
	}
	pc, err := c.open(p.s.cfg, p.id, p.last)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		_ = pc.Close(ctx) // of a broken link
	}()
	opened := p.s.deps.Now()
	settled := time.AfterFunc(heldTime, func() { p.s.trouble(p.id, nil) })
	defer settled.Stop()
	for {
		// One at a time: the SDK waits for as many as it is asked for. They come out of
		// what it has prefetched.
		events, err := pc.ReceiveEvents(ctx, 1, nil)
		if err != nil {
			if p.s.deps.Now().Sub(opened) > heldTime {
				p.held()
			}
			return err
		}
		p.held()
		for _, e := range events {
			if err := p.give(ctx, e, emit); err != nil {
				return err
			}
		}
	}
}

// heldTime is how long a link must live to count as made: the SDK does not tell
// when the service has let it in, but a refusal comes at once.
const heldTime = 5 * time.Second

// held notes that the service let us in.
func (p *partition) held() {
	if p.retry.now > 0 {
		p.retry.reset()
		p.s.trouble(p.id, nil)
	}
	p.s.worked.Store(true)
}

// hopeless tells whether to give up after a refusal: several in a row before any
// link of the source has ever held. Later a refusal passes: a key is changed, a hub
// is made anew.
func (p *partition) hopeless() bool {
	p.refused++
	return !p.s.worked.Load() && p.refused >= 3
}

// position compares the position with what the partition holds. After it, last is
// a place from which the service can go on, and the tracker belongs to the hub's
// present life.
func (p *partition) position(ctx context.Context, c *client) error {
	hub, err := c.hub(ctx)
	if err != nil {
		return err
	}
	props, err := c.partition(ctx, p.id)
	if err != nil {
		return err
	}
	if p.last != nil {
		p.check(ctx, hub.CreatedOn, props)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.t == nil || !p.created.Equal(hub.CreatedOn) {
		p.created = hub.CreatedOn
		p.t = lowwater.New[Checkpoint](p.s.cfg.MaxUnacknowledged)
		p.base = props.BeginningSequenceNumber - 1
		if props.IsEmpty {
			p.base = props.LastEnqueuedSequenceNumber
		}
		if p.last != nil {
			p.base = *p.last
		}
	}
	p.end = props.LastEnqueuedSequenceNumber
	return nil
}

// check finds out whether the position still means something. A hub that was made
// anew is told by its birthday, or by an end that lies before the position.
func (p *partition) check(ctx context.Context, created time.Time, props azeventhubs.PartitionProperties) {
	last := *p.last
	recreated := !p.created.IsZero() && !p.created.Equal(created)
	first := props.BeginningSequenceNumber
	if props.IsEmpty { // all have expired; where an empty partition begins is not told
		first = props.LastEnqueuedSequenceNumber + 1
	}
	switch {
	case recreated || last > props.LastEnqueuedSequenceNumber:
		p.gap(ctx, Gap{Partition: p.id, Reason: GapRecreated, After: last, Missing: -1})
		p.last, p.created = nil, time.Time{}
		p.mu.Lock()
		p.t = nil
		p.mu.Unlock()
	case first > last+1:
		p.gap(ctx, Gap{Partition: p.id, Reason: GapExpired, After: last, Missing: first - last - 1})
		next := first - 1
		p.last = &next
	}
}

func (p *partition) gap(ctx context.Context, g Gap) {
	p.log.Warn("event hub messages were not read", slog.String("reason", string(g.Reason)), slog.Int64("after", g.After), slog.Int64("missing", g.Missing))
	p.s.metrics.gap(ctx, g)
	p.s.deps.OnGap(g)
}

// give hands one message on.
func (p *partition) give(ctx context.Context, e *azeventhubs.ReceivedEventData, emit func(context.Context, pipeline.Delivery) error) error {
	if p.last != nil && e.SequenceNumber > *p.last+1 {
		// Retention passed us by while the link was up: the pipeline was full for long.
		p.gap(ctx, Gap{Partition: p.id, Reason: GapExpired, After: *p.last, Missing: e.SequenceNumber - *p.last - 1})
	}
	t := p.tracker()
	m, err := t.Begin(ctx, Checkpoint{Sequence: e.SequenceNumber, Offset: e.Offset, Created: p.created})
	if err != nil {
		return err
	}
	p.s.metrics.received(ctx, e)
	p.reached(e.SequenceNumber)
	found := p.s.deps.Parse(e.Body)
	if len(found) == 0 {
		t.Done(m)
	} else if err := emit(sender(ctx, e), pipeline.Delivery{Announcements: found, Ack: func() { t.Done(m) }}); err != nil {
		return &fatal{err}
	}
	sequence := e.SequenceNumber // a pointer into e would keep its body
	p.last = &sequence
	return nil
}

// fatal is an error of the pipeline, not of the hub.
type fatal struct{ cause error }

func (f *fatal) Error() string { return f.cause.Error() }
func (f *fatal) Unwrap() error { return f.cause }
