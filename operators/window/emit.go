package window

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/pipeline"
)

const dayMS = 24 * 60 * 60 * 1000

// close gives the rows of the windows that are closed at the watermark and forgets
// the windows. Windows of late rows are among them: they were closed before.
func (w *windows) close(watermark pipeline.Watermark, batch pipeline.BatchID, alloc memory.Allocator, stats *Stats) []pipeline.Piece {
	var closing []*window
	for start, win := range w.open {
		if w.closesBy(start, watermark) {
			closing = append(closing, win)
		}
	}
	slices.SortFunc(closing, func(a, b *window) int { return cmp.Compare(a.start, b.start) })
	var pieces []pipeline.Piece
	for len(closing) > 0 {
		day := floorDay(closing[0].start)
		n := 1
		for n < len(closing) && floorDay(closing[n].start) == day {
			n++
		}
		pieces = append(pieces, w.piece(closing[:n], batch, alloc))
		for _, win := range closing[:n] {
			if !win.late {
				stats.Closed++
			}
			w.drop(win)
		}
		closing = closing[n:]
	}
	return pieces
}

func floorDay(ms int64) int64 { return ms - ((ms%dayMS)+dayMS)%dayMS }

// piece makes one piece of windows of one day, which are in the order of time.
func (w *windows) piece(closing []*window, batch pipeline.BatchID, alloc memory.Allocator) pipeline.Piece {
	ranks := w.rank(closing)
	b := array.NewRecordBuilder(alloc, w.builderSchema())
	defer b.Release()
	rows := 0
	for _, win := range closing {
		rows += win.count
	}
	b.Reserve(rows)
	for _, win := range closing {
		w.appendWindow(b, win, ranks, batch)
	}
	rec := w.record(b, ranks, int64(rows), alloc)
	first, last := closing[0].start, closing[len(closing)-1].start
	return pipeline.Piece{
		PieceRef: pipeline.PieceRef{
			Table: w.table.Name, Partition: time.UnixMilli(first).UTC().Format("20060102"),
			Rows: int64(rows), MinTime: first, MaxTime: last,
		},
		Record: rec,
	}
}

// rank orders the texts of the windows' groups, by field; a field that is no text
// has an empty ranking.
func (w *windows) rank(wins []*window) []ranking {
	ranks := make([]ranking, len(w.fields))
	for i, f := range w.fields {
		if !f.isText() {
			continue
		}
		marks := make([]bool, len(w.keys[i].texts.texts))
		for _, win := range wins {
			win.mark(f, marks)
		}
		ranks[i] = w.keys[i].texts.rank(marks)
	}
	return ranks
}

// sorted gives the window's groups in the order of their keys, the overflow group
// behind a group of the same key, and their keys with ranks instead of ids.
func (w *windows) sorted(win *window, ranks []ranking) (order []int, keys []uint64) {
	keys = make([]uint64, win.count*w.words)
	order = make([]int, win.count)
	for i := range order {
		order[i] = i
		copy(keys[i*w.words:], win.key(i))
	}
	for j, f := range w.fields {
		if !f.isText() {
			continue
		}
		for i := range order {
			key := keys[i*w.words : (i+1)*w.words]
			f.put(key, uint64(ranks[j].ranks[f.get(key)]))
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		if c := slices.Compare(keys[a*w.words:(a+1)*w.words], keys[b*w.words:(b+1)*w.words]); c != 0 {
			return c
		}
		return cmp.Compare(a, b) // equal only if one of them is the overflow group
	})
	return order, keys
}

// builderSchema is the schema of the table with plain codes where dictionaries go.
func (w *windows) builderSchema() *arrow.Schema {
	fields := slices.Clone(w.schema.Fields())
	for i, f := range fields {
		if d, ok := f.Type.(*arrow.DictionaryType); ok {
			fields[i].Type = d.IndexType
		}
	}
	return arrow.NewSchema(fields, nil)
}

func (w *windows) appendWindow(b *array.RecordBuilder, win *window, ranks []ranking, batch pipeline.BatchID) {
	order, keys := w.sorted(win, ranks)
	starts := b.Field(windowStart).(*array.TimestampBuilder)
	ends := b.Field(windowEnd).(*array.TimestampBuilder)
	for range order {
		starts.UnsafeAppend(arrow.Timestamp(win.start))
		ends.UnsafeAppend(arrow.Timestamp(win.start + w.size))
	}
	at := firstGroup
	for _, f := range w.fields {
		appendField(b.Field(at), f, order, keys, w.words)
		at++
	}
	for j := range 1 + len(w.sums) {
		values := b.Field(at).(*array.Uint64Builder)
		for _, i := range order {
			values.UnsafeAppend(win.entry(i)[w.words+j])
		}
		at++
	}
	for j := range w.distinct {
		appendRegisters(b.Field(at).(*array.MapBuilder), win, order, j)
		at++
	}
	correction, overflow := b.Field(at).(*array.Uint8Builder), b.Field(at+1).(*array.Uint8Builder)
	batches := b.Field(at + 2).(*array.Uint64Builder)
	for _, i := range order {
		correction.UnsafeAppend(flag(win.late))
		overflow.UnsafeAppend(flag(i == win.overflow))
		batches.UnsafeAppend(uint64(batch))
	}
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func appendField(b array.Builder, f field, order []int, keys []uint64, words int) {
	switch b := b.(type) {
	case *array.Uint32Builder:
		for _, i := range order {
			b.UnsafeAppend(uint32(f.get(keys[i*words:])))
		}
	case *array.Uint16Builder:
		for _, i := range order {
			b.UnsafeAppend(uint16(f.get(keys[i*words:])))
		}
	case *array.Uint8Builder:
		for _, i := range order {
			b.UnsafeAppend(uint8(f.get(keys[i*words:])))
		}
	case *array.FixedSizeBinaryBuilder:
		var address [16]byte
		for _, i := range order {
			binary.BigEndian.PutUint64(address[:], keys[i*words+f.word])
			binary.BigEndian.PutUint64(address[8:], keys[i*words+f.word+1])
			b.Append(address[:])
		}
	}
}

func appendRegisters(b *array.MapBuilder, win *window, order []int, distinct int) {
	indexes, values := b.KeyBuilder().(*array.Uint16Builder), b.ItemBuilder().(*array.Uint8Builder)
	var registers []sketch.Register
	for _, i := range order {
		b.Append(true)
		registers = win.sketchesOf(i)[distinct].Append(registers[:0])
		for _, r := range registers {
			indexes.Append(r.Index)
			values.Append(r.Value)
		}
	}
}

// record makes the record batch, with dictionaries of the texts in use.
func (w *windows) record(b *array.RecordBuilder, ranks []ranking, rows int64, alloc memory.Allocator) arrow.Record {
	plain := b.NewRecord()
	defer plain.Release()
	columns := slices.Clone(plain.Columns())
	var made []arrow.Array
	for i, f := range w.fields {
		if f.isText() {
			at := firstGroup + i
			columns[at] = dictionary(w.schema.Field(at).Type, columns[at], ranks[i].values, alloc)
			made = append(made, columns[at])
		}
	}
	rec := array.NewRecord(w.schema, columns, rows)
	for _, column := range made {
		column.Release() // the record holds it now
	}
	return rec
}

func dictionary(t arrow.DataType, codes arrow.Array, values []string, alloc memory.Allocator) arrow.Array {
	b := array.NewStringBuilder(alloc)
	defer b.Release()
	b.AppendValues(values, nil)
	dict := b.NewArray()
	defer dict.Release()
	return array.NewDictionaryArray(t, codes, dict)
}
