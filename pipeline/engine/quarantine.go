package engine

import (
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// rejected is an entry of the open batch for the table quarantine.
type rejected struct {
	unit   pipeline.Unit
	reject pipeline.Reject
}

// time is the hour of the blob's path, or the clock that the unit carries: like
// everything else about it, a function of the manifest and the bytes.
func (r rejected) time() time.Time {
	if hour, ok := r.unit.Blob.Hour(); ok {
		return hour
	}
	return time.UnixMilli(r.unit.Clock).UTC()
}

// QuarantinePieces gives the entries of what was refused of one unit, as the batch
// lands them: one piece a day.
//
// Shape: schemas.Quarantine; the caller releases the pieces.
func QuarantinePieces(alloc memory.Allocator, id pipeline.BatchID, u pipeline.Unit, rejects []pipeline.Reject) []pipeline.Piece {
	entries := make([]rejected, len(rejects))
	for i, r := range rejects {
		entries[i] = rejected{unit: u, reject: r}
	}
	return quarantinePieces(alloc, id, entries)
}

// quarantinePieces gives one piece a day.
//
// Shape: schemas.Quarantine; the caller releases the records.
func quarantinePieces(alloc memory.Allocator, id pipeline.BatchID, entries []rejected) []pipeline.Piece {
	var days []string
	byDay := map[string][]rejected{}
	for _, e := range entries {
		day := e.time().Format("20060102")
		if byDay[day] == nil {
			days = append(days, day)
		}
		byDay[day] = append(byDay[day], e)
	}
	var pieces []pipeline.Piece
	for _, day := range days {
		pieces = append(pieces, quarantinePiece(alloc, id, day, byDay[day]))
	}
	return pieces
}

func quarantinePiece(alloc memory.Allocator, id pipeline.BatchID, day string, entries []rejected) pipeline.Piece {
	b := array.NewRecordBuilder(alloc, schemas.Quarantine.ArrowSchema())
	defer b.Release()
	p := pipeline.Piece{PieceRef: pipeline.PieceRef{Table: schemas.Quarantine.Name, Partition: day, Rows: int64(len(entries))}}
	for i, e := range entries {
		t := e.time().UnixMilli()
		if i == 0 || t < p.MinTime {
			p.MinTime = t
		}
		p.MaxTime = max(p.MaxTime, t)
		b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(t))
		text := func(i int, s string) {
			if err := b.Field(i).(*array.BinaryDictionaryBuilder).AppendString(s); err != nil {
				panic("BUG: quarantine dictionary: " + err.Error())
			}
		}
		text(1, string(e.reject.Reason))
		b.Field(2).(*array.StringBuilder).Append(strings.ToValidUTF8(e.reject.Detail, "\uFFFD"))
		text(3, e.reject.Scope)
		text(4, e.unit.Blob.String())
		b.Field(5).(*array.Uint32Builder).Append(e.unit.Generation)
		b.Field(6).(*array.Uint64Builder).Append(uint64(e.reject.Offset))
		b.Field(7).(*array.Uint32Builder).Append(e.reject.Ordinal)
		b.Field(8).(*array.Uint64Builder).Append(uint64(e.reject.Length))
		b.Field(9).(*array.StringBuilder).Append(strings.ToValidUTF8(e.reject.Excerpt, "\uFFFD"))
		b.Field(10).(*array.Uint64Builder).Append(uint64(id))
	}
	p.Record = b.NewRecord()
	return p
}
