package clickhouse

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/schemas"
)

// nativeColumns shows a record as columns of the native protocol. Numbers, times,
// addresses and dictionary codes lie in Arrow's memory as the protocol wants them
// (little-endian, as on every machine that Millrace is built for), so they go to
// the socket from there. Only text that has no dictionary is copied, and a
// dictionary's own values. The types are those that checkNative let through.
func nativeColumns(t schemas.Table, record arrow.Record) proto.Input {
	input := make(proto.Input, len(t.Columns))
	for i, c := range t.Columns {
		data, err := nativeColumn(record.Column(i))
		if err != nil {
			panic(fmt.Sprintf("BUG: table %q, column %q: %v", t.Name, c.Name, err))
		}
		input[i] = proto.InputColumn{Name: c.Name, Data: column{kind: proto.ColumnType(c.ClickHouse), rows: record.Column(i).Len(), data: data}}
	}
	return input
}

// checkNative refuses a table with a column that the native protocol would carry
// wrongly: HTTP converts what Arrow has into what the table wants, this does not.
func checkNative(t schemas.Table) error {
	var faults []error
	for _, c := range t.Columns {
		empty := array.MakeArrayOfNull(memory.DefaultAllocator, c.Arrow, 0)
		_, err := nativeColumn(empty)
		empty.Release()
		if c.Arrow.ID() == arrow.TIMESTAMP && (!arrow.TypeEqual(c.Arrow, schemas.TimeMS) || !strings.HasPrefix(c.ClickHouse, "DateTime64(3")) {
			err = fmt.Errorf("no native column for %v as %s", c.Arrow, c.ClickHouse)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("table %q, column %q: %w: use a url of http://", t.Name, c.Name, err))
		}
	}
	return errors.Join(faults...)
}

// nativeColumn says how the values of an array are written.
func nativeColumn(a arrow.Array) (columnData, error) {
	switch a := a.(type) {
	case *array.Timestamp, *array.Float32, *array.Float64,
		*array.Uint8, *array.Uint16, *array.Uint32, *array.Uint64,
		*array.Int8, *array.Int16, *array.Int32, *array.Int64, *array.FixedSizeBinary:
		return memoryOf(a), nil
	case *array.String:
		return texts{a}, nil
	case *array.Dictionary:
		return newWords(a)
	case *array.Map:
		return newPairs(a)
	}
	return nil, fmt.Errorf("no native column for %v", a.DataType())
}

// column is one column of a block.
type column struct {
	kind proto.ColumnType
	rows int
	data columnData
}

// columnData writes a column's values.
type columnData interface{ write(w *proto.Writer) }

func (c column) Type() proto.ColumnType      { return c.kind }
func (c column) Rows() int                   { return c.rows }
func (c column) WriteColumn(w *proto.Writer) { c.data.write(w) }

// EncodeColumn is for compressed blocks, which we do not send.
func (c column) EncodeColumn(*proto.Buffer) { panic("BUG: a native column is written, not encoded") }

// EncodeState writes what stands before the values of a dictionary.
func (c column) EncodeState(b *proto.Buffer) {
	if _, ok := c.data.(words); ok {
		const sharedDictionariesWithAdditionalKeys = 1 // The only version there is.
		b.PutInt64(sharedDictionariesWithAdditionalKeys)
	}
}

// nothing is a column without rows: it ends the input.
type nothing struct{ proto.ColUInt8 }

// plain are values that lie in memory as they are sent.
type plain []byte

func (p plain) write(w *proto.Writer) { w.ChainWrite(p) }

// memoryOf gives the values of an array of fixed width, as they lie there.
func memoryOf(a arrow.Array) plain {
	if a.Len() == 0 {
		return nil
	}
	width := a.DataType().(arrow.FixedWidthDataType).BitWidth() / 8
	from := a.Data().Offset() * width
	return a.Data().Buffers()[1].Bytes()[from : from+a.Len()*width]
}

// texts are lengths and bytes.
type texts struct{ *array.String }

func (t texts) write(w *proto.Writer) {
	w.ChainBuffer(func(b *proto.Buffer) {
		for i := range t.Len() {
			b.PutString(t.Value(i))
		}
	})
}

// words are a LowCardinality(String): the dictionary, then a code for each row. A
// dictionary may hold values that no row has; the server keeps those it needs.
type words struct {
	dictionary texts
	codes      plain
	width      proto.CardinalityKey
	rows       int
}

func newWords(a *array.Dictionary) (columnData, error) {
	values, ok := a.Dictionary().(*array.String)
	if !ok {
		return nil, fmt.Errorf("no native column for a dictionary of %v", a.Dictionary().DataType())
	}
	widths := map[arrow.Type]proto.CardinalityKey{arrow.UINT8: proto.KeyUInt8, arrow.UINT16: proto.KeyUInt16, arrow.UINT32: proto.KeyUInt32}
	width, ok := widths[a.Indices().DataType().ID()]
	if !ok {
		return nil, fmt.Errorf("no native column for codes of %v", a.Indices().DataType())
	}
	return words{dictionary: texts{values}, codes: memoryOf(a.Indices()), width: width, rows: a.Len()}, nil
}

func (d words) write(w *proto.Writer) {
	const hasAdditionalKeys, updateDictionary = 1 << 9, 1 << 10
	w.ChainBuffer(func(b *proto.Buffer) {
		b.PutInt64(hasAdditionalKeys | updateDictionary | int64(d.width))
		b.PutInt64(int64(d.dictionary.Len()))
	})
	d.dictionary.write(w)
	w.ChainBuffer(func(b *proto.Buffer) { b.PutInt64(int64(d.rows)) })
	d.codes.write(w)
}

// pairs are a Map: where each row's pairs end, then all keys, then all items.
type pairs struct {
	ends        []uint64 // behind each row's last pair
	keys, items columnData
}

func newPairs(a *array.Map) (columnData, error) {
	out := pairs{ends: make([]uint64, a.Len())}
	var from, to int64
	for i := range out.ends {
		begin, end := a.ValueOffsets(i)
		if i == 0 {
			from = begin
		}
		to, out.ends[i] = end, uint64(end-from)
	}
	var err error
	for _, side := range []struct {
		whole arrow.Array
		out   *columnData
	}{{a.Keys(), &out.keys}, {a.Items(), &out.items}} {
		part := array.NewSlice(side.whole, from, to)
		*side.out, err = nativeColumn(part)
		part.Release() // The record holds the memory.
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p pairs) write(w *proto.Writer) {
	w.ChainBuffer(func(b *proto.Buffer) {
		for _, end := range p.ends {
			b.PutUInt64(end)
		}
	})
	p.keys.write(w)
	p.items.write(w)
}
