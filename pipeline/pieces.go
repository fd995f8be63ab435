package pipeline

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline/mutant"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rows"
)

const (
	maxMACs = 64 // a piece lists its MACs up to this many
	msInDay = 24 * 60 * 60 * 1000
)

// Pieces makes one piece for each UTC day of the rows of table t, in the order of
// days; within a piece rows keep their order. It takes rec over; nil or a record
// batch without rows gives none.
//
// Shape: that of rec, which has the table's columns or the first of them, among them
// that of its time. With rows of several days, what rows.Select wants. The caller
// releases each piece.
func Pieces(alloc memory.Allocator, t schemas.Table, rec arrow.Record) []Piece {
	if rec == nil {
		return nil
	}
	times := rec.Column(t.Index(t.TimeColumn)).(*array.Timestamp).TimestampValues()
	if len(times) == 0 {
		rec.Release()
		return nil
	}
	lowest, highest := times[0], times[0]
	for _, at := range times {
		lowest, highest = min(lowest, at), max(highest, at)
	}
	if lowest/msInDay == highest/msInDay {
		return []Piece{piece(t, rec, int64(lowest), int64(highest))}
	}
	defer rec.Release()
	byDay := map[int64][]int32{}
	for i, at := range times {
		byDay[int64(at)/msInDay] = append(byDay[int64(at)/msInDay], int32(i))
	}
	pieces := make([]Piece, 0, len(byDay))
	for _, day := range byDay {
		lo, hi := times[day[0]], times[day[0]]
		for _, row := range day {
			lo, hi = min(lo, times[row]), max(hi, times[row])
		}
		pieces = append(pieces, piece(t, rows.Select(alloc, rec, day), int64(lo), int64(hi)))
	}
	slices.SortFunc(pieces, func(x, y Piece) int { return cmp.Compare(x.MinTime, y.MinTime) })
	if mutant.On(mutant.SecondDayDropped) {
		pieces = pieces[:1]
	}
	return pieces
}

// dayOf names the partition of a time in ms UTC.
func dayOf(ms int64) string { return time.UnixMilli(ms).UTC().Format("20060102") }

func piece(t schemas.Table, rec arrow.Record, lo, hi int64) Piece {
	p := Piece{
		PieceRef: PieceRef{Table: t.Name, Partition: dayOf(lo), Rows: rec.NumRows(), MinTime: lo, MaxTime: hi},
		Record:   rec,
	}
	if t.MACColumn != "" {
		p.MACs = distinct(rec.Column(t.Index(t.MACColumn)).(*array.Dictionary))
	}
	return p
}

// distinct lists the names that rows use, sorted; nil when they are too many for a
// probe by name.
func distinct(column *array.Dictionary) []string {
	names := column.Dictionary().(*array.String)
	seen := make([]bool, names.Len())
	var out []string
	for _, code := range column.Indices().(*array.Uint32).Uint32Values() {
		if seen[code] {
			continue
		}
		if len(out) == maxMACs {
			return nil
		}
		seen[code] = true
		out = append(out, strings.Clone(names.Value(int(code)))) // the text lies in the record's memory
	}
	slices.Sort(out)
	return out
}
