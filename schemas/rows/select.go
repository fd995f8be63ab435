// Package rows picks rows out of record batches.
//
// It works on the buffers of plain columns, which all tables of rows as decoded
// have: numbers, times, fixed bytes and dictionaries, none with nulls. It owns no
// goroutine.
package rows

import (
	"fmt"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// Select copies the given rows of a record batch, in the given order, into a new
// one. Dictionaries are shared and keep values that no row uses any more.
//
// Shape: the schema of rec, which has no nulls and no column of variable width
// outside of a dictionary. The caller releases the record.
func Select(alloc memory.Allocator, rec arrow.Record, picked []int32) arrow.Record {
	columns := make([]arrow.Array, rec.NumCols())
	for i, c := range rec.Columns() {
		columns[i] = selectColumn(alloc, c, picked)
	}
	out := array.NewRecord(rec.Schema(), columns, int64(len(picked)))
	for _, c := range columns {
		c.Release()
	}
	return out
}

func selectColumn(alloc memory.Allocator, column arrow.Array, picked []int32) arrow.Array {
	t, data := column.DataType(), column.Data()
	var dict *array.Data
	plain := t
	if d, ok := t.(*arrow.DictionaryType); ok {
		plain, dict = d.IndexType, data.Dictionary().(*array.Data)
	}
	fixed, ok := plain.(arrow.FixedWidthDataType)
	if !ok || column.NullN() > 0 {
		panic(fmt.Sprintf("BUG: rows of a column of %v with %d nulls", t, column.NullN()))
	}
	width := fixed.BitWidth() / 8
	to := memory.NewResizableBuffer(alloc)
	defer to.Release()
	to.Resize(len(picked) * width)
	if len(picked) > 0 {
		pick(to.Bytes(), data.Buffers()[1].Bytes()[data.Offset()*width:], width, picked)
	}
	out := array.NewDataWithDictionary(t, len(picked), []*memory.Buffer{nil, to}, 0, 0, dict)
	defer out.Release()
	return array.MakeFromData(out)
}

func pick(to, from []byte, width int, picked []int32) {
	switch width {
	case 1:
		pickAs(to, from, picked)
	case 2:
		pickAs(arrow.Uint16Traits.CastFromBytes(to), arrow.Uint16Traits.CastFromBytes(from), picked)
	case 4:
		pickAs(arrow.Uint32Traits.CastFromBytes(to), arrow.Uint32Traits.CastFromBytes(from), picked)
	case 8:
		pickAs(arrow.Uint64Traits.CastFromBytes(to), arrow.Uint64Traits.CastFromBytes(from), picked)
	default:
		for i, row := range picked {
			copy(to[i*width:(i+1)*width], from[int(row)*width:])
		}
	}
}

func pickAs[T any](to, from []T, picked []int32) {
	for i, row := range picked {
		to[i] = from[row]
	}
}
