package sinktest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Maps is a table with what windows add to the types of flows: maps, one byte
// numbers, and a key without a MAC.
var Maps = schemas.Table{
	Name: "windows_sinktest",
	Columns: []schemas.Column{
		{Name: "window_start", Arrow: schemas.TimeMS, ClickHouse: "DateTime64(3, 'UTC')", Codec: "DoubleDelta, ZSTD(1)", Meaning: "First instant."},
		{Name: "word", Arrow: schemas.Name, ClickHouse: "LowCardinality(String)", Meaning: "Any text."},
		{Name: "correction", Arrow: arrow.PrimitiveTypes.Uint8, ClickHouse: "UInt8", Meaning: "0 or 1."},
		{Name: "registers", Arrow: mapOf(arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint8), ClickHouse: "Map(UInt16, UInt8)", Codec: "ZSTD(1)", Meaning: "Distinct."},
		{Name: "buckets", Arrow: mapOf(arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Uint64), ClickHouse: "Map(Int16, UInt64)", Codec: "ZSTD(1)", Meaning: "Quantiles."},
		{Name: "batch_id", Arrow: arrow.PrimitiveTypes.Uint64, ClickHouse: "UInt64", Codec: "ZSTD(1)", Meaning: "Commit."},
	},
	PartitionBy: "toYYYYMMDD(window_start)",
	OrderBy:     "window_start, word",
	TimeColumn:  "window_start",
	Indexes:     []string{"batch_id_range batch_id TYPE minmax GRANULARITY 4"},
	Comment:     "Types of windows.",
}

func mapOf(key, item arrow.DataType) *arrow.MapType {
	m := arrow.MapOf(key, item)
	m.SetItemNullable(false)
	return m
}

// Day is the day of all pieces that do not say otherwise.
var Day = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// texts are what text columns hold: everything that some layer could bend.
var texts = []string{
	"", "a", "DefaultRule_AllowVnetOutBound", "Ünïcødé ☃ 𝄞", `quote ' double " back \ slash`, "tab\tand\nline", "<img onerror=alert(1)>",
	strings.Repeat("long ", 200), "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network",
}

// words are the closed lists of flows by column.
var words = map[string][]string{
	"cloud": schemas.Clouds, "format": schemas.Formats, "direction": schemas.Directions,
	"state": schemas.States, "action": schemas.Actions, "rule_kind": schemas.RuleKinds,
}

// MAC gives the n-th MAC address.
func MAC(n int) string { return fmt.Sprintf("000D3A%06X", n) }

// Shape says what Make makes.
type Shape struct {
	Table schemas.Table
	Batch pipeline.BatchID
	Seed  uint64
	Rows  int
	Day   time.Time     // first instant; Day when zero
	Span  time.Duration // of the times from Day on; 24 h when zero
	MACs  int           // distinct, from FirstMAC on; 4 when zero
	// FirstMAC keeps the pieces of one batch and partition apart.
	FirstMAC int
}

// Make gives a piece of random rows, in the order of the table's key as far as
// MAC and time go. The same shape gives the same rows. Every type's lowest and
// highest values are among the first rows.
//
// The caller releases the record.
func Make(mem memory.Allocator, s Shape) pipeline.Piece {
	if s.Day.IsZero() {
		s.Day = Day
	}
	if s.Span == 0 {
		s.Span = 24 * time.Hour
	}
	if s.MACs == 0 {
		s.MACs = 4
	}
	m := maker{Shape: s, rand: rand.New(rand.NewPCG(s.Seed, uint64(s.Batch)))}
	b := array.NewRecordBuilder(mem, s.Table.ArrowSchema())
	defer b.Release()
	b.Reserve(s.Rows)
	for i, c := range s.Table.Columns {
		for row := range s.Rows {
			m.value(b.Field(i), c, row)
		}
	}
	p := pipeline.Piece{
		PieceRef: pipeline.PieceRef{Table: s.Table.Name, Partition: s.Day.Format("20060102"), Rows: int64(s.Rows), MinTime: m.minTime, MaxTime: m.maxTime},
		Record:   b.NewRecord(),
	}
	if s.Table.MACColumn != "" {
		for mac := range min(s.MACs, s.Rows) {
			p.MACs = append(p.MACs, MAC(s.FirstMAC+mac))
		}
		slices.Sort(p.MACs)
	}
	return p
}

type maker struct {
	Shape
	rand             *rand.Rand
	minTime, maxTime int64
}

// value appends one value to the builder of column c.
func (m *maker) value(b array.Builder, c schemas.Column, row int) {
	switch b := b.(type) {
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(m.time(c, row)))
	case *array.BinaryDictionaryBuilder:
		if err := b.AppendString(m.text(c, row)); err != nil {
			panic("BUG: dictionary: " + err.Error())
		}
	case *array.StringBuilder:
		b.Append(m.text(c, row))
	case *array.FixedSizeBinaryBuilder:
		b.Append(m.address(row))
	case *array.Uint8Builder:
		b.Append(uint8(m.number(row, 8)))
	case *array.Uint16Builder:
		b.Append(uint16(m.number(row, 16)))
	case *array.Uint32Builder:
		b.Append(uint32(m.number(row, 32)))
	case *array.Uint64Builder:
		if c.Name == "batch_id" {
			b.Append(uint64(m.Batch))
			return
		}
		b.Append(m.number(row, 64))
	case *array.MapBuilder:
		m.pairs(b, row)
	default:
		panic(fmt.Sprintf("BUG: no values for a builder of %v", b.Type()))
	}
}

// time gives times that rise with the rows, in [Day, Day + Span).
func (m *maker) time(c schemas.Column, row int) int64 {
	span := m.Span.Milliseconds()
	t := m.Day.UnixMilli() + int64(row)*max(1, span/int64(m.Rows+1))%span
	if c.Name == m.Table.TimeColumn {
		if row == 0 {
			m.minTime, m.maxTime = t, t
		}
		m.minTime, m.maxTime = min(m.minTime, t), max(m.maxTime, t)
	}
	return t
}

func (m *maker) text(c schemas.Column, row int) string {
	if c.Name == m.Table.MACColumn {
		return MAC(m.FirstMAC + row*m.MACs/m.Rows)
	}
	if list, closed := words[c.Name]; closed {
		return list[(row+m.rand.IntN(2))%len(list)]
	}
	return texts[(row+m.rand.IntN(3))%len(texts)]
}

// address gives IPv4 in IPv6, the lowest, the highest, and full IPv6.
func (m *maker) address(row int) []byte {
	a := make([]byte, 16)
	switch row % 5 {
	case 0:
		for i := range a {
			a[i] = byte(0xff * (row & 1))
		}
	case 1, 2:
		copy(a, []byte{10: 0xff, 11: 0xff, 12: 10, 13: byte(m.rand.Uint32()), 14: byte(row >> 8), 15: byte(row)})
	default:
		for i := range a {
			a[i] = byte(m.rand.Uint32())
		}
		a[0], a[1] = 0x20, 0x01
	}
	return a
}

func (m *maker) number(row, bits int) uint64 {
	highest := ^uint64(0) >> (64 - bits)
	switch row {
	case 0:
		return 0
	case 1:
		return highest
	}
	// Most numbers are small, as counters are.
	return m.rand.Uint64N(min(highest, 1<<(1+m.rand.UintN(20))))
}

func (m *maker) pairs(b *array.MapBuilder, row int) {
	b.Append(true)
	n := row % 4 // An empty map first.
	for i := range n {
		switch key := b.KeyBuilder().(type) {
		case *array.Uint16Builder:
			key.Append(uint16(65535 - i*16383))
		case *array.Int16Builder:
			key.Append(int16(-32768 + i*32767))
		default:
			panic(fmt.Sprintf("BUG: no keys for a map of %v", b.Type()))
		}
		switch item := b.ItemBuilder().(type) {
		case *array.Uint8Builder:
			item.Append(uint8(m.number(row+i, 8)))
		case *array.Uint64Builder:
			item.Append(m.number(row+i, 64))
		default:
			panic(fmt.Sprintf("BUG: no items for a map of %v", b.Type()))
		}
	}
}
