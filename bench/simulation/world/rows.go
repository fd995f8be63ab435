package world

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/bench/simulation/audit"
	"github.com/millrace/millrace/schemas"
)

// tab parts the values of a row's text. No name in the simulation has one.
const tab = "\t"

// texts gives the rows of a record as text, with these columns.
func texts(rec arrow.Record, columns []int) []string {
	rows := make([]string, rec.NumRows())
	values := make([]func(int) string, len(columns))
	for i, c := range columns {
		values[i] = valuesOf(rec.Column(c))
	}
	var b strings.Builder
	for row := range rows {
		b.Reset()
		for i, value := range values {
			if i > 0 {
				b.WriteString(tab)
			}
			b.WriteString(value(row))
		}
		rows[row] = b.String()
	}
	return rows
}

// valuesOf gives the texts of a column. It is written anew here, and not taken from
// the product, because the auditor reads what it gives.
func valuesOf(column arrow.Array) func(row int) string {
	switch c := column.(type) {
	case *array.Timestamp:
		return func(row int) string { return strconv.FormatInt(int64(c.Value(row)), 10) }
	case *array.Uint8:
		return func(row int) string { return strconv.FormatUint(uint64(c.Value(row)), 10) }
	case *array.Uint16:
		return func(row int) string { return strconv.FormatUint(uint64(c.Value(row)), 10) }
	case *array.Uint32:
		return func(row int) string { return strconv.FormatUint(uint64(c.Value(row)), 10) }
	case *array.Uint64:
		return func(row int) string { return strconv.FormatUint(c.Value(row), 10) }
	case *array.String:
		return c.Value
	case *array.Dictionary:
		words := valuesOf(c.Dictionary())
		return func(row int) string { return words(c.GetValueIndex(row)) }
	case *array.FixedSizeBinary:
		return func(row int) string { return addressText(c.Value(row)) }
	}
	panic(fmt.Sprintf("a column of %v", column.DataType()))
}

// addressText is dotted for an IPv4 address.
func addressText(b []byte) string { return netip.AddrFrom16([16]byte(b)).Unmap().String() }

// flowColumns are those of the flows that the auditor knows, in the order of parseRow.
var flowColumns = places(schemas.Flows, "bytes_sent", "blob", "generation", "record_offset", "ordinal", "time", "mac",
	"src_ip", "dst_ip", "src_port", "dst_port", "protocol", "action", "packets_sent", "bytes_received", "batch_id")

// quarantineColumns in the order of parseRejected.
var quarantineColumns = places(schemas.Quarantine, "blob", "generation", "record_offset", "ordinal", "reason", "batch_id")

func places(t schemas.Table, names ...string) []int {
	all := make([]int, len(names))
	for i, name := range names {
		if all[i] = t.Index(name); all[i] < 0 {
			panic("no column " + name)
		}
	}
	return all
}

// fields reads the values of a row's text.
type fields []string

func (f *fields) text() string {
	s := (*f)[0]
	*f = (*f)[1:]
	return s
}

func (f *fields) number() uint64 {
	n, err := strconv.ParseUint(f.text(), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func parseRow(text string) audit.Row {
	f := fields(strings.Split(text, tab))
	var r audit.Row
	r.Number, r.Blob, r.Generation, r.Offset, r.Ordinal = f.number(), f.text(), int(f.number()), int64(f.number()), int(f.number())
	r.TimeMS, r.MAC, r.Src, r.Dst = int64(f.number()), f.text(), f.text(), f.text()
	r.SrcPort, r.DstPort, r.Protocol, r.Allowed = int(f.number()), int(f.number()), int(f.number()), f.text() == "allowed"
	r.Packets, r.Bytes, r.BatchID = f.number(), f.number(), f.number()
	return r
}

func parseRejected(text string) audit.Rejected {
	f := fields(strings.Split(text, tab))
	return audit.Rejected{
		Blob: f.text(), Generation: int(f.number()), Offset: int64(f.number()), Ordinal: int(f.number()), Reason: f.text(), BatchID: f.number(),
	}
}

// windowColumns of a table: window_start, the group columns, then the others.
func windowColumns(t schemas.Table, groupBy []string) []int {
	names := append([]string{"window_start"}, groupBy...)
	return places(t, append(names, "rows", "packets_sent", "bytes_sent", "correction", "overflow", "batch_id")...)
}

func parseWindow(table string, groups int, text string) audit.WindowRow {
	f := fields(strings.Split(text, tab))
	r := audit.WindowRow{Table: table, StartMS: int64(f.number())}
	for range groups {
		r.Key = append(r.Key, f.text())
	}
	r.Rows, r.Packets, r.Bytes, r.Late = f.number(), f.number(), f.number(), f.number() == 1
	if f.number() != 0 {
		r.Key = append(r.Key, "overflow")
	}
	r.BatchID = f.number()
	return r
}
