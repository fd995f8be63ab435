package verify

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/cmd/internal/evidence"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// groupsAtOnce is how many windows are made again with one statement.
const groupsAtOnce = 200

// windows makes windows again whose rows are right: what there is of them is removed,
// and the operator of the pipeline computes them from the flow rows. Each shard's part
// of a window lands under the last commit that had rows of it.
func (r *repairer) windows(ctx context.Context, v *verifier) (bool, error) {
	var todo []Finding
	for _, f := range v.result.Findings {
		if f.Window != nil && f.Repairable {
			todo = append(todo, f)
		}
	}
	slices.SortStableFunc(todo, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Window.shard(), b.Window.shard()), a.Window.Start.Compare(b.Window.Start))
	})
	for i := 0; i < len(todo); {
		n := 1
		for i+n < len(todo) && n < groupsAtOnce && todo[i+n].Table == todo[i].Table && todo[i+n].Window.shard() == todo[i].Window.shard() && sameDay(todo[i+n].Window.Start, todo[i].Window.Start) {
			n++
		}
		if err := r.rewindow(ctx, todo[i:i+n]); err != nil {
			return true, err
		}
		i += n
	}
	return len(todo) > 0, nil
}

func (w *Window) shard() pipeline.BatchID { return shardOf(pipeline.NewBatchID(w.Ledger, w.Shard, 0)) }

func sameDay(a, b time.Time) bool {
	return a.UTC().Format(time.DateOnly) == b.UTC().Format(time.DateOnly)
}

// rewindow replaces windows of one table, shard and day.
func (r *repairer) rewindow(ctx context.Context, list []Finding) error {
	cfg, err := r.windowConfig(list[0].Table)
	if err != nil {
		return err
	}
	var old, flows []string
	for _, f := range list {
		conds, err := keyConditions(f.Window)
		if err != nil {
			return err
		}
		from := f.Window.Start.UnixMilli()
		old = append(old, "("+strings.Join(append(slices.Clone(conds), timeBetween("window_start", from, from+1)), " AND ")+")")
		flows = append(flows, "("+strings.Join(append(slices.Clone(conds), timeBetween("time", from, from+cfg.Size.Milliseconds())), " AND ")+")")
	}
	shard := fmt.Sprintf("bitShiftRight(batch_id, 36) = %d", uint64(list[0].Window.shard()))
	sql := fmt.Sprintf("ALTER TABLE %s DELETE IN PARTITION %s WHERE overflow = 0 AND %s AND (%s) SETTINGS mutations_sync = 2, max_query_size = 67108864",
		schemas.QuoteName(list[0].Table), schemas.QuoteString(list[0].Window.Start.Format("20060102")), shard, strings.Join(old, " OR "))
	r.step(Step{Table: list[0].Table, Rows: int64(len(list)), Statement: sql})
	if _, err := r.Target.Exec(ctx, sql); err != nil {
		return fmt.Errorf("remove windows of table %s: %w", list[0].Table, err)
	}
	rec, last, err := r.flowRows(ctx, shard+" AND ("+strings.Join(flows, " OR ")+")")
	if err != nil || rec == nil {
		return err
	}
	defer rec.Release()
	pieces, err := r.compute(cfg, rec, last)
	if err != nil {
		return err
	}
	r.step(Step{Table: list[0].Table, Rows: int64(len(list)), Text: fmt.Sprintf("land %d windows again, from %d flow rows, under commit %v", len(list), rec.NumRows(), last)})
	return r.landPieces(ctx, pieces)
}

func (r *repairer) windowConfig(table string) (window.Config, error) {
	for _, w := range r.Windows {
		if w.Table().Name == table {
			w.MaxGroups = 2 * groupsAtOnce // no key folds into an overflow
			return w, nil
		}
	}
	return window.Config{}, fmt.Errorf("BUG: table %q is none of windows", table)
}

// keyConditions are those that rows of the window's key meet.
func keyConditions(w *Window) ([]string, error) {
	var conds []string
	for name, value := range w.Key {
		c, err := evidence.Condition(name, value)
		if err != nil {
			return nil, fmt.Errorf("window key %s: %w", name, err)
		}
		conds = append(conds, c)
	}
	slices.Sort(conds)
	return conds, nil
}

// compute folds the rows into windows, which all close.
func (r *repairer) compute(cfg window.Config, rec arrow.Record, last pipeline.BatchID) ([]pipeline.Piece, error) {
	op, err := window.New([]window.Config{cfg}, r.Allocator)
	if err != nil {
		return nil, err
	}
	defer op.Release()
	return op.Apply(pipeline.OperatorInput{Batch: last, Flows: []arrow.Record{rec}, Watermark: pipeline.EndOfInput})
}

// flowRows reads rows as a record, with enrichment where the table has it, and their
// highest commit. Nil when there are none. The caller releases it.
func (r *repairer) flowRows(ctx context.Context, where string) (arrow.Record, pipeline.BatchID, error) {
	t := r.Flows.Made()
	b := array.NewRecordBuilder(r.Allocator, t.ArrowSchema())
	defer b.Release()
	var last uint64
	dest, appends := make([]any, len(t.Columns)), make([]func() error, len(t.Columns))
	for i, c := range t.Columns {
		dest[i], appends[i] = scanInto(c, b.Field(i))
	}
	rows := 0
	err := ask.Each(ctx, r.Conn, "table flows", fmt.Sprintf("SELECT %s FROM flows WHERE %s", t.ColumnNames(), where), func(row ask.Row) error {
		if err := row.Scan(dest...); err != nil {
			return err
		}
		for _, f := range appends {
			if err := f(); err != nil {
				return err
			}
		}
		rows++
		last = max(last, *dest[schemas.Flows.Index("batch_id")].(*uint64))
		return nil
	})
	if err != nil || rows == 0 {
		return nil, 0, err
	}
	return b.NewRecord(), pipeline.BatchID(last), nil
}

// scanInto gives what a value of the column is scanned into, and what appends it.
func scanInto(c schemas.Column, field array.Builder) (dest any, add func() error) {
	switch b := field.(type) {
	case *array.TimestampBuilder:
		v := new(time.Time)
		return v, func() error { b.Append(arrow.Timestamp(v.UnixMilli())); return nil }
	case *array.FixedSizeBinaryBuilder:
		v := new(netip.Addr)
		return v, func() error { a := v.As16(); b.Append(a[:]); return nil }
	case *array.BinaryDictionaryBuilder:
		v := new(string)
		return v, func() error { return b.AppendString(*v) }
	case *array.Uint8Builder:
		v := new(uint8)
		return v, func() error { b.Append(*v); return nil }
	case *array.Uint16Builder:
		v := new(uint16)
		return v, func() error { b.Append(*v); return nil }
	case *array.Uint32Builder:
		v := new(uint32)
		return v, func() error { b.Append(*v); return nil }
	case *array.Uint64Builder:
		v := new(uint64)
		return v, func() error { b.Append(*v); return nil }
	}
	panic(fmt.Sprintf("BUG: column %q of type %s is not read", c.Name, c.Arrow))
}
