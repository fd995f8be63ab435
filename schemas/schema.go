// Package schemas says what a row is: every column of every table once, with
// its Arrow type, its ClickHouse type and codec, its unit, meaning and source.
// DDL, queries and documents are rendered from here, so a column cannot mean two
// things in two places.
//
// The package is data and pure functions. It owns no goroutine and no memory of
// others, and it imports nothing of this module.
package schemas

import (
	"github.com/apache/arrow/go/v17/arrow"
)

// Column is one column of a table.
type Column struct {
	Name       string         // snake_case, unique in its table
	Arrow      arrow.DataType // what record batches carry; never nullable
	ClickHouse string         // ClickHouse type
	Codec      string         // ClickHouse codec expression without CODEC(); "" for the default
	Unit       string         // "bytes", "ms UTC", "" when it has none
	Meaning    string         // one sentence, becomes the column's comment in the database
	Source     string         // the field of the log it comes from
}

// Table is one table of the target.
type Table struct {
	Name    string
	Columns []Column
	// Required is how many of the columns, from the first on, every record batch has;
	// 0 means all. The target fills the others with their defaults.
	Required int
	// Bare makes the table with the required columns only. One that has the others
	// keeps them, and record batches may have them then.
	Bare        bool
	Engine      string // "MergeTree" unless said otherwise
	PartitionBy string // ClickHouse expression
	OrderBy     string // ClickHouse expression list without parentheses
	TimeColumn  string // the column that a piece's time range speaks of
	// MACColumn is the column a piece's MAC list speaks of; "" when the table has none.
	MACColumn string
	Indexes   []string // ClickHouse index definitions
	Settings  []string // name=value
	Comment   string
}

// ArrowSchema gives the schema that every record batch of the table has.
//
// Shape: the columns in the table's order, none nullable.
func (t Table) ArrowSchema() *arrow.Schema {
	fields := make([]arrow.Field, len(t.Columns))
	for i, c := range t.Columns {
		fields[i] = arrow.Field{Name: c.Name, Type: c.Arrow}
	}
	return arrow.NewSchema(fields, nil)
}

// Of gives the table as record batches of n columns have it: cut behind the first
// n, where Required allows that.
func (t Table) Of(n int) Table {
	if t.Required > 0 && n >= t.Required && n < len(t.Columns) {
		t.Columns, t.Required = t.Columns[:n], 0
	}
	return t
}

// Made gives the table with the columns that it is made with.
func (t Table) Made() Table {
	if t.Bare {
		return t.Of(t.Required)
	}
	return t
}

// Index gives the place of the named column, or -1.
func (t Table) Index(name string) int {
	for i, c := range t.Columns {
		if c.Name == name {
			return i
		}
	}
	return -1
}

// Arrow types used by the tables.
var (
	// TimeMS is a point in time in milliseconds, UTC.
	TimeMS = &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}
	// Address is 16 bytes, network order, IPv4 mapped into ::ffff:0:0/96.
	Address = &arrow.FixedSizeBinaryType{ByteWidth: 16}
	// Word is text from a closed list: a dictionary with one-byte indices.
	Word = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint8, ValueType: arrow.BinaryTypes.String}
	// Name is repeated open text: a dictionary with four-byte indices.
	Name = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint32, ValueType: arrow.BinaryTypes.String}
)
