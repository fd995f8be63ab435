package rows

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/schemas"
)

// Every type of column, also where a record batch is a slice of another.
func TestSelect(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	b := array.NewRecordBuilder(alloc, schemas.EnrichedFlows.ArrowSchema())
	defer b.Release()
	for row := range 10 {
		for i := range schemas.EnrichedFlows.Columns {
			switch b := b.Field(i).(type) {
			case *array.TimestampBuilder:
				b.Append(arrow.Timestamp(row))
			case *array.FixedSizeBinaryBuilder:
				b.Append([]byte(strings.Repeat(fmt.Sprint(row), 16)))
			case *array.BinaryDictionaryBuilder:
				if err := b.AppendString(fmt.Sprint("text", row%3)); err != nil {
					t.Fatal(err)
				}
			default:
				if err := b.AppendValueFromString(fmt.Sprint(row)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	whole := b.NewRecord()
	defer whole.Release()
	slice := whole.NewSlice(3, 9)
	defer slice.Release()
	for _, c := range []struct {
		rec    arrow.Record
		picked []int32
		from   int
	}{{whole, []int32{0, 2, 9}, 0}, {whole, nil, 0}, {slice, []int32{5, 0, 0}, 3}, {slice, []int32{}, 3}} {
		got := Select(alloc, c.rec, c.picked)
		if !got.Schema().Equal(c.rec.Schema()) || got.NumRows() != int64(len(c.picked)) {
			t.Errorf("%d rows of %v", got.NumRows(), got.Schema())
		}
		for i, column := range got.Columns() {
			var have, want []string
			for at, row := range c.picked {
				have = append(have, column.ValueStr(at))
				want = append(want, whole.Column(i).ValueStr(c.from+int(row)))
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("column %q (-want +got):\n%s", got.ColumnName(i), diff)
			}
		}
		got.Release()
	}
}
