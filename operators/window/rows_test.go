package window

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/pipeline"
)

// row is one row of a window table, read back from a record batch.
type row struct {
	table, key           string // key: window_start and the group columns as text
	rows                 uint64
	sums                 []uint64
	registers            []map[uint16]uint8
	correction, overflow uint8
	batch                uint64
}

// readPiece checks that the piece is what it says and gives its rows.
func readPiece(t testing.TB, cfg Config, p pipeline.Piece) []row {
	t.Helper()
	rec := p.Record
	if want := cfg.Table().ArrowSchema(); !rec.Schema().Equal(want) {
		t.Fatalf("schema of %s is %v, want %v", p.Table, rec.Schema(), want)
	}
	if rec.NumRows() != p.Rows || p.Rows == 0 {
		t.Fatalf("piece of %s says %d rows, has %d", p.Table, p.Rows, rec.NumRows())
	}
	starts := rec.Column(0).(*array.Timestamp)
	ends := rec.Column(1).(*array.Timestamp)
	var rows []row
	for i := range int(rec.NumRows()) {
		start := starts.Value(i).ToTime(arrow.Millisecond)
		if got := start.Format("20060102"); got != p.Partition {
			t.Fatalf("row of %s in the piece of %s", got, p.Partition)
		}
		if ms := int64(starts.Value(i)); ms < p.MinTime || ms > p.MaxTime || ms+cfg.Size.Milliseconds() != int64(ends.Value(i)) {
			t.Fatalf("window of %d to %d in a piece of %d to %d", ms, ends.Value(i), p.MinTime, p.MaxTime)
		}
		rows = append(rows, readRow(cfg, p, i, start))
	}
	return rows
}

func readRow(cfg Config, p pipeline.Piece, i int, start time.Time) row {
	r := row{table: p.Table}
	at := firstGroup
	key := []string{start.Format("02T15:04:05")}
	for range cfg.GroupBy {
		key = append(key, textOf(p.Record.Column(at), i))
		at++
	}
	r.key = strings.Join(key, " ")
	number := func() uint64 { at++; return p.Record.Column(at - 1).(*array.Uint64).Value(i) }
	r.rows = number()
	for range cfg.Sums {
		r.sums = append(r.sums, number())
	}
	for range cfg.Distinct {
		m := p.Record.Column(at).(*array.Map)
		from, to := m.ValueOffsets(i)
		registers := map[uint16]uint8{}
		for j := from; j < to; j++ {
			registers[m.Keys().(*array.Uint16).Value(int(j))] = m.Items().(*array.Uint8).Value(int(j))
		}
		r.registers = append(r.registers, registers)
		at++
	}
	r.correction = p.Record.Column(at).(*array.Uint8).Value(i)
	r.overflow = p.Record.Column(at + 1).(*array.Uint8).Value(i)
	r.batch = p.Record.Column(at + 2).(*array.Uint64).Value(i)
	return r
}

func textOf(column arrow.Array, i int) string {
	switch c := column.(type) {
	case *array.Dictionary:
		return fmt.Sprintf("%q", c.Dictionary().(*array.String).Value(c.GetValueIndex(i)))
	case *array.FixedSizeBinary:
		a, _ := netip.AddrFromSlice(c.Value(i))
		return a.Unmap().String()
	case *array.Uint8:
		return fmt.Sprint(c.Value(i))
	case *array.Uint16:
		return fmt.Sprint(c.Value(i))
	default:
		return "?"
	}
}

func (r row) String() string {
	var distinct []string
	for _, registers := range r.registers {
		distinct = append(distinct, fmt.Sprintf("~%.0f", estimate(registers)))
	}
	return fmt.Sprintf("%s rows=%d sums=%v distinct=%v correction=%d overflow=%d", r.key, r.rows, r.sums, distinct, r.correction, r.overflow)
}

func estimate(registers map[uint16]uint8) float64 {
	var h sketch.HyperLogLog
	for index, value := range registers {
		if err := h.Set(sketch.Register{Index: index, Value: value}); err != nil {
			panic(err)
		}
	}
	return h.Estimate()
}

// merged adds rows of equal keys up, as the view does. Its values are printed, so
// that cmp.Diff shows them by key.
func merged(rows []row) map[string]string {
	return printed(addUp(rows, func(r row) string { return fmt.Sprintf("%s %s overflow=%d", r.table, r.key, r.overflow) }))
}

// totals adds rows of equal windows up.
func totals(rows []row) map[string]string {
	return printed(addUp(rows, func(r row) string { return r.table + " " + r.key[:len("02T15:04:05")] }))
}

func addUp(rows []row, idOf func(row) string) map[string]row {
	sums := map[string]row{}
	for _, r := range rows {
		id := idOf(r)
		have, ok := sums[id]
		if !ok {
			have.sums = make([]uint64, len(r.sums))
			for range r.registers {
				have.registers = append(have.registers, map[uint16]uint8{})
			}
		}
		have.rows += r.rows
		for i, v := range r.sums {
			have.sums[i] += v
		}
		for i, registers := range r.registers {
			for index, value := range registers {
				have.registers[i][index] = max(have.registers[i][index], value)
			}
		}
		sums[id] = have
	}
	return sums
}

func printed(sums map[string]row) map[string]string {
	out := map[string]string{}
	for id, r := range sums {
		var registers []string
		for _, m := range r.registers {
			var list []string
			for index, value := range m {
				list = append(list, fmt.Sprintf("%04d:%d", index, value))
			}
			sort.Strings(list)
			registers = append(registers, strings.Join(list, " "))
		}
		out[id] = fmt.Sprintf("rows %d sums %v registers %v", r.rows, r.sums, registers)
	}
	return out
}

// recount is the oracle: it counts flows with maps and plain text keys.
func recount(cfg []Config, flows []flow) []row {
	var rows []row
	for _, c := range cfg {
		for _, f := range flows {
			size := c.Size.Milliseconds()
			key := []string{time.UnixMilli(f.time - f.time%size).UTC().Format("02T15:04:05")}
			for _, name := range c.GroupBy {
				key = append(key, f.value(name))
			}
			r := row{table: "windows_" + c.Name, key: strings.Join(key, " "), rows: 1}
			for _, name := range c.Sums {
				r.sums = append(r.sums, f.counter(name))
			}
			for _, name := range c.Distinct {
				var h sketch.HyperLogLog
				h.Add(f.hash(name))
				register := h.Append(nil)[0]
				r.registers = append(r.registers, map[uint16]uint8{register.Index: register.Value})
			}
			rows = append(rows, r)
		}
	}
	return rows
}

func (f flow) value(name string) string {
	switch name {
	case "src_ip", "dst_ip":
		return f.address(name).Unmap().String()
	case "src_port", "dst_port", "protocol":
		return fmt.Sprint(f.number(name))
	default:
		return fmt.Sprintf("%q", f.text(name))
	}
}

func (f flow) hash(name string) uint64 {
	switch name {
	case "src_ip", "dst_ip":
		a := f.address(name).As16()
		return sketch.Hash(a[:])
	case "src_port", "dst_port", "protocol":
		return sketch.HashUint64(f.number(name))
	default:
		return sketch.HashString(f.text(name))
	}
}

// apply runs one batch and gives its rows, table by table in the operator's order.
func apply(t testing.TB, o *Operator, in pipeline.OperatorInput) []row {
	t.Helper()
	pieces, err := o.Apply(in)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	seen := map[string]bool{}
	for _, p := range pieces {
		if id := p.Table + p.Partition; seen[id] {
			t.Fatalf("two pieces of %s in one batch", id)
		} else {
			seen[id] = true
		}
		at := slices.IndexFunc(o.windows, func(w *windows) bool { return w.table.Name == p.Table })
		rows = append(rows, readPiece(t, o.windows[at].cfg, p)...)
		p.Record.Release()
	}
	for _, r := range rows {
		if r.batch != uint64(in.Batch) {
			t.Fatalf("row of batch %d in batch %d", r.batch, in.Batch)
		}
	}
	return rows
}
