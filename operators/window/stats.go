package window

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Stats are what windows hold and have done since New. They are no part of the
// state: a restored operator goes on counting.
type Stats struct {
	OpenWindows  int64 // windows with rows that have not closed
	Groups       int64 // groups in them, overflow groups not counted
	Bytes        int64 // memory of these groups
	Closed       int64 // windows that closed with rows
	LateRows     int64 // rows that became part of correction rows; a row counts once for each table
	OverflowRows int64 // rows that went into an overflow group; counted likewise
}

// Stats adds the tables up. Like every method, it is for the goroutine that calls
// Apply.
func (o *Operator) Stats() Stats {
	var sum Stats
	for _, w := range o.windows {
		s := w.now()
		sum.OpenWindows += s.OpenWindows
		sum.Groups += s.Groups
		sum.Bytes += s.Bytes
		sum.Closed += s.Closed
		sum.LateRows += s.LateRows
		sum.OverflowRows += s.OverflowRows
	}
	return sum
}

func (w *windows) now() Stats {
	s := w.stats
	s.OpenWindows, s.Groups, s.Bytes = int64(len(w.open)), int64(w.groups), int64(w.bytes)
	return s
}

// Instrument makes the operator add its Stats to instruments of the meter after
// each batch, by table. Operators of several shards that share a meter add up.
func (o *Operator) Instrument(meter metric.Meter) error {
	i := &instruments{}
	var faults []error
	held := func(name, unit, text string) metric.Int64UpDownCounter {
		c, err := meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		faults = append(faults, err)
		return c
	}
	count := func(name, unit, text string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		faults = append(faults, err)
		return c
	}
	i.open = held("millrace.windows.open", "{window}", "Windows with rows that have not closed, by table.")
	i.groups = held("millrace.windows.groups", "{group}", "Groups in open windows, by table.")
	i.bytes = held("millrace.windows.state", "By", "Memory of the groups in open windows, by table.")
	i.closed = count("millrace.windows.closed", "{window}", "Windows that closed with rows, by table.")
	i.late = count("millrace.windows.late_rows", "{row}", "Rows that came after their window closed and became corrections, by table.")
	i.overflow = count("millrace.windows.overflow_rows", "{row}", "Rows that are in no group of their own, because the table had reached its limit, by table.")
	if err := errors.Join(faults...); err != nil {
		return err
	}
	for _, w := range o.windows {
		w.instruments = i
		w.measure()
	}
	return nil
}

type instruments struct {
	open, groups, bytes    metric.Int64UpDownCounter
	closed, late, overflow metric.Int64Counter
}

// measure tells the instruments what has changed.
func (w *windows) measure() { w.tell(w.now()) }

// forget takes what is held out of the instruments: another operator may go on
// with it.
func (w *windows) forget() {
	s := w.now()
	s.OpenWindows, s.Groups, s.Bytes = 0, 0, 0
	w.tell(s)
}

func (w *windows) tell(now Stats) {
	if w.instruments == nil || now == w.measured {
		return
	}
	before := w.measured
	w.measured = now
	ctx, table := context.Background(), metric.WithAttributes(attribute.String("table", w.table.Name))
	w.instruments.open.Add(ctx, now.OpenWindows-before.OpenWindows, table)
	w.instruments.groups.Add(ctx, now.Groups-before.Groups, table)
	w.instruments.bytes.Add(ctx, now.Bytes-before.Bytes, table)
	w.instruments.closed.Add(ctx, now.Closed-before.Closed, table)
	w.instruments.late.Add(ctx, now.LateRows-before.LateRows, table)
	w.instruments.overflow.Add(ctx, now.OverflowRows-before.OverflowRows, table)
}
