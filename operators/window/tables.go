package window

import (
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/schemas"
)

// Registers is the type of a distinct_<column>: HyperLogLog registers that are not
// zero, by their index.
var Registers = registersType()

func registersType() *arrow.MapType {
	t := arrow.MapOf(arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint8)
	t.SetItemNullable(false)
	return t
}

// Places of the columns that every table has: two first, three last, rows behind
// the group columns.
const (
	windowStart = 0
	windowEnd   = 1
	firstGroup  = 2
)

// Table gives the table that the windows are written to.
//
// Shape: window_start, window_end, the group columns, rows, the sums, distinct_*,
// correction, overflow, batch_id; none nullable. Texts are dictionaries with
// four-byte indices, also where flows has one-byte ones.
func (c Config) Table() schemas.Table {
	columns := []schemas.Column{
		{Name: "window_start", Arrow: schemas.TimeMS, ClickHouse: "DateTime64(3, 'UTC')", Codec: "DoubleDelta, ZSTD(1)", Unit: "ms UTC", Meaning: "First instant of the window.", Source: "time"},
		{Name: "window_end", Arrow: schemas.TimeMS, ClickHouse: "DateTime64(3, 'UTC')", Codec: "DoubleDelta, ZSTD(1)", Unit: "ms UTC", Meaning: "First instant behind the window.", Source: "time"},
	}
	for _, name := range c.GroupBy {
		column := flowColumn(name)
		column.Meaning += " Empty or 0 in the overflow row."
		if kindOf(column.Arrow) == kindWord {
			column.Arrow = schemas.Name
		}
		columns = append(columns, column)
	}
	columns = append(columns, schemas.Column{Name: "rows", Arrow: arrow.PrimitiveTypes.Uint64, ClickHouse: "UInt64", Codec: "T64, ZSTD(1)", Unit: "rows", Meaning: "Flow rows, as logged.", Source: "flows"})
	for _, name := range c.Sums {
		column := flowColumn(name)
		column.Meaning = "Sum of " + name + " over the rows."
		columns = append(columns, column)
	}
	for _, name := range c.Distinct {
		columns = append(columns, schemas.Column{Name: "distinct_" + name, Arrow: Registers, ClickHouse: "Map(UInt16, UInt8)", Codec: "ZSTD(1)", Meaning: "HyperLogLog registers of " + name + " that are not 0: merge with maxMap; windows_" + c.Name + "_merged has the estimate.", Source: name})
	}
	columns = append(columns,
		schemas.Column{Name: "correction", Arrow: arrow.PrimitiveTypes.Uint8, ClickHouse: "UInt8", Codec: "ZSTD(1)", Meaning: "0: written when the window closed. 1: rows that came later, to be added.", Source: "watermark"},
		schemas.Column{Name: "overflow", Arrow: arrow.PrimitiveTypes.Uint8, ClickHouse: "UInt8", Codec: "ZSTD(1)", Meaning: "1: all keys of the window that found no room of their own.", Source: "max_groups"},
		schemas.Column{Name: "batch_id", Arrow: arrow.PrimitiveTypes.Uint64, ClickHouse: "UInt64", Codec: "ZSTD(1)", Meaning: "Commit that landed the row: ledger (16 bits), shard (12), sequence (36).", Source: "ledger"},
	)
	return schemas.Table{
		Name: "windows_" + c.Name, Columns: columns, Engine: "MergeTree",
		PartitionBy: "toYYYYMMDD(window_start)",
		OrderBy:     strings.Join(append([]string{"window_start"}, c.GroupBy...), ", "),
		TimeColumn:  "window_start",
		Indexes:     []string{"batch_id_range batch_id TYPE minmax GRANULARITY 4"},
		Comment:     fmt.Sprintf("Windows of %v over flow rows as logged. Rows of one group are partial and add up; read them merged from windows_%s_merged.", c.Size, c.Name),
	}
}

// flowColumn gives a column of flows that Validate found to be there.
func flowColumn(name string) schemas.Column {
	return schemas.EnrichedFlows.Columns[schemas.EnrichedFlows.Index(name)]
}

// View gives the view windows_<name>_merged: one row for each window and group,
// with shards' partial rows and corrections added up.
//
// Shape: window_start, window_end, the group columns, overflow, rows, the sums,
// distinct_* as estimates (UInt64), corrections (UInt64: how many correction rows
// were added).
func (c Config) View() schemas.View {
	keys := append([]string{"window_start", "window_end"}, c.GroupBy...)
	keys = append(keys, "overflow")
	outer := append(append([]string{}, keys...), "rows")
	inner := append(append([]string{}, keys...), "sum(w.rows) AS rows")
	for _, name := range c.Sums {
		outer = append(outer, name)
		inner = append(inner, fmt.Sprintf("sum(w.%[1]s) AS %[1]s", name))
	}
	for _, name := range c.Distinct {
		outer = append(outer, fmt.Sprintf("toUInt64(round(%s)) AS distinct_%s", sketch.EstimateSQL("registers_"+name), name))
		inner = append(inner, fmt.Sprintf("maxMap(w.distinct_%[1]s) AS registers_%[1]s", name))
	}
	outer = append(outer, "corrections")
	inner = append(inner, "sum(w.correction) AS corrections")
	return schemas.View{
		Name: "windows_" + c.Name + "_merged",
		Select: fmt.Sprintf("SELECT %s\nFROM (\n  SELECT %s\n  FROM windows_%s AS w\n  GROUP BY %s\n)",
			strings.Join(outer, ", "), strings.Join(inner, ", "), c.Name, strings.Join(keys, ", ")),
		Comment: fmt.Sprintf("windows_%s with partial rows and corrections added up: one row for each window and group.", c.Name),
	}
}
