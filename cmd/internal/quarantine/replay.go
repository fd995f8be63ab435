package quarantine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
)

// Limits of a round.
const (
	pageEntries = 1000     // read from the table at a time
	roundBytes  = 64 << 20 // of text that is judged before its rows land
	readers     = 8        // extents read at a time
	unitSpans   = 200      // runs of ordinals in one replay, which bounds its name
	keepForever = 100 * 365 * 24 * time.Hour
)

// Deps are what a replay works on. A dry run needs the first three.
type Deps struct {
	Table     Table
	Blobs     reread.Blobs
	Allocator memory.Allocator

	// State is the pipeline's folder; the replay's ledger is below it.
	State string
	// Register gives the id that the target knows a ledger by.
	Register    func(ctx context.Context, name string, shards int) (uint16, error)
	Sinks       []engine.NamedSink
	Checkpoints engine.Checkpoints
	// Transforms gives what rows pass first, as they would today. Nil: nothing.
	Transforms func() ([]engine.Transforms, error)
	Operators  func() ([]pipeline.Operator, error)
	Config     engine.Config // template; what a replay needs is set
	Meter      metric.Meter
	Tracer     trace.Tracer
	Logger     *slog.Logger
}

// Judge says what a replay of the entries would do now, and changes nothing.
func Judge(ctx context.Context, deps Deps, entries []Entry) ([]Verdict, error) {
	var out []Verdict
	r := replayer{Deps: deps, dry: true, report: func(v Verdict) error { out = append(out, v); return nil }}
	err := r.page(ctx, entries)
	return out, err
}

// Folder of the replays' ledger, below the state folder.
const Folder = "quarantine"

// Replay lands what is good now of the entries that the filter picks, and tells
// report what became of each. After a kill, or an error, the next call goes on.
//
// Errors: another replay runs; a target, or a blob behind an interrupted replay,
// that cannot be read; ctx ended; those of report.
func Replay(ctx context.Context, deps Deps, f Filter, dry bool, report func(Verdict) error) error {
	r := replayer{Deps: deps, dry: dry, report: report}
	if !dry {
		directory, err := ledger.OpenDirectory(filepath.Join(deps.State, Folder))
		if err != nil {
			return fmt.Errorf("replay quarantine, one at a time: %w", err)
		}
		defer directory.Close()
		r.directory = directory
		if err := r.finish(ctx); err != nil {
			return err
		}
	}
	var after *Entry
	for {
		entries, err := deps.Table.Entries(ctx, f, after, pageEntries)
		if err != nil || len(entries) == 0 {
			return err
		}
		if err := r.page(ctx, entries); err != nil {
			return err
		}
		after = &entries[len(entries)-1]
	}
}

type replayer struct {
	Deps
	dry       bool
	report    func(Verdict) error
	directory *ledger.Directory
}

// page judges entries, and lands a round whenever enough text was judged.
func (r *replayer) page(ctx context.Context, entries []Entry) error {
	todo, err := extents(entries)
	if err != nil {
		return err
	}
	highest, err := r.generations(ctx, entries)
	if err != nil {
		return err
	}
	var now round
	for len(todo) > 0 {
		some := todo[:min(readers, len(todo))]
		todo = todo[len(some):]
		found, err := r.judge(ctx, some, highest)
		if err != nil {
			return err
		}
		for _, j := range found {
			if now.overlaps(j) || now.bytes >= roundBytes {
				if err := r.land(ctx, now.judged); err != nil {
					return err
				}
				now = round{}
			}
			now.add(j)
		}
	}
	return r.land(ctx, now.judged)
}

// round is what lands in one run of the engine.
type round struct {
	judged []*judged
	bytes  int64
	end    map[Tuple]int64 // by blob and generation: behind the last byte
}

// overlaps says whether a tuple of j may be in the round already: then the table
// has to be asked again after the round.
func (r *round) overlaps(j *judged) bool {
	return len(j.good) > 0 && j.Offset < r.end[Tuple{Blob: j.Blob.String(), Generation: j.Generation}]
}

func (r *round) add(j *judged) {
	if r.end == nil {
		r.end = map[Tuple]int64{}
	}
	blob := Tuple{Blob: j.Blob.String(), Generation: j.Generation}
	r.end[blob] = max(r.end[blob], j.Offset+j.Length)
	r.judged, r.bytes = append(r.judged, j), r.bytes+j.Length
}

func (r *replayer) generations(ctx context.Context, entries []Entry) (map[string]uint32, error) {
	seen := map[string]bool{}
	var blobs []string
	for _, e := range entries {
		if !seen[e.Blob] {
			seen[e.Blob] = true
			blobs = append(blobs, e.Blob)
		}
	}
	return r.Table.Generations(ctx, blobs)
}

func (r *replayer) judge(ctx context.Context, xs []extent, highest map[string]uint32) ([]*judged, error) {
	out := make([]*judged, len(xs))
	group, ctx := errgroup.WithContext(ctx)
	for i, x := range xs {
		group.Go(func() error {
			j, err := judge(ctx, r.Blobs, r.Allocator, x, highest[x.Blob.String()])
			out[i] = &j
			return err
		})
	}
	return out, group.Wait()
}

// land brings the round's missing rows into the target and reports.
func (r *replayer) land(ctx context.Context, js []*judged) error {
	if err := r.ask(ctx, js); err != nil {
		return err
	}
	outcome := WouldLand
	if !r.dry {
		outcome = Landed
		if err := r.run(ctx, js); err != nil {
			return err
		}
	}
	for _, j := range js {
		for _, v := range j.verdicts(outcome) {
			if err := r.report(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask fills in what the target does not have.
func (r *replayer) ask(ctx context.Context, js []*judged) error {
	var regions []Region
	for _, j := range js {
		if len(j.good) > 0 {
			regions = append(regions, j.region())
		}
	}
	landed, err := r.Table.Landed(ctx, regions)
	if err != nil {
		return err
	}
	for _, j := range js {
		j.missing = make([]bool, len(j.good))
		for i, t := range j.good {
			j.missing[i] = !landed[Tuple{j.Blob.String(), j.Generation, t.offset, t.ordinal}]
		}
	}
	return nil
}

// run lands the missing rows of a round.
func (r *replayer) run(ctx context.Context, js []*judged) error {
	source := &reader{blobs: r.Blobs, want: map[pipeline.BlobID]record{}, failed: map[pipeline.BlobID]error{}}
	name, rows := rand.Text(), map[pipeline.BlobID]int64{}
	var ids announcer
	for _, j := range js {
		for _, p := range j.replays(name) {
			id := p.ID()
			ids = append(ids, id)
			source.want[id], rows[id] = j.records[p.Offset], int64(len(p.Ordinals))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	book, err := r.open(ctx)
	if err != nil {
		return fmt.Errorf("replay quarantine: %w", err)
	}
	status, err := r.engine(ctx, book, source, ids)
	if err != nil {
		return fmt.Errorf("replay quarantine: %w", err)
	}
	want := int64(0)
	for id, n := range rows {
		if source.failed[id] == nil {
			want += n
		}
	}
	if status.Rows != want {
		return fmt.Errorf("replay quarantine: %d rows landed, %d were expected: run it again and compare; the tables tell what is there", status.Rows, want)
	}
	return note(js, source.failed)
}

// note tells the judged which of their records were not read.
func note(js []*judged, failed map[pipeline.BlobID]error) error {
	for id, cause := range failed {
		p, err := pipeline.ParseReplay(id)
		if err != nil {
			return err
		}
		for _, j := range js {
			if _, ok := j.records[p.Offset]; ok && j.Blob == p.Blob && j.Generation == p.Generation {
				if j.failed == nil {
					j.failed = map[int64]error{}
				}
				j.failed[p.Offset] = cause
			}
		}
	}
	return nil
}

// replays names what is missing, record by record. Records with ordinals in very
// many runs are read more than once.
func (j *judged) replays(run string) []pipeline.Replay {
	var out []pipeline.Replay
	spans := 0
	for i, t := range j.good {
		if !j.missing[i] {
			continue
		}
		n := len(out)
		fresh := n == 0 || out[n-1].Offset != t.offset
		if fresh || out[n-1].Ordinals[len(out[n-1].Ordinals)-1]+1 != t.ordinal {
			spans++
		}
		if fresh || spans > unitSpans {
			out = append(out, pipeline.Replay{
				Run: run, Blob: j.Blob, Generation: j.Generation, Offset: t.offset, Length: j.records[t.offset].length, Clock: j.Clock,
			})
			n, spans = n+1, 1
		}
		out[n-1].Ordinals = append(out[n-1].Ordinals, t.ordinal)
	}
	return out
}

// engine runs a small pipeline over the named replays, to the end of input; over
// none, it only finishes what an earlier one began.
func (r *replayer) engine(ctx context.Context, book *ledger.Ledger, source *reader, ids announcer) (engine.Status, error) {
	cfg := r.Config
	cfg.Replay, cfg.Shard.KeepOffsets, cfg.Shard.MaxHourAhead = true, keepForever, 0
	parts := engine.Parts{
		Ledger: book, Sources: []pipeline.Source{ids}, Reader: source, Sinks: r.Sinks, Operators: r.Operators,
		Allocator: r.Allocator, Meter: r.Meter, Tracer: r.Tracer, Logger: r.Logger, Now: time.Now,
	}
	if r.Transforms != nil {
		var err error
		if parts.Transforms, err = r.Transforms(); err != nil {
			return engine.Status{}, err
		}
	}
	if r.Checkpoints != nil {
		parts.Checkpoints = checkpoints{r.Checkpoints}
	}
	e, err := engine.New(cfg, parts)
	if err != nil {
		return engine.Status{}, err
	}
	if err = e.Run(ctx); err == nil {
		err = ctx.Err() // a hard stop is no error to the engine
	}
	if err != nil {
		return engine.Status{}, err
	}
	return e.Status(), r.forget(ctx, book)
}

// open takes the ledger over. Each run of the engine owns it under an epoch of its
// own: the one before may have raised its fence.
func (r *replayer) open(ctx context.Context) (*ledger.Ledger, error) {
	// Start is zero: what is in quarantine may be of any hour.
	return ledger.Open(ctx, r.directory, ledger.Info{Shards: 1, Created: time.Now().UTC()}, r.Register)
}

// finish ends a replay that was killed.
func (r *replayer) finish(ctx context.Context) error {
	if _, err := r.directory.Get(ctx, "info"); errors.Is(err, ledger.ErrNotExist) {
		return nil // there was none
	}
	book, err := r.open(ctx)
	if err != nil {
		return fmt.Errorf("replay quarantine: %w", err)
	}
	state, err := book.Recover(ctx, 0)
	if err != nil {
		return fmt.Errorf("replay quarantine: %w", err)
	}
	if len(state.Manifests) == 0 && len(state.Base.Operators) == 0 {
		return nil // it was forgotten
	}
	r.Logger.Info("finishing an interrupted replay")
	if _, err := r.engine(ctx, book, &reader{blobs: r.Blobs}, nil); err != nil {
		return fmt.Errorf("finish the interrupted replay: %w (when the blobs behind it are gone for good, remove the folder %q: rows that it landed stay, the others can be replayed)",
			err, filepath.Join(r.State, Folder))
	}
	return nil
}

// forget replaces the state of a run that has ended by an empty one: positions in
// records, and the state of windows of which none is open, would only grow.
func (r *replayer) forget(ctx context.Context, book *ledger.Ledger) error {
	state, err := book.Recover(ctx, 0)
	if err != nil {
		return err
	}
	if len(state.Manifests) > 0 || state.Base.Watermark != pipeline.EndOfInput {
		return fmt.Errorf("BUG: a replay ended at batch %d with %d more behind it", state.Base.Seq, len(state.Manifests))
	}
	return book.WriteBase(ctx, ledger.Base{Seq: state.Base.Seq})
}
