package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/source/listing"
)

const (
	// forever is longer than anything is kept.
	forever = 100 * 365 * 24 * time.Hour
	// behind is how far the watermark stays behind: with it an hour's windows wait for
	// all interfaces of the hour.
	behind = time.Hour
	// idleAfter is when an interface without blobs is waited for no longer.
	idleAfter = 30 * time.Second
)

// Deps are what a backfill works on.
type Deps struct {
	Table      Table
	Lister     listing.Lister
	Containers []listing.Container
	Reader     engine.Reader
	// Hourless says that blobs without an hour in their names are read, too.
	Hourless bool
	// IsLive says whether the live pipeline reads the container of a blob.
	IsLive func(id pipeline.BlobID) bool

	// State is the live pipeline's folder.
	State string
	// Name is that of the backfill's ledger below it: another one for each store that
	// blobs are read from, as an interrupted run reads them again.
	Name string
	// Start is where a live pipeline without a ledger would start.
	Start time.Time
	// KeepOffsets is how long the live pipeline keeps offsets.
	KeepOffsets time.Duration
	// Shards of a new ledger.
	Shards int
	// Prepare makes the target ready, and the live ledger if there is none.
	Prepare func(ctx context.Context) error
	// Register gives the id that the target knows a ledger by.
	Register func(ctx context.Context, name string, shards int) (uint16, error)

	Sinks       []engine.NamedSink
	Checkpoints engine.Checkpoints
	// Transforms are what rows pass first, as they do in the live pipeline.
	Transforms func() ([]engine.Transforms, error)
	Operators  func() ([]pipeline.Operator, error)
	Config     engine.Config // template; what a backfill needs is set
	Allocator  memory.Allocator
	Meter      metric.Meter
	Tracer     trace.Tracer
	Logger     *slog.Logger
	Now        func() time.Time
}

// Backfill is one backfill. It holds the lock of its state folder until Close.
type Backfill struct {
	Deps
	period  *listing.Period
	border  border
	lock    *ledger.Directory // nil in a dry run
	own     *ledger.Directory
	pending map[string][]Span // landed, or about to, by blob: of manifests that the table may lack
}

// Open finds out what the live pipeline and earlier backfills have landed. from and
// to bound the hours; zero: no bound. With dry it changes nothing, neither here nor
// in the target, and Run must not be called. Close it.
//
// Errors: another backfill runs; a ledger that cannot be read.
func Open(ctx context.Context, deps Deps, from, to time.Time, dry bool) (*Backfill, error) {
	if !from.IsZero() {
		from = from.UTC().Truncate(time.Hour)
	}
	b := &Backfill{Deps: deps, pending: map[string][]Span{}, period: &listing.Period{
		Containers: deps.Containers, From: from, To: to.UTC(), Hourless: deps.Hourless, Log: deps.Logger,
	}}
	err := b.open(ctx, dry)
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Backfill) open(ctx context.Context, dry bool) error {
	b.border = border{start: b.Start, keep: b.KeepOffsets, now: b.Now()}
	live := ledger.ViewDirectory(b.State)
	if !dry {
		var err error
		if b.lock, err = ledger.OpenDirectory(filepath.Join(b.State, Folder)); err != nil {
			return fmt.Errorf("one backfill or replay at a time: %w", err)
		}
		if b.own, err = ledger.OpenDirectory(filepath.Join(b.State, Folder, b.Name)); err != nil {
			return err
		}
		if err := b.Prepare(ctx); err != nil {
			return err
		}
	}
	book, err := ledger.View(ctx, live)
	switch {
	case err == nil:
		b.border.start = book.Info().Start
	case !dry || !errors.Is(err, ledger.ErrNotExist):
		return fmt.Errorf("read the live pipeline's ledger: %w", err)
	}
	look := func() error {
		if book == nil {
			return nil
		}
		_, err := b.note(ctx, book)
		return err
	}
	if dry {
		err = look()
	} else {
		err = ledger.Claim(ctx, live, b.claim(), look)
	}
	if err != nil {
		return fmt.Errorf("read the live pipeline's ledger: %w", err)
	}
	return b.siblings(ctx)
}

// claim is the end of the hours that are taken from the live pipeline.
func (b *Backfill) claim() time.Time {
	end := b.border.cutoff()
	if to := b.period.To; !b.periodOpen() && to.Before(end) {
		end = to.Add(time.Hour - 1).Truncate(time.Hour)
	}
	return end
}

func (b *Backfill) periodOpen() bool { return b.period.To.IsZero() }

// Folder of all backfills below the state folder; it holds the lock, and a ledger in
// a folder of its own for each place that is read from.
const Folder = "backfill"

// siblings notes what backfills before this one have landed: a run that was
// interrupted has left it in its ledger.
func (b *Backfill) siblings(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(b.State, Folder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the ledgers of earlier backfills: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		book, err := ledger.View(ctx, ledger.ViewDirectory(filepath.Join(b.State, Folder, e.Name())))
		if errors.Is(err, ledger.ErrNotExist) {
			continue
		}
		n := 0
		if err == nil {
			n, err = b.note(ctx, book)
		}
		if err != nil {
			return fmt.Errorf("read the ledger of an earlier backfill, %q: %w", e.Name(), err)
		}
		if n > 0 && e.Name() != b.Name {
			b.Logger.Warn("another backfill or replay was interrupted: what it had begun is left to it, so run it again, too",
				slog.String("ledger", filepath.Join(b.State, Folder, e.Name())), slog.Int("commits", n))
		}
	}
	return nil
}

// note keeps what a ledger's manifests say, and counts them.
func (b *Backfill) note(ctx context.Context, book *ledger.Ledger) (int, error) {
	manifests, err := book.Manifests(ctx)
	unitsOf(manifests, b.pending)
	return len(manifests), err
}

// Close gives the locks back.
func (b *Backfill) Close() {
	for _, d := range []*ledger.Directory{b.own, b.lock} {
		if d != nil {
			_ = d.Close() // only gives a lock back
		}
	}
}

// Border says what is left to the live pipeline, and why.
type Border struct {
	Start time.Time `json:"start"` // of the live pipeline: nothing before it is its own
	Limit time.Time `json:"limit"` // nor anything before this, which its age limit has passed
	First time.Time `json:"first"` // so this is the first hour that it may still read
}

// Border gives the border between this backfill and the live pipeline.
func (b *Backfill) Border() Border {
	return Border{b.border.start, b.border.now.Add(-b.border.keep).UTC(), b.border.cutoff()}
}

// Estimate is what a backfill comes to.
type Estimate struct {
	Tally
	Requests int64         `json:"requests"` // reads and pages of listings to come
	Time     time.Duration `json:"time_ns"`
	Strange  int64         `json:"strange,omitempty"` // names below hours' folders that name no hour
}

// What an estimate takes for granted; a run says how fast it really is.
const (
	bytesPerSecond  = 40 << 20
	secondsPerRead  = 0.03
	secondsPerStart = 5 // the last batch closes, and windows do
)

// Estimate lists everything once. tell hears of it as it goes; may be nil.
func (b *Backfill) Estimate(ctx context.Context, tell func(Tally)) (Estimate, error) {
	var e Estimate
	err := b.walk(ctx, func(_ context.Context, f found) error {
		e.add(f)
		if tell != nil {
			tell(e.Tally)
		}
		return nil
	})
	s := b.period.Stats()
	e.Strange = s.Strange
	e.Requests = e.Blobs[Todo] + s.Pages
	if e.Blobs[Todo] > 0 {
		seconds := max(float64(e.Bytes)/bytesPerSecond, float64(e.Blobs[Todo])*secondsPerRead/float64(b.Shards)) + secondsPerStart
		e.Time = time.Duration(seconds * float64(time.Second)).Round(time.Second)
	}
	return e, err
}

// Progress is how far a run has come.
type Progress struct {
	Blobs int64 // landed
	Bytes int64 // decoded
	Rows  int64 // landed
}

// Result is what a run did.
type Result struct {
	Tally
	Rows        int64         `json:"rows"`
	Read        int64         `json:"read_bytes"`
	Quarantined int64         `json:"quarantined"`
	Failed      []Failed      `json:"failed,omitempty"` // could not be read
	Vanished    int64         `json:"vanished,omitempty"`
	Took        time.Duration `json:"took_ns"`
}

// Failed is a blob that could not be read.
type Failed struct {
	Blob string `json:"blob"`
	Why  string `json:"why"`
}

// Run lands what is to be done. After a kill or an error, another run goes on where
// it stopped. tell hears of the progress several times a second; may be nil.
//
// Errors: the target, the store's listing or the ledger cannot go on; ctx ended.
func (b *Backfill) Run(ctx context.Context, tell func(Progress)) (Result, error) {
	began := b.Now()
	if err := b.settle(ctx); err != nil {
		return Result{}, err
	}
	s := &source{b: b}
	r := &reader{Reader: b.Reader, failed: map[pipeline.BlobID]failure{}}
	status, err := b.engine(ctx, r, []pipeline.Source{s}, func(e engine.Status) {
		if tell != nil {
			tell(Progress{Blobs: s.landed.Load(), Bytes: e.Bytes, Rows: e.Landed})
		}
	})
	result := Result{
		Tally: s.tally, Rows: status.Landed, Read: status.Bytes, Quarantined: status.Quarantined, Vanished: r.gone,
		Took: b.Now().Sub(began).Round(time.Millisecond),
	}
	failures := r.failures()
	for _, name := range slices.Sorted(maps.Keys(failures)) {
		result.Failed = append(result.Failed, Failed{name, failures[name].Error()})
	}
	if err != nil {
		return result, err
	}
	return result, b.forget(ctx)
}

// settle ends a run that was killed when it had come to the end of its input: a
// watermark that has closed every window must not stand over new ones. Any other
// interrupted run is simply gone on with.
func (b *Backfill) settle(ctx context.Context) error {
	book, err := b.book(ctx)
	if err != nil {
		return err
	}
	ended := false
	for i := range book.Info().Shards {
		state, err := book.Recover(ctx, i)
		if err != nil {
			return err
		}
		for _, m := range state.Manifests {
			ended = ended || m.Watermark == pipeline.EndOfInput
		}
		ended = ended || state.Base.Watermark == pipeline.EndOfInput
	}
	if !ended {
		return nil
	}
	b.Logger.Info("finishing an interrupted backfill")
	if _, err := b.engine(ctx, b.Reader, nil, func(engine.Status) {}); err != nil {
		return fmt.Errorf("finish the interrupted backfill: %w", err)
	}
	return b.forget(ctx)
}

// book takes the backfill's ledger over. Its start is zero: the past has no limit.
func (b *Backfill) book(ctx context.Context) (*ledger.Ledger, error) {
	return ledger.Open(ctx, b.own, ledger.Info{Shards: b.Shards, Created: b.Now().UTC()}, b.Register)
}

// engine runs a pipeline to the end of its input.
func (b *Backfill) engine(ctx context.Context, r engine.Reader, sources []pipeline.Source, tell func(engine.Status)) (engine.Status, error) {
	book, err := b.book(ctx)
	if err != nil {
		return engine.Status{}, err
	}
	cfg := b.Config
	cfg.Shard.KeepOffsets, cfg.Shard.MaxHourAhead, cfg.Shard.Once = forever, 0, true
	cfg.Shard.MaxFetches = 1
	cfg.Shard.OutOfOrderness = max(cfg.Shard.OutOfOrderness, behind)
	cfg.Shard.IdleAfter = idleAfter
	cfg.DrainTimeout = forever
	transforms, err := b.Transforms()
	if err != nil {
		return engine.Status{}, err
	}
	e, err := engine.New(cfg, engine.Parts{
		Ledger: book, Sources: sources, Reader: r, Sinks: b.Sinks, Checkpoints: b.Checkpoints, Transforms: transforms, Operators: b.Operators,
		Allocator: b.Allocator, Meter: b.Meter, Tracer: b.Tracer, Logger: b.Logger, Now: b.Now,
	})
	if err != nil {
		return engine.Status{}, err
	}
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				err = ctx.Err() // a hard stop is no error to the engine
			}
			return e.Status(), err
		case <-ticker.C:
			tell(e.Status())
		}
	}
}

// tellEvery is the time between two looks at the progress.
const tellEvery = 200 * time.Millisecond

// forget replaces the state of a run that has ended by an empty one: the table has
// all its ranges, and every window is closed.
func (b *Backfill) forget(ctx context.Context) error {
	book, err := b.book(ctx)
	if err != nil {
		return err
	}
	for i := range book.Info().Shards {
		state, err := book.Recover(ctx, i)
		if err != nil {
			return err
		}
		if len(state.Manifests) > 0 || state.Base.Watermark != pipeline.EndOfInput {
			return fmt.Errorf("BUG: a backfill ended at batch %d of shard %d with %d more behind it", state.Base.Seq, i, len(state.Manifests))
		}
		if err := book.WriteBase(ctx, ledger.Base{Shard: i, Seq: state.Base.Seq}); err != nil {
			return err
		}
	}
	return nil
}
