package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/shard"
)

// runner is one shard: the goroutine that steps its core and owns its open batch.
type runner struct {
	e    *Engine
	id   int
	core *shard.Core
	log  *slog.Logger

	trace *tracing

	operators []pipeline.Operator
	decoded   *decode.Batch
	unitRows  []int64 // decoded of each unit of the open batch
	rejects   []rejected
	reserved  int64               // budget of the open batch
	held      map[uint64]*held    // sealed batches until they have landed
	bases     map[uint64][][]byte // operator snapshots of batches whose base is to be written
	sealedSeq uint64              // last batch that the operators have seen
	// manifests behind the newest base, for the target's table of batches.
	manifests []pipeline.Manifest

	hands   Hands // nil: goroutines carry out what a step begins
	fetched map[shard.JobID][]chunk
	events  chan shard.Event
	chunks  chan chunk
	pressed chan struct{}
	ledger  chan func(ctx context.Context) shard.Event // ledger writes, in order
	work    sync.WaitGroup
	stopped bool
	err     error

	placesMu sync.Mutex
	places   map[pipeline.BlobID]place // malformed bytes that were not yet seen often enough

	status  atomic.Pointer[shard.Status]
	trouble atomic.Pointer[error] // of the ledger write that is being tried again
}

// held is what a sealed batch keeps until it has landed.
type held struct {
	batch      pipeline.BatchID
	transforms []used
	filtered   []int64 // rows left out, by unit; nil when none
	pieces     []pipeline.Piece
	reserved   int64
}

func newRunner(ctx context.Context, e *Engine, id int) (*runner, error) {
	found, err := e.parts.Ledger.Recover(ctx, id)
	if err != nil {
		return nil, err
	}
	log := e.parts.Logger.With(slog.Int("shard", id))
	for _, w := range found.Warnings {
		log.Warn("ledger damage stepped around", slog.String("cause", w))
	}
	operators, err := e.parts.Operators()
	if err != nil {
		return nil, err
	}
	if n := len(found.Base.Operators); n > 0 && n != len(operators) {
		return nil, fmt.Errorf("shard %d: the ledger holds the state of %d operators, the configuration has %d: start with the old configuration, stop it, then change it", id, n, len(operators))
	}
	for i, s := range found.Base.Operators {
		if err := operators[i].Restore(s); err != nil {
			return nil, fmt.Errorf("shard %d: operator %d: %w", id, i, err)
		}
	}
	cfg := e.cfg.Shard
	info := e.parts.Ledger.Info()
	cfg.Ledger, cfg.Shard, cfg.Start = info.ID, id, info.Start
	// The low bits are the core's: it raises its epoch when a landing is in doubt.
	cfg.Epoch = e.parts.Ledger.Epoch() << 20
	r := &runner{
		e: e, id: id, core: shard.New(cfg, found), log: log, trace: newTracing(e, id), operators: operators,
		decoded: decode.NewBatch(e.parts.Allocator), held: map[uint64]*held{}, bases: map[uint64][][]byte{}, places: map[pipeline.BlobID]place{}, sealedSeq: found.Base.Seq,
		events: make(chan shard.Event), chunks: make(chan chunk), pressed: make(chan struct{}, 1),
		ledger: make(chan func(ctx context.Context) shard.Event, 8),
	}
	if n := len(found.Manifests); n > 0 {
		log.Info("recovering", slog.Int("manifests", n), slog.Uint64("done_seq", found.DoneSeq), slog.Uint64("base_seq", found.Base.Seq))
	}
	r.publish()
	return r, nil
}

// post hands an event to the shard; it blocks while the shard is busy.
func (r *runner) post(ctx context.Context, ev shard.Event) error {
	if r.hands != nil {
		r.step(ctx, ev)
		return nil
	}
	select {
	case r.events <- ev:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *runner) run(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer r.close()
	defer r.work.Wait()
	defer cancel()
	r.work.Add(1)
	go r.writeLedger(ctx)
	ticker := time.NewTicker(r.e.cfg.Tick)
	defer ticker.Stop()
	r.step(ctx, shard.Tick{})
	var waiting *chunk
	var ended shard.Event // the end of its read, which comes behind it
	for !r.stopped {
		if waiting != nil && r.core.Accepts(int64(len(waiting.data.Data))) {
			r.take(ctx, *waiting)
			waiting = nil
			if ended != nil {
				r.step(ctx, ended)
				ended = nil
			}
			continue
		}
		chunks := r.chunks
		if waiting != nil {
			chunks = nil
		}
		select {
		case ev := <-r.events:
			if done, ok := ev.(shard.FetchDone); ok && waiting != nil && waiting.job == done.Job {
				ended = ev
				continue
			}
			r.step(ctx, ev)
		case c := <-chunks:
			waiting = &c
		case <-r.pressed:
			r.step(ctx, shard.Pressure{})
		case <-ticker.C:
			r.step(ctx, shard.Tick{})
			r.publish()
		case <-ctx.Done():
			if waiting != nil {
				r.e.budget.Release(int64(len(waiting.data.Data)))
			}
			return ctx.Err()
		}
	}
	r.publish()
	return r.err
}

// close frees what the shard holds once its goroutines are gone.
func (r *runner) close() {
	r.trace.close()
	for _, h := range r.held {
		h.release()
	}
	r.decoded.Release()
	for _, op := range r.operators {
		op.Release()
	}
}

func (r *runner) publish() {
	s := r.core.Status()
	r.status.Store(&s)
}

// step passes one event to the core and carries out what it wants, in order.
func (r *runner) step(ctx context.Context, ev shard.Event) {
	queue := r.core.Step(r.e.parts.Now(), r.trace.event(ev))
	for len(queue) > 0 && !r.stopped {
		a := queue[0]
		queue = queue[1:]
		if answer := r.do(r.trace.action(ctx, a), a); answer != nil {
			// A batch that was sealed answers before anything else happens.
			queue = append(queue, r.core.Step(r.e.parts.Now(), answer)...)
		}
	}
}

// do carries out one action. Slow ones run beside the shard and answer later;
// those done on the spot give their answer.
func (r *runner) do(ctx context.Context, a shard.Action) shard.Event {
	switch a := a.(type) {
	case shard.Fetch:
		r.goWork(ctx, a, func() shard.Event { return r.fetch(ctx, a) })
	case shard.Seal:
		return r.seal(ctx, a)
	case shard.Replay:
		return r.replay(ctx, a)
	case shard.WriteManifest:
		a.Manifest.Decoder = decode.Version
		r.manifests = append(r.manifests, a.Manifest)
		transforms := r.held[a.Manifest.Seq].transforms
		r.write(ctx, a, func(ctx context.Context) shard.Event { return r.writeManifest(ctx, a, transforms) })
	case shard.Land:
		piece := r.held[a.Seq].pieces[a.Piece]
		batch := r.held[a.Seq].batch
		r.goWork(ctx, a, func() shard.Event { return r.land(ctx, a, batch, piece) })
	case shard.SetFence:
		r.goWork(ctx, a, func() shard.Event { return r.fence(ctx, a) })
	case shard.Probe:
		r.goWork(ctx, a, func() shard.Event { return r.probe(ctx, a) })
	case shard.WriteHead:
		r.write(ctx, a, func(ctx context.Context) shard.Event { return r.writeHead(ctx, a) })
	case shard.WriteBase:
		return r.writeBase(ctx, a)
	case shard.Ack:
		r.e.acks.done(a.IDs)
	case shard.Release:
		r.release(ctx, a.Seq)
	case shard.Ignore:
		r.e.metrics.ignored(ctx, a.Reason)
	case shard.Report:
		r.report(ctx, a)
	case shard.Live:
		if int(r.e.live.Add(1)) == len(r.e.runners()) {
			r.e.forgetRestored()
		}
		r.log.Info("live")
	case shard.Stop:
		r.stopped, r.err = true, a.Err
	}
	return nil
}

// goWork runs one slow action and posts its answer; a nil answer is a stop.
func (r *runner) goWork(ctx context.Context, a shard.Action, f func() shard.Event) {
	if r.hands != nil {
		r.hands.Work(r.id, a, deed(f))
		return
	}
	r.work.Add(1)
	go func() {
		defer r.work.Done()
		if ev := f(); ev != nil {
			_ = r.post(ctx, ev) // ctx ended: nobody waits for the answer
		}
	}()
}

// write hands a write to the goroutine that does them one by one.
func (r *runner) write(ctx context.Context, a shard.Action, f func(ctx context.Context) shard.Event) {
	if r.hands != nil {
		r.hands.Write(r.id, a, deed(func() shard.Event { return f(ctx) }))
		return
	}
	r.ledger <- f
}

func (r *runner) report(ctx context.Context, a shard.Report) {
	r.e.metrics.reported(ctx, a.Kind)
	switch {
	case a.Kind == "unreadable" && errors.Is(a.Err, pipeline.ErrTransient):
		r.log.DebugContext(ctx, "blob read will be retried", slog.String("blob", a.Blob.String()), slog.Any("cause", a.Err))
	case a.Err != nil:
		r.log.WarnContext(ctx, "blob cannot be read", slog.String("blob", a.Blob.String()), slog.Any("cause", a.Err))
	default:
		r.log.WarnContext(ctx, "blob changed", slog.String("kind", a.Kind), slog.String("blob", a.Blob.String()))
	}
}

// release lets go of a batch that has landed.
func (r *runner) release(ctx context.Context, seq uint64) {
	h := r.held[seq]
	if h == nil {
		return
	}
	delete(r.held, seq)
	for _, p := range h.pieces {
		r.e.metrics.landed(ctx, p, p.Sink == h.pieces[0].Sink)
	}
	h.release()
	r.e.budget.Release(h.reserved)
}

func (h *held) release() {
	releaseAll(h.pieces)
	h.pieces = nil
}
