package sinktest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// Lines writes each row as one line that depends on the values alone, not on how
// Arrow carries them: a dictionary reads like its text, a timestamp like its
// milliseconds. The lines are sorted.
func Lines(records ...arrow.Record) []string {
	var out []string
	for _, r := range records {
		for row := range int(r.NumRows()) {
			fields := make([]string, r.NumCols())
			for i, col := range r.Columns() {
				fields[i] = r.ColumnName(i) + "=" + Value(col, row)
			}
			out = append(out, strings.Join(fields, " "))
		}
	}
	slices.Sort(out)
	return out
}

// Value writes one value.
func Value(col arrow.Array, row int) string {
	if col.IsNull(row) {
		return "null"
	}
	switch a := col.(type) {
	case *array.Dictionary:
		return Value(a.Dictionary(), a.GetValueIndex(row))
	case *array.String:
		return strconv.Quote(a.Value(row))
	case *array.LargeString:
		return strconv.Quote(a.Value(row))
	case *array.Binary:
		return strconv.Quote(string(a.Value(row)))
	case *array.FixedSizeBinary:
		return hex.EncodeToString(a.Value(row))
	case *array.Timestamp:
		return strconv.FormatInt(a.Value(row).ToTime(a.DataType().(*arrow.TimestampType).Unit).UnixMilli(), 10)
	case *array.Map:
		return pairs(a, row)
	case *array.Int16, *array.Uint8, *array.Uint16, *array.Uint32, *array.Uint64:
		return a.ValueStr(row)
	}
	panic(fmt.Sprintf("BUG: no text for %v", col.DataType()))
}

func pairs(m *array.Map, row int) string {
	from, to := m.ValueOffsets(row)
	out := make([]string, 0, to-from)
	for i := int(from); i < int(to); i++ {
		out = append(out, Value(m.Keys(), i)+":"+Value(m.Items(), i))
	}
	slices.Sort(out)
	return "{" + strings.Join(out, ",") + "}"
}
