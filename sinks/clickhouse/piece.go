package clickhouse

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// partitionName is what a partition may be called: it stands in query ids.
var partitionName = regexp.MustCompile(`^[A-Za-z0-9_]{0,64}$`)

// checkPiece refuses a piece whose reference does not describe its record. The
// reference is what a probe looks for: rows outside of it would be landed twice,
// so this is checked before anything is sent. Two passes over two columns: about
// 1 ms for 500,000 rows.
func checkPiece(t schemas.Table, p pipeline.Piece) error {
	if !partitionName.MatchString(p.Partition) {
		return fmt.Errorf("BUG: partition is no plain name")
	}
	if p.Record == nil {
		return errors.New("BUG: the piece has no record")
	}
	rows := p.Record.NumRows()
	switch {
	case p.Rows != rows:
		return fmt.Errorf("BUG: the piece says %d rows and has %d", p.Rows, rows)
	case rows > MaxPieceRows:
		return fmt.Errorf("BUG: the piece has %d rows, more than %d", rows, MaxPieceRows)
	}
	if err := sameSchema(t, p.Record.Schema()); err != nil {
		return err
	}
	if rows == 0 {
		return nil
	}
	for i, col := range p.Record.Columns() {
		if col.NullN() > 0 {
			return fmt.Errorf("BUG: column %q has %d nulls", t.Columns[i].Name, col.NullN())
		}
	}
	if t.TimeColumn != "" {
		if err := checkTimes(p, p.Record.Column(t.Index(t.TimeColumn))); err != nil {
			return err
		}
	}
	if t.MACColumn != "" && len(p.MACs) > 0 {
		return checkMACs(p, p.Record.Column(t.Index(t.MACColumn)))
	}
	return nil
}

// sameSchema compares names and types; metadata and nullability do not matter.
func sameSchema(t schemas.Table, have *arrow.Schema) error {
	want := t.ArrowSchema()
	if have.NumFields() != want.NumFields() {
		return fmt.Errorf("BUG: the record has %d columns, want %d", have.NumFields(), want.NumFields())
	}
	for i, f := range want.Fields() {
		if g := have.Field(i); g.Name != f.Name || !arrow.TypeEqual(g.Type, f.Type) {
			return fmt.Errorf("BUG: column %d of the record is %q %v, want %q %v", i, g.Name, g.Type, f.Name, f.Type)
		}
	}
	return nil
}

func checkTimes(p pipeline.Piece, col arrow.Array) error {
	times, ok := col.(*array.Timestamp)
	if !ok {
		return fmt.Errorf("BUG: the time column is %v, want a timestamp", col.DataType())
	}
	lo, hi := times.Value(0), times.Value(0)
	for _, v := range times.TimestampValues() {
		lo, hi = min(lo, v), max(hi, v)
	}
	if int64(lo) < p.MinTime || int64(hi) > p.MaxTime {
		return fmt.Errorf("BUG: the piece says times %d to %d and has %d to %d", p.MinTime, p.MaxTime, lo, hi)
	}
	return nil
}

func checkMACs(p pipeline.Piece, col arrow.Array) error {
	macs, ok := col.(*array.Dictionary)
	if !ok {
		return nil // Text without a dictionary: nobody promised one.
	}
	values, ok := macs.Dictionary().(*array.String)
	if !ok {
		return fmt.Errorf("BUG: the mac column is a dictionary of %v", macs.Dictionary().DataType())
	}
	known := make(map[string]bool, len(p.MACs))
	for _, m := range p.MACs {
		known[m] = true
	}
	listed := make([]bool, values.Len())
	for i := range listed {
		listed[i] = known[values.Value(i)]
	}
	for i := range macs.Len() {
		if v := macs.GetValueIndex(i); !listed[v] {
			return fmt.Errorf("BUG: the piece has rows of MAC %q, which it does not list", values.Value(v))
		}
	}
	return nil
}
