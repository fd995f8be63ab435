package window

import (
	"encoding/binary"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// output is a record batch in the making: columns of a known length, filled row by
// row, because a group's sums lie side by side and groups are far apart.
type output struct {
	w     *windows
	alloc memory.Allocator
	rows  int
	next  int // first row that is not filled
	bufs  []*memory.Buffer

	starts, ends         []arrow.Timestamp
	groups               []outField // by field
	values               [][]uint64 // rows and sums
	registers            []*array.MapBuilder
	correction, overflow []uint8
	batches              []uint64
}

// outField is where the values of a group column go, one of the slices by kind.
type outField struct {
	u8  []uint8
	u16 []uint16
	u32 []uint32
	raw []byte
}

func newOutput(w *windows, rows int, alloc memory.Allocator) *output {
	o := &output{w: w, alloc: alloc, rows: rows}
	o.starts = arrow.TimestampTraits.CastFromBytes(o.buffer(8))
	o.ends = arrow.TimestampTraits.CastFromBytes(o.buffer(8))
	for _, f := range w.fields {
		var c outField
		switch f.kind {
		case kindWord, kindName, kindUint32:
			c.u32 = arrow.Uint32Traits.CastFromBytes(o.buffer(4))
		case kindAddress:
			c.raw = o.buffer(16)
		case kindUint8:
			c.u8 = o.buffer(1)
		case kindUint16:
			c.u16 = arrow.Uint16Traits.CastFromBytes(o.buffer(2))
		default:
			panic(bugKind)
		}
		o.groups = append(o.groups, c)
	}
	for range 1 + len(w.sums) {
		o.values = append(o.values, arrow.Uint64Traits.CastFromBytes(o.buffer(8)))
	}
	for range w.distinct {
		b := array.NewMapBuilderWithType(alloc, Registers)
		b.Reserve(rows)
		o.registers = append(o.registers, b)
	}
	o.correction, o.overflow = o.buffer(1), o.buffer(1)
	o.batches = arrow.Uint64Traits.CastFromBytes(o.buffer(8))
	return o
}

func (o *output) buffer(width int) []byte {
	b := memory.NewResizableBuffer(o.alloc)
	b.Resize(o.rows * width)
	o.bufs = append(o.bufs, b)
	return b.Bytes()
}

// add fills the next rows with a window's groups.
func (o *output) add(win *window, groups ordered, batch pipeline.BatchID) {
	at, end := o.next, o.next+win.count
	o.next = end
	for i := at; i < end; i++ {
		o.starts[i], o.ends[i] = arrow.Timestamp(win.start), arrow.Timestamp(win.start+o.w.size)
		o.correction[i], o.overflow[i], o.batches[i] = flag(win.late && !mutant.On(mutant.LateUnmarked)), 0, uint64(batch)
	}
	for j, f := range o.w.fields {
		o.groups[j].fill(f, at, groups)
	}
	for i, entry := range groups.order {
		values := win.entry(int(entry))[o.w.words:]
		for j, column := range o.values {
			column[at+i] = values[j]
		}
		if int(entry) == win.overflow {
			o.overflow[at+i] = 1
		}
	}
	for j, b := range o.registers {
		appendRegisters(b, win, groups.order, j)
	}
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func (c outField) fill(f field, at int, groups ordered) {
	switch f.kind {
	case kindWord, kindName, kindUint32:
		for i, entry := range groups.order {
			c.u32[at+i] = uint32(f.get(groups.key(entry)))
		}
	case kindAddress:
		raw := c.raw[at*16:]
		for i, entry := range groups.order {
			key := groups.key(entry)
			binary.BigEndian.PutUint64(raw[i*16:], key[f.word])
			binary.BigEndian.PutUint64(raw[i*16+8:], key[f.word+1])
		}
	case kindUint8:
		for i, entry := range groups.order {
			c.u8[at+i] = uint8(f.get(groups.key(entry)))
		}
	case kindUint16:
		for i, entry := range groups.order {
			c.u16[at+i] = uint16(f.get(groups.key(entry)))
		}
	default:
		panic(bugKind)
	}
}

func appendRegisters(b *array.MapBuilder, win *window, order []uint32, distinct int) {
	indexes, values := b.KeyBuilder().(*array.Uint16Builder), b.ItemBuilder().(*array.Uint8Builder)
	var registers []sketch.Register
	for _, i := range order {
		b.Append(true)
		registers = win.sketchesOf(int(i))[distinct].Append(registers[:0])
		indexes.Reserve(len(registers))
		values.Reserve(len(registers))
		for _, r := range registers {
			indexes.UnsafeAppend(r.Index)
			values.UnsafeAppend(r.Value)
		}
	}
}

// record wraps the filled columns; texts get dictionaries of what is in use.
func (o *output) record(ranks []ranking) arrow.Record {
	schema := o.w.schema
	columns := make([]arrow.Array, 0, schema.NumFields())
	bufs := o.bufs
	for i, field := range schema.Fields() {
		if distinct := i - firstGroup - len(o.w.fields) - len(o.values); distinct >= 0 && distinct < len(o.registers) {
			columns = append(columns, o.registers[distinct].NewArray())
			continue
		}
		t := field.Type
		if d, ok := t.(*arrow.DictionaryType); ok {
			t = d.IndexType
		}
		data := array.NewData(t, o.rows, []*memory.Buffer{nil, bufs[0]}, nil, 0, 0)
		column := array.MakeFromData(data)
		data.Release()
		bufs = bufs[1:]
		if t != field.Type {
			codes := column
			column = dictionary(field.Type, codes, ranks[i-firstGroup].values, o.alloc)
			codes.Release()
		}
		columns = append(columns, column)
	}
	rec := array.NewRecord(schema, columns, int64(o.rows))
	for _, c := range columns {
		c.Release() // the record holds them now
	}
	return rec
}

// release frees what the record does not hold.
func (o *output) release() {
	for _, b := range o.bufs {
		b.Release()
	}
	for _, b := range o.registers {
		b.Release()
	}
}
