package kafka

import (
	"bytes"
	"fmt"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// arrowPart is a run of rows as one IPC stream.
type arrowPart struct {
	from, to int
	stream   []byte
}

// cutArrow writes rows as IPC streams of at most limit bytes. How they are cut
// depends on the rows alone.
//
// Errors: one row is longer than the limit.
func cutArrow(rec arrow.Record, from, to, limit int) ([]arrowPart, error) {
	var parts []arrowPart
	for guess := to - from; from < to; {
		n := min(guess, to-from)
		stream, err := arrowStream(rec, from, from+n)
		if err != nil {
			return nil, err
		}
		if len(stream) > limit {
			if n == 1 {
				return nil, fmt.Errorf("row %d takes %d bytes as an Arrow message, more than %d: use format json for its table", from, len(stream), limit)
			}
			// Rows are much alike, so the next guess is nearly always right.
			guess = max(1, min(n-1, int(int64(n)*int64(limit)*9/10/int64(len(stream)))))
			continue
		}
		parts = append(parts, arrowPart{from: from, to: from + n, stream: stream})
		from += n
	}
	return parts, nil
}

// arrowStream writes rows as a stream that can be read by itself: schema,
// dictionaries with the values that the rows use, one record batch.
func arrowStream(rec arrow.Record, from, to int) ([]byte, error) {
	columns := make([]arrow.Array, rec.NumCols())
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, c := range rec.Columns() {
		columns[i] = array.NewSlice(c, int64(from), int64(to))
		if d, ok := columns[i].(*array.Dictionary); ok {
			columns[i] = compact(d)
			d.Release()
		}
	}
	part := array.NewRecord(rec.Schema(), columns, int64(to-from))
	defer part.Release()
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(rec.Schema()))
	if err := w.Write(part); err != nil {
		return nil, fmt.Errorf("write arrow: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write arrow: %w", err)
	}
	return b.Bytes(), nil
}

// compact gives the same values with a dictionary of those alone that occur, in the
// order of their first use. A dictionary is shared by all rows of a batch; each
// message would carry all of it.
func compact(d *array.Dictionary) arrow.Array {
	old := d.Dictionary().(*array.String)
	place := make([]int, old.Len()) // in the new dictionary, from 1; 0 is unused
	values := array.NewStringBuilder(memory.DefaultAllocator)
	defer values.Release()
	kind := d.DataType().(*arrow.DictionaryType)
	indices := array.NewBuilder(memory.DefaultAllocator, kind.IndexType)
	defer indices.Release()
	indices.Reserve(d.Len())
	for row := range d.Len() {
		v := d.GetValueIndex(row)
		if place[v] == 0 {
			values.Append(old.Value(v))
			place[v] = values.Len()
		}
		switch b := indices.(type) {
		case *array.Uint8Builder:
			b.UnsafeAppend(uint8(place[v] - 1))
		case *array.Uint32Builder:
			b.UnsafeAppend(uint32(place[v] - 1))
		default:
			panic(fmt.Sprintf("BUG: no table has a dictionary of type %v", kind))
		}
	}
	index, words := indices.NewArray(), values.NewArray()
	defer index.Release()
	defer words.Release()
	return array.NewDictionaryArray(kind, index, words)
}
