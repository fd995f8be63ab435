package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/schemas"
)

// excerptsEvery is how often the excerpts are measured.
const excerptsEvery = 3 * time.Minute

// ExcerptsDeps are what the caller brings; all are needed.
type ExcerptsDeps struct {
	Meter  metric.Meter
	Logger *slog.Logger
}

// Excerpts keeps the excerpts in the table quarantine below a bound on each server:
// past it, those of the oldest days are cleared. Entries, with their addresses,
// reasons and details, stay, and so does what a replay needs.
//
// Nothing waits for it: what a shard lands is landed whether excerpts can be cleared
// or not, and a server that refuses is asked again.
type Excerpts struct {
	sink   *Sink
	most   int64 // bytes on disk, a server
	log    *slog.Logger
	size   atomic.Int64 // of all servers, as measured last
	clears metric.Int64Counter
}

// NewExcerpts bounds the excerpts of a sink's quarantine to so many bytes on the disk
// of each server. It connects to nothing.
func NewExcerpts(s *Sink, most int64, deps ExcerptsDeps) (*Excerpts, error) {
	e := &Excerpts{sink: s, most: most, log: deps.Logger}
	var errs [2]error
	e.clears, errs[0] = deps.Meter.Int64Counter("millrace.quarantine.clears", metric.WithUnit("{clear}"),
		metric.WithDescription("Days of quarantine whose excerpts were cleared, by result."))
	_, errs[1] = deps.Meter.Int64ObservableGauge("millrace.quarantine.excerpts", metric.WithUnit("By"),
		metric.WithDescription("Excerpts in quarantine, on the disks of all servers, as measured last."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(e.size.Load())
			return nil
		}))
	return e, errors.Join(errs[:]...)
}

// Watch starts a goroutine that keeps the bound until stop is called, which waits for
// it.
func (e *Excerpts) Watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(excerptsEvery)
		defer tick.Stop()
		for {
			if err := e.Trim(ctx); err != nil && ctx.Err() == nil {
				e.log.WarnContext(ctx, "quarantine stays over its bound", slog.Any("cause", err))
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// Trim measures the excerpts on every server and clears the oldest days where they
// are over the bound. It returns when the servers have done so, or query_timeout is
// over: then they go on by themselves.
//
// Errors: of any server, each with what to do; the others were trimmed all the same.
func (e *Excerpts) Trim(ctx context.Context) error {
	left := make([]int64, len(e.sink.nodes))
	err := e.sink.each(func(i int, n *node) (err error) {
		if left[i], err = e.trim(ctx, n); err != nil && ctx.Err() == nil {
			e.clears.Add(ctx, 1, metric.WithAttributes(attribute.String("result", "failed")))
			err = fmt.Errorf("bound the excerpts of quarantine: %w", n.adviseExcerpts(err))
		}
		return err
	})
	total := int64(0)
	for _, bytes := range left {
		total += bytes
	}
	if !slices.Contains(left, unknownBytes) {
		e.size.Store(total)
	}
	return err
}

const unknownBytes = -1

// trim gives the bytes that are left on a server.
func (e *Excerpts) trim(ctx context.Context, n *node) (int64, error) {
	days, err := n.excerpts(ctx)
	if err != nil {
		return unknownBytes, err
	}
	total := int64(0)
	for _, d := range days {
		total += d.Bytes
	}
	for _, d := range days {
		if total <= e.most {
			break
		}
		if err := n.clearExcerpts(ctx, d.Day); err != nil {
			return total, fmt.Errorf("%d bytes, want at most %d: clear day %s: %w", total, e.most, d.Day, err)
		}
		total -= d.Bytes
		e.clears.Add(ctx, 1, metric.WithAttributes(attribute.String("result", "cleared")))
		e.log.InfoContext(ctx, "excerpts of quarantine cleared", slog.String("day", d.Day), slog.Int64("bytes", d.Bytes))
	}
	return total, nil
}

// dayOfExcerpts is a partition of quarantine that holds excerpts.
type dayOfExcerpts struct {
	Day   string // YYYYMMDD
	Bytes int64
}

// excerpts gives the days that hold excerpts, the oldest first. Of a compact part the
// server does not know what each column takes: it counts whole, with at most 10 MiB.
// A part whose excerpts were cleared does not have the column, until it is merged with
// one that has.
func (s *node) excerpts(ctx context.Context) ([]dayOfExcerpts, error) {
	return rows[dayOfExcerpts](ctx, s.client, fmt.Sprintf(`SELECT partition_id AS day, sum(if(part_type = 'Wide', column_bytes_on_disk, data_compressed_bytes)) AS bytes
FROM system.parts_columns WHERE active AND database = %s AND table = %s AND column = %s GROUP BY day ORDER BY day`,
		schemas.QuoteString(s.config.Database), schemas.QuoteString(s.local(schemas.Quarantine.Name).Name), schemas.QuoteString(excerptColumn)))
}

const excerptColumn = "excerpt"

// clearExcerpts lets go of a day's excerpts. The statement waits for the server:
// otherwise the next look would count them again.
func (s *node) clearExcerpts(ctx context.Context, day string) error {
	_, err := s.exec(ctx, s.config.Database, fmt.Sprintf("ALTER TABLE %s CLEAR COLUMN %s IN PARTITION ID %s",
		s.name(schemas.Quarantine.Name), excerptColumn, schemas.QuoteString(day)), "mutations_sync=1")
	return err
}

// adviseExcerpts says which rights the bound needs when one is missing.
func (s *node) adviseExcerpts(err error) error {
	if codeOf(err) != codeAccessDenied {
		return classifyRead(err)
	}
	user := schemas.QuoteName(s.config.User)
	return fmt.Errorf("%w: GRANT SELECT ON system.parts_columns TO %s; GRANT ALTER CLEAR COLUMN ON %s TO %[2]s",
		err, user, s.name(schemas.Quarantine.Name))
}
