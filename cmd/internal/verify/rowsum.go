package verify

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rowtext"
)

// compared are the columns that the bytes decide: all but the commit.
var compared = schemas.Flows.Columns[:schemas.Flows.Index("batch_id")]

// Columns of an address, the last ones that are compared.
var (
	timeAt       = schemas.Flows.Index("time")
	generationAt = schemas.Flows.Index("generation")
	offsetAt     = schemas.Flows.Index("record_offset")
	ordinalAt    = schemas.Flows.Index("ordinal")
)

// sum adds hashes of rows up: it is the same in whatever order they come.
type sum struct {
	rows int64
	hash uint64
}

func (s *sum) add(o sum) { s.rows, s.hash = s.rows+o.rows, s.hash+o.hash }

// hashSQL computes the hash of a row as rowHasher does: xxh3 of its values, parted by
// zero bytes, which no text has.
var hashSQL = func() string {
	parts := make([]string, len(compared))
	for i, c := range compared {
		name := schemas.QuoteName(c.Name)
		switch {
		case arrow.TypeEqual(c.Arrow, schemas.TimeMS):
			parts[i] = "toString(toUnixTimestamp64Milli(" + name + "))"
		case arrow.TypeEqual(c.Arrow, schemas.Address):
			parts[i] = "reinterpretAsFixedString(" + name + ")"
		case c.Arrow.ID() == arrow.DICTIONARY:
			parts[i] = name
		default:
			parts[i] = "toString(" + name + ")"
		}
	}
	return "xxh3(concat(" + strings.Join(parts, ", '\\0', ") + "))"
}()

// rowHasher gives the hashes of the rows of one record, which has the columns of
// flows. Borrowed for as long as it lives.
type rowHasher struct {
	columns []func(b []byte, row int) []byte
	buf     []byte
	offsets []uint64
	ordinal []uint32
	times   []arrow.Timestamp
}

func newRowHasher(rec arrow.Record) *rowHasher {
	h := &rowHasher{
		offsets: rec.Column(offsetAt).(*array.Uint64).Uint64Values(), ordinal: rec.Column(ordinalAt).(*array.Uint32).Uint32Values(),
		times: rec.Column(timeAt).(*array.Timestamp).TimestampValues(),
	}
	for i, c := range compared {
		h.columns = append(h.columns, appendValue(c, rec.Column(i), func(b, address []byte) []byte { return append(b, address...) }))
	}
	return h
}

func (h *rowHasher) hash(row int) uint64 {
	b := h.buf[:0]
	for i, c := range h.columns {
		if i > 0 {
			b = append(b, 0)
		}
		b = c(b, row)
	}
	h.buf = b
	return xxh3.Hash(b)
}

// appendValue gives what appends a column's value as the SQL above writes it;
// address says how the bytes of an address look.
func appendValue(c schemas.Column, column arrow.Array, address func(b, raw []byte) []byte) func(b []byte, row int) []byte {
	switch a := column.(type) {
	case *array.Timestamp:
		return func(b []byte, row int) []byte { return strconv.AppendInt(b, int64(a.Value(row)), 10) }
	case *array.FixedSizeBinary:
		return func(b []byte, row int) []byte { return address(b, a.Value(row)) }
	case *array.Dictionary:
		words := rowtext.Words(a)
		return func(b []byte, row int) []byte { return append(b, words[a.GetValueIndex(row)]...) }
	case *array.Uint8:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, uint64(a.Value(row)), 10) }
	case *array.Uint16:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, uint64(a.Value(row)), 10) }
	case *array.Uint32:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, uint64(a.Value(row)), 10) }
	case *array.Uint64:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, a.Value(row), 10) }
	}
	panic(fmt.Sprintf("BUG: column %q of type %s is not compared", c.Name, column.DataType()))
}

// valuesSQL gives the values of a row as an array of texts, addresses as people write
// them; valuesOf does the same.
var valuesSQL = func() string {
	parts := make([]string, len(compared))
	for i, c := range compared {
		parts[i] = keyText(schemas.QuoteName(c.Name), c.Name)
		if arrow.TypeEqual(c.Arrow, schemas.TimeMS) {
			parts[i] = "toString(toUnixTimestamp64Milli(" + schemas.QuoteName(c.Name) + "))"
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}()

func valuesOf(rec arrow.Record, row int) []string {
	out := make([]string, len(compared))
	for i, c := range compared {
		out[i] = string(appendValue(c, rec.Column(i), func(b, raw []byte) []byte { return append(b, addressText(raw)...) })(nil, row))
	}
	return out
}
