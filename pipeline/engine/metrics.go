package engine

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// metrics are the engine's instruments, fed per batch, chunk or request and never
// per row.
type metrics struct {
	announcements, ignore, reports    metric.Int64Counter
	reads                             metric.Int64Counter
	readTime, decodeTime, landTime    metric.Float64Histogram
	decodedBytes, decodedRows         metric.Int64Counter
	quarantined, filter               metric.Int64Counter
	landedRows, landings, ledgerWrite metric.Int64Counter
	replays, refused                  metric.Int64Counter
	toQuery, toAck                    metric.Float64Histogram
	totals                            totals
}

// newMetrics makes the instruments. Gauges read the engine when they are scraped.
func newMetrics(meter metric.Meter, e *Engine) (*metrics, error) {
	m := &metrics{}
	var errs []error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	seconds := func(name, text string) metric.Float64Histogram {
		h, err := meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text))
		errs = append(errs, err)
		return h
	}
	m.announcements = counter("millrace.notifications", "{notification}", "Notifications that reached a shard.")
	m.ignore = counter("millrace.notifications.ignored", "{notification}", "Notifications not acted on, by reason.")
	m.reports = counter("millrace.blob.reports", "{blob}", "Blobs that were rewritten, are gone or cannot be read.")
	m.reads = counter("millrace.blob.reads", "{read}", "Reads of blobs, by result.")
	m.readTime = seconds("millrace.blob.read.duration", "Duration of one read of a blob.")
	m.decodeTime = seconds("millrace.decode.duration", "Duration of decoding one byte range.")
	m.decodedBytes = counter("millrace.decode.bytes", "By", "Bytes decoded.")
	m.decodedRows = counter("millrace.decode.rows", "{row}", "Rows decoded.")
	m.quarantined = counter("millrace.quarantined", "{entry}", "Entries that went to quarantine, by reason.")
	m.filter = counter("millrace.filtered.rows", "{row}", "Rows that filters left out, by filter.")
	m.landedRows = counter("millrace.landed.rows", "{row}", "Rows landed, by sink and table.")
	m.landings = counter("millrace.landings", "{insert}", "Inserts, by sink, table and result.")
	m.landTime = seconds("millrace.land.duration", "Duration of one insert.")
	m.ledgerWrite = counter("millrace.ledger.writes", "{write}", "Ledger writes, by kind.")
	m.replays = counter("millrace.replays", "{batch}", "Batches replayed at start.")
	m.refused = counter("millrace.quarantine.refused", "{entry}", "Entries that a replay of quarantine refused again.")
	m.toQuery = seconds("millrace.latency.queryable", "Time from the event behind a notification until the rows that it brought can be queried.")
	m.toAck = seconds("millrace.latency.acknowledged", "Time from the event behind a notification until everything that it announces is done and its source was told.")
	gauge := func(name, unit, text string, read func() int64) {
		_, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(read())
				return nil
			}))
		errs = append(errs, err)
	}
	gauge("millrace.inflight", "By", "Memory reserved for text and rows in flight.", func() int64 { return e.budget.memory() })
	gauge("millrace.unacknowledged", "{notification}", "Notifications that are not durable yet.", func() int64 { return int64(e.acks.size()) })
	gauge("millrace.blobs.queued", "{blob}", "Blobs that wait for a read.", func() int64 { return int64(e.Status().Queued) })
	gauge("millrace.watermark.lag", "ms", "Clock minus the least watermark of the shards; 0 before the first.", func() int64 { return e.Status().LagMS })
	gauge("millrace.lag.size", "By", "Bytes that notifications tell of and that are not committed yet.", func() int64 { return e.Status().LagBytes })
	_, err := meter.Float64ObservableGauge("millrace.lag.time", metric.WithUnit("s"), metric.WithDescription("Clock minus the event time of the oldest notification that is not acknowledged; 0 when none waits."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(e.oldest().Seconds())
			return nil
		}))
	return m, errors.Join(append(errs, err)...)
}

func (m *metrics) announced(ctx context.Context, n int) {
	m.announcements.Add(ctx, int64(n))
	m.totals.notifications.Add(int64(n))
}

func (m *metrics) ignored(ctx context.Context, reason string) {
	m.ignore.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

func (m *metrics) reported(ctx context.Context, kind string) {
	m.reports.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", kind)))
}

func (m *metrics) fetched(ctx context.Context, d time.Duration, err error) {
	m.reads.Add(ctx, 1, metric.WithAttributes(attribute.String("result", class(err))))
	m.readTime.Record(ctx, d.Seconds())
	m.totals.reads.Add(1)
}

func (m *metrics) decoded(ctx context.Context, bytes, rows int, d time.Duration) {
	m.decodedBytes.Add(ctx, int64(bytes))
	m.decodedRows.Add(ctx, int64(rows))
	m.decodeTime.Record(ctx, d.Seconds())
	m.totals.bytes.Add(int64(bytes))
	m.totals.rows.Add(int64(rows))
}

func (m *metrics) rejected(ctx context.Context, reason pipeline.Reason) {
	m.quarantined.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", string(reason))))
	m.totals.quarantined.Add(1)
}

func (m *metrics) filtered(ctx context.Context, d pipeline.Dropped) {
	m.filter.Add(ctx, d.Rows, metric.WithAttributes(attribute.String("filter", d.Name)))
	m.totals.filtered.Add(d.Rows)
}

// inserted counts one INSERT, whatever came of it. table is "" for what a sink lands
// of several tables at once.
func (m *metrics) inserted(ctx context.Context, sink, table string, d time.Duration, err error) {
	where := metric.WithAttributes(attribute.String("sink", sink), attribute.String("table", table))
	m.landings.Add(ctx, 1, where, metric.WithAttributes(attribute.String("result", class(err))))
	m.landTime.Record(ctx, d.Seconds(), where)
}

// landed counts the rows of a piece that is durable: its INSERT said so, or a probe
// found it.
//
// The total counts each row once, however many sinks it landed in: only the first
// of a batch's pieces that holds it says first.
func (m *metrics) landed(ctx context.Context, p pipeline.Piece, first bool) {
	for _, part := range p.Parts {
		part.Sink = p.Sink
		m.landed(ctx, part, first)
	}
	if p.Record == nil {
		return
	}
	m.landedRows.Add(ctx, p.Rows, metric.WithAttributes(attribute.String("sink", label(p.Sink)), attribute.String("table", p.Table)))
	if first && p.Table == schemas.Flows.Name {
		m.totals.landed.Add(p.Rows)
	}
}

func (m *metrics) ledgerWrote(ctx context.Context, kind string) {
	m.ledgerWrite.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", kind)))
}

func (m *metrics) refusedAgain(ctx context.Context, n int) {
	if n > 0 {
		m.refused.Add(ctx, int64(n))
	}
}

// queryable: rows of a notification's bytes have landed. A notification whose bytes
// went into several commits counts once for each.
func (m *metrics) queryable(ctx context.Context, d time.Duration) {
	m.toQuery.Record(ctx, max(0, d).Seconds())
}

func (m *metrics) acknowledged(d time.Duration, notifications int) {
	for range notifications {
		m.toAck.Record(context.Background(), max(0, d).Seconds())
	}
}

func (m *metrics) replayed(ctx context.Context) { m.replays.Add(ctx, 1) }

// class names an error's class for an attribute.
func class(err error) string {
	switch {
	case err == nil:
		return "good"
	case errors.Is(err, pipeline.ErrTransient):
		return "transient"
	case errors.Is(err, pipeline.ErrInDoubt):
		return "in_doubt"
	case errors.Is(err, pipeline.ErrFenced):
		return "fenced"
	}
	return "failed"
}
