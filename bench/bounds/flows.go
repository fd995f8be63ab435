package main

import (
	"encoding/binary"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/schemas"
)

// batchRows is how many rows a record batch has.
const batchRows = 1 << 16

// flows is a record batch of schemas.Flows that is filled again and again: an
// operator keeps nothing of what it is given. Columns that no scenario sets are zeros
// and empty texts.
type flows struct {
	columns []arrow.Array
	times   []arrow.Timestamp
	dst     []byte // 16 bytes a row
	packets []uint64
	bytes   []uint64
}

func newFlows() *flows {
	f := &flows{}
	for _, field := range schemas.Flows.ArrowSchema().Fields() {
		buf := memory.NewBufferBytes(make([]byte, batchRows*widthOf(field.Type)))
		switch field.Name {
		case "time":
			f.times = arrow.TimestampTraits.CastFromBytes(buf.Bytes())
		case "dst_ip":
			f.dst = buf.Bytes()
		case "packets_sent":
			f.packets = arrow.Uint64Traits.CastFromBytes(buf.Bytes())
		case "bytes_sent":
			f.bytes = arrow.Uint64Traits.CastFromBytes(buf.Bytes())
		}
		f.columns = append(f.columns, columnOf(field.Type, buf))
	}
	return f
}

func widthOf(t arrow.DataType) int {
	if d, ok := t.(*arrow.DictionaryType); ok {
		t = d.IndexType
	}
	return t.(arrow.FixedWidthDataType).Bytes()
}

func columnOf(t arrow.DataType, buf *memory.Buffer) arrow.Array {
	d, isText := t.(*arrow.DictionaryType)
	if isText {
		t = d.IndexType
	}
	data := array.NewData(t, batchRows, []*memory.Buffer{nil, buf}, nil, 0, 0)
	defer data.Release()
	column := array.MakeFromData(data)
	if !isText {
		return column
	}
	defer column.Release()
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Append("")
	texts := b.NewArray()
	defer texts.Release()
	return array.NewDictionaryArray(d, column, texts)
}

// set fills a row: what differs between keys is the address.
func (f *flows) set(row int, at int64, key uint32, packets, bytes uint64) {
	f.times[row] = arrow.Timestamp(at)
	binary.BigEndian.PutUint32(f.dst[row*16+12:], key)
	f.packets[row], f.bytes[row] = packets, bytes
}

// record gives the first n rows. The caller releases it before it fills rows again.
func (f *flows) record(n int) arrow.Record {
	rec := array.NewRecord(schemas.Flows.ArrowSchema(), f.columns, batchRows)
	defer rec.Release()
	return rec.NewSlice(0, int64(n))
}
