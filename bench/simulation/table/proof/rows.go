package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/bench/simulation/table"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// days is how many partitions a script uses.
const days = 4

var firstDay = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func start(day int) time.Time { return firstDay.AddDate(0, 0, day) }

func partition(day int) string { return start(day).Format("20060102") }

// row is one row of a script.
type row struct {
	day int
	v   uint64
	pad int // bytes of filling, behind which a third as many make the tail
}

// text is the row as the model has it.
func (r row) text(batch pipeline.BatchID) table.Row {
	return fmt.Sprintf("%s/%d/%d/%d", partition(r.day), uint64(batch), r.v, r.pad)
}

// values gives the row as SQL writes it.
func (r row) values(batch pipeline.BatchID) string {
	return fmt.Sprintf("('%s', %d, %d, '%s')", start(r.day).Format("2006-01-02 15:04:05.000"), uint64(batch), r.v, strings.Repeat("x", r.pad))
}

// parts cuts rows into blocks and their parts, as the engine does: every block goes
// to its partitions in the order in which they first appear.
func parts(batch pipeline.BatchID, rows []row, block int) [][]table.Part {
	var blocks [][]table.Part
	for len(rows) > 0 {
		n := min(block, len(rows))
		var made []table.Part
		places := map[int]int{}
		for _, r := range rows[:n] {
			i, there := places[r.day]
			if !there {
				i = len(made)
				places[r.day] = i
				made = append(made, table.Part{Partition: partition(r.day)})
			}
			made[i].Rows = append(made[i].Rows, r.text(batch))
		}
		blocks, rows = append(blocks, made), rows[n:]
	}
	return blocks
}

// ref names the piece of a day.
func ref(name string, day int, rows int) pipeline.PieceRef {
	return pipeline.PieceRef{
		Table: name, Partition: partition(day), Rows: int64(rows),
		MinTime: start(day).UnixMilli(), MaxTime: start(day+1).UnixMilli() - 1,
	}
}

// piece makes a record of the rows. The caller releases it.
func piece(t schemas.Table, batch pipeline.BatchID, rows []row) pipeline.Piece {
	b := array.NewRecordBuilder(memory.DefaultAllocator, t.ArrowSchema())
	defer b.Release()
	p := pipeline.Piece{PieceRef: ref(t.Name, rows[0].day, len(rows))}
	for _, r := range rows {
		b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(start(r.day).UnixMilli()))
		b.Field(1).(*array.Uint64Builder).Append(uint64(batch))
		b.Field(2).(*array.Uint64Builder).Append(r.v)
		b.Field(3).(*array.StringBuilder).Append(strings.Repeat("x", r.pad))
		b.Field(4).(*array.StringBuilder).Append(strings.Repeat("x", r.pad/3))
		p.MaxTime = max(p.MaxTime, start(r.day+1).UnixMilli()-1)
		p.MinTime = min(p.MinTime, start(r.day).UnixMilli())
	}
	p.Record = b.NewRecord()
	return p
}
