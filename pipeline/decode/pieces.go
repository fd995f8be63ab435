package decode

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rows"
)

// Pieces makes one piece of flow rows for each UTC day, in the order of days;
// within a piece rows keep their order. It takes rec over; nil or a record batch
// without rows gives none.
//
// Shape: that of rec, whose first columns are those of schemas.Flows. The caller
// releases each piece's record.
func Pieces(alloc memory.Allocator, rec arrow.Record) []pipeline.Piece {
	if rec == nil {
		return nil
	}
	times := rec.Column(colTime).(*array.Timestamp).TimestampValues()
	if len(times) == 0 {
		rec.Release()
		return nil
	}
	lowest, highest := times[0], times[0]
	for _, t := range times {
		lowest, highest = min(lowest, t), max(highest, t)
	}
	if lowest/msInDay == highest/msInDay {
		return []pipeline.Piece{piece(rec, int64(lowest), int64(highest))}
	}
	defer rec.Release()
	byDay := map[int64][]int32{}
	for i, t := range times {
		byDay[int64(t)/msInDay] = append(byDay[int64(t)/msInDay], int32(i))
	}
	pieces := make([]pipeline.Piece, 0, len(byDay))
	for _, day := range byDay {
		lo, hi := times[day[0]], times[day[0]]
		for _, row := range day {
			lo, hi = min(lo, times[row]), max(hi, times[row])
		}
		pieces = append(pieces, piece(rows.Select(alloc, rec, day), int64(lo), int64(hi)))
	}
	slices.SortFunc(pieces, func(x, y pipeline.Piece) int { return cmp.Compare(x.MinTime, y.MinTime) })
	return pieces
}

func piece(rec arrow.Record, lo, hi int64) pipeline.Piece {
	return pipeline.Piece{
		PieceRef: pipeline.PieceRef{
			Table: schemas.Flows.Name, Partition: time.UnixMilli(lo).UTC().Format("20060102"),
			Rows: rec.NumRows(), MinTime: lo, MaxTime: hi, MACs: distinct(rec.Column(colMAC).(*array.Dictionary)),
		},
		Record: rec,
	}
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
