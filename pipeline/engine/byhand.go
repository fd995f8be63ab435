package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/shard"
)

// Deed carries out one thing that a shard has begun, and gives the event that answers
// it; nil when there is none.
//
// Errors: of class pipeline.ErrTransient: it is to be done again later.
type Deed func() (shard.Event, error)

func deed(f func() shard.Event) Deed {
	return func() (shard.Event, error) {
		ev := f()
		if failed, ok := ev.(shard.Failed); ok && errors.Is(failed.Err, pipeline.ErrTransient) {
			return nil, failed.Err
		}
		return ev, nil
	}
}

// Hands take what the shards of an engine begin.
type Hands interface {
	// Work may be done at any time, in any order, or never, as if the process had died.
	// The chunks of a read are taken with TakeChunk before its end is passed to Step.
	Work(id int, a shard.Action, do Deed)
	// Write is a write to the ledger: those of one shard are done one after the other.
	Write(id int, a shard.Action, do Deed)
}

// ByHand is an engine without goroutines, clock and waiting: whoever holds it decides
// when each thing happens that the goroutines of Run would do. It is there for
// simulations, which so run the very code that runs in production.
//
// One goroutine uses it. Memory is not bounded: the budget never runs out.
type ByHand struct{ e *Engine }

// NewByHand assembles an engine and recovers its shards; each is then stepped with
// shard.Tick to start. The sources of parts are not run.
func NewByHand(ctx context.Context, cfg Config, parts Parts, hands Hands) (*ByHand, error) {
	if err := parts.complete(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	const noLimit = 1 << 60
	e := &Engine{cfg: cfg, parts: parts, serial: true, lands: semaphore.NewWeighted(noLimit), drain: make(chan bool, 1)}
	e.budget = newBudget(noLimit, func() {})
	var err error
	if e.metrics, err = newMetrics(parts.Meter, e); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e.acks.told = func(time.Time, int) {}
	var runners []*runner
	for id := range parts.Ledger.Info().Shards {
		r, err := newRunner(ctx, e, id)
		if err != nil {
			return nil, err
		}
		r.hands, r.fetched = hands, map[shard.JobID][]chunk{}
		runners = append(runners, r)
	}
	e.started.Store(&runners)
	return &ByHand{e}, nil
}

// atOneTime is how many of n things may be done at one time.
func (e *Engine) atOneTime(n int) int {
	if e.serial {
		return 1
	}
	return n
}

// Emit is what a source calls with a delivery.
func (b *ByHand) Emit(ctx context.Context, d pipeline.Delivery) error { return b.e.emit(ctx, d) }

// Step passes an event to a shard.
func (b *ByHand) Step(ctx context.Context, id int, ev shard.Event) {
	if r := b.e.runners()[id]; !r.stopped {
		r.step(ctx, ev)
	}
}

// TakeChunk passes the next chunk of a read to its shard. more says that there was
// one, taken that the shard had room for it; when not, it is tried again later.
func (b *ByHand) TakeChunk(ctx context.Context, id int, job shard.JobID) (taken, more bool) {
	r := b.e.runners()[id]
	chunks := r.fetched[job]
	if len(chunks) == 0 {
		delete(r.fetched, job)
		return false, false
	}
	if r.stopped || !r.core.Accepts(int64(len(chunks[0].data.Data))) {
		return false, true
	}
	r.fetched[job] = chunks[1:]
	r.take(ctx, chunks[0])
	return true, true
}

// Piece gives the piece that an action lands, borrowed.
func (b *ByHand) Piece(id int, a shard.Land) (pipeline.BatchID, pipeline.Piece) {
	h := b.e.runners()[id].held[a.Seq]
	return h.batch, h.pieces[a.Piece]
}

// Shards is the number of shards.
func (b *ByHand) Shards() int { return len(b.e.runners()) }

// Status tells how a shard stands.
func (b *ByHand) Status(id int) shard.Status { return b.e.runners()[id].core.Status() }

// Stopped says whether a shard has come to its end, and why.
func (b *ByHand) Stopped(id int) (bool, error) {
	r := b.e.runners()[id]
	return r.stopped, r.err
}

// Close frees what the shards hold.
func (b *ByHand) Close() {
	for _, r := range b.e.runners() {
		r.close()
	}
}
