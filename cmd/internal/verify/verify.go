package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/source/listing"
	"github.com/millrace/millrace/schemas"
)

// Deps are what a run works on; all are borrowed. The quick level needs the first
// three.
type Deps struct {
	Conn    driver.Conn // of the target
	Ledgers []Ledger
	Windows []window.Config

	Lister     listing.Lister
	Containers []listing.Container
	Hourless   bool // names without an hour are blobs, too
	Reader     engine.Reader
	Blobs      reread.Blobs
	// Transforms gives what rows pass, as they would today. Nil: nothing.
	Transforms func() ([]engine.Transforms, error)
	// KeepOffsets is how far back the live pipeline reads.
	KeepOffsets time.Duration
	Allocator   memory.Allocator
	Logger      *slog.Logger
	Now         func() time.Time
}

// Options say what is compared.
type Options struct {
	// From <= hour < To, whole hours UTC.
	From, To time.Time
	Level    Level
	// Tell hears of the progress now and then, from one goroutine; may be nil.
	Tell func(Progress)
}

// Default gives the period that is compared when none is named: the last day of
// complete hours, but nothing before start.
func Default(start, now time.Time) (from, to time.Time) {
	to = now.UTC().Truncate(time.Hour).Add(-time.Hour)
	from = to.Add(-24 * time.Hour)
	if s := start.UTC().Truncate(time.Hour); s.After(from) && s.Before(to) {
		from = s
	}
	return from, to
}

// Run compares and tells what it found. Nothing is written anywhere.
//
// Errors: the target cannot be asked, or is a database without tables; a ledger or a
// container that cannot be read; ctx ended. A blob that cannot be read is none: it is
// counted.
func Run(ctx context.Context, deps Deps, o Options) (*Result, error) {
	v := newVerifier(deps, o)
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return v.result, nil
}

// verifier is one run.
type verifier struct {
	Deps
	Options
	result  *Result
	books   *books
	live    ledger.Info // of the live pipeline; zero without one
	gone    expiries
	tables  map[string]bool // that exist
	batches map[pipeline.BatchID]bool
	drilled int

	// changed are rows that should be there, or should not; knowsChanged says that all
	// such rows are among them. touched are the hours of shards with such rows.
	changed      []changed
	knowsChanged bool
	touched      map[pipeline.BatchID]map[time.Time]bool

	filter   pipeline.Transform // of today; nil without filters
	progress Progress
	repairs  *plan // nil when nothing is to be repaired
}

func newVerifier(deps Deps, o Options) *verifier {
	o.From, o.To = o.From.UTC().Truncate(time.Hour), o.To.UTC().Truncate(time.Hour)
	return &verifier{
		Deps: deps, Options: o, batches: map[pipeline.BatchID]bool{}, touched: map[pipeline.BatchID]map[time.Time]bool{}, knowsChanged: o.Level == Full,
		result: &Result{Level: o.Level, From: o.From, To: o.To, Found: map[Kind]int64{}},
	}
}

func (v *verifier) run(ctx context.Context) error {
	began := v.Now()
	if !v.From.Before(v.To) {
		return fmt.Errorf("the period from %s to %s has no hour", v.From.Format(time.RFC3339), v.To.Format(time.RFC3339))
	}
	if err := v.readFilter(); err != nil {
		return err
	}
	for _, f := range []func(context.Context) error{v.readTables, v.readBooks, v.readExpiries, v.readTotal, v.hours, v.windows} {
		if err := f(ctx); err != nil {
			return err
		}
	}
	v.result.Batches = int64(len(v.batches))
	v.result.Exact = len(v.result.Found) == 0
	v.result.Took = v.Now().Sub(began).Round(time.Millisecond)
	return nil
}

// each asks the target.
func (v *verifier) each(ctx context.Context, table, sql string, f func(ask.Row) error) error {
	return ask.Each(ctx, v.Conn, "table "+table, sql, f)
}

func (v *verifier) readTables(ctx context.Context) error {
	v.tables = map[string]bool{}
	err := v.each(ctx, "system.tables", "SELECT name FROM system.tables WHERE database = currentDatabase()", func(row ask.Row) error {
		var name string
		err := row.Scan(&name)
		v.tables[name] = true
		return err
	})
	if err == nil && !v.tables[schemas.Flows.Name] {
		err = errors.New("the target has no table flows: run the pipeline first")
	}
	return err
}

// readTotal asks how much was committed in the period.
func (v *verifier) readTotal(ctx context.Context) error {
	v.progress.Hours = int(v.To.Sub(v.From) / time.Hour)
	if v.Level != Full {
		return nil
	}
	var days []string
	for day := v.From.Truncate(24 * time.Hour); day.Before(v.To); day = day.Add(24 * time.Hour) {
		days = append(days, fmt.Sprintf("/y=0*%d/m=0*%d/d=0*%d/", day.Year(), day.Month(), day.Day()))
	}
	sql := fmt.Sprintf("SELECT toString(blob), sum(length) FROM batches WHERE match(blob, %s) GROUP BY blob", schemas.QuoteString(strings.Join(days, "|")))
	return v.each(ctx, "batches", sql, func(row ask.Row) error {
		var name string
		var n uint64
		if err := row.Scan(&name, &n); err != nil {
			return err
		}
		if id, err := pipeline.ParseBlobID(name); err == nil {
			if hour, ok := id.Hour(); ok && v.inPeriod(hour.UnixMilli()) {
				v.progress.Total += int64(n)
			}
		}
		return nil
	})
}

// hours compares hour by hour; on the full level the listing of blobs leads.
func (v *verifier) hours(ctx context.Context) error {
	if v.Level == Full {
		return v.listed(ctx)
	}
	if err := v.quick(ctx, time.Time{}); err != nil {
		return err
	}
	for hour := v.From; hour.Before(v.To); hour = hour.Add(time.Hour) {
		if err := v.quick(ctx, hour); err != nil {
			return err
		}
	}
	return nil
}

// quick compares the tables of one hour.
func (v *verifier) quick(ctx context.Context, hour time.Time) error {
	s := v.newSlice(hour)
	if err := v.load(ctx, s); err != nil {
		return err
	}
	if err := v.judge(ctx, s); err != nil {
		return err
	}
	v.finish(s)
	return nil
}

// finish enters what was found in a slice.
func (v *verifier) finish(s *slice) {
	for _, p := range slices.SortedFunc(maps.Keys(s.found), comparePlaces) {
		for _, f := range s.found[p] {
			v.result.add(f)
		}
	}
	for shard := range s.touched {
		if v.touched[shard] == nil {
			v.touched[shard] = map[time.Time]bool{}
		}
		v.touched[shard][s.hour] = true
	}
	v.progress.Hour, v.progress.Rows = s.hour, v.result.Rows
	if !s.hour.IsZero() {
		v.progress.Done++
	}
	v.tell()
}

func (v *verifier) tell() {
	if v.Tell != nil {
		v.Tell(v.progress)
	}
}
