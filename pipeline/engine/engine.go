// Package engine moves the data: it runs sources, reads blobs, decodes, runs the
// operators and carries out what the core of each shard decides.
//
// Flow: sources emit announcements, each is routed to the shard of its blob's
// stream. A shard is one goroutine that steps its core and owns the rows of its
// open batch; reads, ledger writes and inserts run beside it and answer with
// events. Memory: text and rows in flight are reserved from one budget before
// they are read, and given back when their batch has landed.
//
// Run starts every goroutine and returns when all are gone.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/shard"
)

// Config of an engine.
type Config struct {
	Shard shard.Config // template for every shard; ids and epoch are filled in

	// BudgetBytes bounds the memory of text and rows in flight.
	BudgetBytes int64
	// MaxLands bounds the inserts at one time over all shards.
	MaxLands int
	// Tick is how often a shard looks at the clock.
	Tick time.Duration
	// DrainTimeout bounds a soft stop; afterwards Run returns and the next start
	// finishes what was left.
	DrainTimeout time.Duration
	// Replay says that every blob is a pipeline.Replay, which stands for a record of
	// another one: rows get that one's address, and what is refused is only counted.
	Replay bool
}

// DefaultConfig gives the defaults of the design.
func DefaultConfig() Config {
	return Config{
		Shard: shard.DefaultConfig(), BudgetBytes: 192 << 20, MaxLands: 4,
		Tick: 100 * time.Millisecond, DrainTimeout: 2 * time.Minute,
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Shard.MaxBatchAge >= 100*time.Millisecond, "max_batch_age %v: want at least 100ms", c.Shard.MaxBatchAge)
	check(c.Shard.MaxBatchBytes >= 1<<20, "max_batch_bytes %d: want at least 1 MiB", c.Shard.MaxBatchBytes)
	check(c.Shard.MaxBatchRows >= 1000 && c.Shard.MaxBatchRows <= 500_000, "max_batch_rows %d: want 1,000 to 500,000", c.Shard.MaxBatchRows)
	check(c.Shard.MaxInFlight >= 1, "max_in_flight %d: want at least 1", c.Shard.MaxInFlight)
	check(c.Shard.MaxFetches >= 1, "max_fetches %d: want at least 1", c.Shard.MaxFetches)
	check(c.BudgetBytes >= 64<<20, "budget_bytes %d: want at least 64 MiB", c.BudgetBytes)
	check(c.MaxLands >= 1, "max_lands %d: want at least 1", c.MaxLands)
	check(c.Tick > 0, "tick %v: want more than 0", c.Tick)
	return errors.Join(errs...)
}

// Reader reads blobs; pipeline/blob implements it.
type Reader interface {
	ReadNew(ctx context.Context, id pipeline.BlobID, pos blob.Position, contentLength int64,
		budget blob.Budget, emit func(blob.Chunk) error) (blob.Outcome, error)
	ReadRange(ctx context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error)
}

// Checkpoints records the byte ranges behind committed batches in the target, so
// that a lost ledger can be rebuilt. Called again with the same batches after a
// crash.
type Checkpoints interface {
	LandBatches(ctx context.Context, manifests []pipeline.Manifest) error
}

// Sweeper is a Source that can look once at everything, now.
type Sweeper interface {
	Sweep(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error
}

// Lagger is a Source that knows how many messages wait where it reads, received or
// not, until they are acknowledged. Any goroutine may ask.
type Lagger interface{ Lag() int64 }

// Parts are what an engine is assembled from. The first four are needed; what else
// is nil does nothing, or is Go's own clock and memory.
type Parts struct {
	Ledger      *ledger.Ledger
	Sources     []pipeline.Source
	Reader      Reader
	Sinks       []NamedSink
	Checkpoints Checkpoints
	// Transforms are what flow rows pass, in this order, before operators and sinks see
	// them.
	Transforms []Transforms
	// Operators makes the operators of one shard.
	Operators func() ([]pipeline.Operator, error)
	Allocator memory.Allocator
	Meter     metric.Meter
	Tracer    trace.Tracer
	Logger    *slog.Logger
	Now       func() time.Time
}

// complete fills in what may be nil.
func (p *Parts) complete() error {
	var missing error
	if p.Ledger == nil || p.Reader == nil {
		missing = errors.New("parts: want a ledger and a reader")
	}
	if p.Operators == nil {
		p.Operators = func() ([]pipeline.Operator, error) { return nil, nil }
	}
	if p.Allocator == nil {
		p.Allocator = memory.DefaultAllocator
	}
	if p.Meter == nil {
		p.Meter = metricnoop.Meter{}
	}
	if p.Tracer == nil {
		p.Tracer = tracenoop.Tracer{}
	}
	if p.Logger == nil {
		p.Logger = slog.New(slog.DiscardHandler)
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	return errors.Join(missing, checkSinks(p.Sinks), checkTransforms(p.Transforms))
}

// Engine is one running pipeline.
type Engine struct {
	cfg     Config
	parts   Parts
	budget  *budget
	lands   *semaphore.Weighted
	started atomic.Pointer[[]*runner] // nil before Run
	acks    ackTable
	metrics *metrics

	drainOnce sync.Once
	drain     chan bool // end of input?
	live      atomic.Int32
	serial    bool // one thing at a time, also where goroutines would wait for each other
	restored  restored
}

// New assembles an engine. It starts nothing.
func New(cfg Config, parts Parts) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := parts.complete(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := &Engine{
		cfg: cfg, parts: parts, lands: semaphore.NewWeighted(int64(cfg.MaxLands)),
		drain: make(chan bool, 1),
	}
	e.budget = newBudget(cfg.BudgetBytes, e.pressure)
	var err error
	if e.metrics, err = newMetrics(parts.Meter, e); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e.acks.told = func(since time.Time, n int) { e.metrics.acknowledged(parts.Now().Sub(since), n) }
	return e, nil
}

// Run recovers every shard, then reads and lands until ctx ends (hard stop) or
// Drain was called and everything has landed. A hard stop loses nothing: the next
// start finishes what was under way.
func (e *Engine) Run(ctx context.Context) error {
	info := e.parts.Ledger.Info()
	var runners []*runner
	for i := range info.Shards {
		r, err := newRunner(ctx, e, i)
		if err != nil {
			return err
		}
		runners = append(runners, r)
	}
	e.started.Store(&runners)
	group, ctx := errgroup.WithContext(ctx)
	var running sync.WaitGroup
	for _, r := range runners {
		running.Add(1)
		group.Go(func() error {
			defer running.Done()
			return r.run(ctx)
		})
	}
	finished := make(chan struct{})
	go func() {
		running.Wait()
		close(finished)
	}()
	group.Go(func() error {
		if err := e.feed(ctx); err != nil {
			return err
		}
		return e.awaitDrain(ctx, finished)
	})
	err := group.Wait()
	<-finished
	if err != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Drain is the soft stop: sources end, everything announced is read and landed,
// then Run returns. With endOfInput the sources look at everything once more and
// every window closes. Later calls change nothing.
func (e *Engine) Drain(endOfInput bool) {
	e.drainOnce.Do(func() { e.drain <- endOfInput })
}

// Tune changes the age at which batches close and the out-of-orderness of every
// shard, once each has finished its present step. It blocks until then.
//
// Errors: of ctx; values that a Config may not have.
func (e *Engine) Tune(ctx context.Context, maxBatchAge, outOfOrderness time.Duration) error {
	cfg := e.cfg
	cfg.Shard.MaxBatchAge, cfg.Shard.OutOfOrderness = maxBatchAge, outOfOrderness
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	for _, r := range e.runners() {
		if err := r.post(ctx, shard.Tune{MaxBatchAge: maxBatchAge, OutOfOrderness: outOfOrderness}); err != nil {
			return err
		}
	}
	return nil
}

// runners gives the shards; none before Run has made them.
func (e *Engine) runners() []*runner {
	if p := e.started.Load(); p != nil {
		return *p
	}
	return nil
}

// Ready says whether every shard is past its recovery.
func (e *Engine) Ready() bool {
	n := len(e.runners())
	return n > 0 && int(e.live.Load()) == n
}

// Trouble says why the ledger cannot be written, while that is tried again and
// nothing lands; nil when all is well.
func (e *Engine) Trouble() error {
	for _, r := range e.runners() {
		if err := r.trouble.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// feed runs the sources until the drain, then passes the drain to the shards.
func (e *Engine) feed(ctx context.Context) error {
	sources, stop := context.WithCancel(ctx)
	defer stop()
	group, sources := errgroup.WithContext(sources)
	for _, s := range e.parts.Sources {
		group.Go(func() error { return s.Run(sources, e.emit) })
	}
	done := make(chan error, 1)
	go func() { done <- group.Wait() }()
	var endOfInput bool
	select {
	case err := <-done:
		if err != nil || ctx.Err() != nil {
			return err
		}
		// Every source has ended by itself: that is the end of the input.
		endOfInput = true
	case endOfInput = <-e.drain:
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	if endOfInput {
		if err := e.sweep(ctx); err != nil {
			return err
		}
	}
	for _, r := range e.runners() {
		if err := r.post(ctx, shard.Drain{EndOfInput: endOfInput}); err != nil {
			return err
		}
	}
	return nil
}

// ErrDrainTimeout: a soft stop took longer than it may. Nothing is lost: the next
// start finishes it.
var ErrDrainTimeout = errors.New("soft stop took too long")

// awaitDrain bounds a soft stop: a blob that cannot be read, or a target that is
// away, must not hold it for ever.
func (e *Engine) awaitDrain(ctx context.Context, finished <-chan struct{}) error {
	t := time.NewTimer(e.cfg.DrainTimeout)
	defer t.Stop()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		s := e.Status()
		return fmt.Errorf("%w (%v): %d blobs wait or are being read, %d commits are not done: the next start finishes them", ErrDrainTimeout, e.cfg.DrainTimeout, s.Queued+s.Reading, s.InFlight)
	}
}

func (e *Engine) sweep(ctx context.Context) error {
	for _, s := range e.parts.Sources {
		if sweeper, ok := s.(Sweeper); ok {
			if err := sweeper.Sweep(ctx, e.emit); err != nil {
				return fmt.Errorf("last sweep: %w", err)
			}
		}
	}
	return nil
}

// emit routes a delivery's announcements to their shards. It blocks while a shard
// is busy: that is how back-pressure reaches the sources.
func (e *Engine) emit(ctx context.Context, d pipeline.Delivery) error {
	ctx, span := e.notification(ctx, d)
	defer span.End()
	now := e.parts.Now()
	ids := e.acks.add(d, now)
	runners := e.runners()
	for i, a := range d.Announcements {
		r := runners[pipeline.ShardOf(a.Blob.Stream(), len(runners))]
		if err := r.post(ctx, caused{shard.Announced{Announcement: a, Ack: ids[i]}, newCause(span, a, now)}); err != nil {
			return err
		}
	}
	e.metrics.announced(ctx, len(d.Announcements))
	return nil
}

func (e *Engine) pressure() {
	for _, r := range e.runners() {
		select {
		case r.pressed <- struct{}{}:
		default:
		}
	}
}
