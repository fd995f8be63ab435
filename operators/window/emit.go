package window

import (
	"cmp"
	"slices"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

const dayMS = 24 * 60 * 60 * 1000

// close gives the rows of the windows that are closed at the watermark and forgets
// the windows. Windows of late rows are among them: they were closed before.
func (w *windows) close(watermark pipeline.Watermark, batch pipeline.BatchID, alloc memory.Allocator) []pipeline.Piece {
	var closing []*window
	for start, win := range w.open {
		if w.closesBy(start, watermark) {
			closing = append(closing, win)
		}
	}
	slices.SortFunc(closing, func(a, b *window) int { return cmp.Compare(a.start, b.start) })
	var pieces []pipeline.Piece
	for len(closing) > 0 {
		day := floorDay(closing[0].start)
		n := 1
		for n < len(closing) && floorDay(closing[n].start) == day {
			n++
		}
		pieces = append(pieces, w.piece(closing[:n], batch, alloc))
		for _, win := range closing[:n] {
			if !win.late {
				w.stats.Closed++
			}
			if mutant.On(mutant.WindowTwice) {
				continue
			}
			w.drop(win)
		}
		closing = closing[n:]
	}
	return pieces
}

func floorDay(ms int64) int64 { return ms - ((ms%dayMS)+dayMS)%dayMS }

// piece makes one piece of windows of one day, which are in the order of time.
func (w *windows) piece(closing []*window, batch pipeline.BatchID, alloc memory.Allocator) pipeline.Piece {
	ranks := w.rank(closing)
	rows := 0
	for _, win := range closing {
		rows += win.count
	}
	out := newOutput(w, rows, alloc)
	defer out.release()
	for _, win := range closing {
		out.add(win, w.sorted(win.groups, ranks), batch)
	}
	first, last := closing[0].start, closing[len(closing)-1].start
	return pipeline.Piece{
		PieceRef: pipeline.PieceRef{
			Table: w.table.Name, Partition: time.UnixMilli(first).UTC().Format("20060102"),
			Rows: int64(rows), MinTime: first, MaxTime: last,
		},
		Record: out.record(ranks),
	}
}

// rank orders the texts of the windows' groups, by field; a field that is no text
// has an empty ranking.
func (w *windows) rank(wins []*window) []ranking {
	ranks := make([]ranking, len(w.fields))
	for i, f := range w.fields {
		if !f.isText() {
			continue
		}
		marks := make([]bool, len(w.keys[i].texts.texts))
		for _, win := range wins {
			win.mark(f, marks)
		}
		ranks[i] = w.keys[i].texts.rank(marks)
	}
	return ranks
}

// dictionary makes a column of texts out of codes and the texts they stand for.
func dictionary(t arrow.DataType, codes arrow.Array, values []string, alloc memory.Allocator) arrow.Array {
	b := array.NewStringBuilder(alloc)
	defer b.Release()
	b.AppendValues(values, nil)
	dict := b.NewArray()
	defer dict.Release()
	return array.NewDictionaryArray(t, codes, dict)
}
