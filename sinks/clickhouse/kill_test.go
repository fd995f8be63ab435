package clickhouse

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// The server is killed (-9) at random moments while three writers land batches of
// three pieces. After each death: start, fence, probe, land what is missing. At
// the end every piece is there once.
func TestKilledServerLandsExactlyOnce(t *testing.T) {
	eachWire(t, killedServer)
}

func killedServer(t *testing.T, wire string) {
	const (
		kills  = 6
		shards = 3
		rows   = 20_000
	)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	l := startLasting(t, wire)
	writers := make([]*writer, shards)
	for i := range writers {
		writers[i] = &writer{t: t, l: l, shard: i, rows: rows}
	}
	for range kills {
		var wg sync.WaitGroup
		for _, w := range writers {
			w.take()
			wg.Go(w.run)
		}
		time.Sleep(time.Duration(50+random.IntN(450)) * time.Millisecond)
		l.mu.Lock()
		l.ch.Kill()
		l.mu.Unlock()
		wg.Wait()
	}
	total, doubts := int64(0), 0
	for _, w := range writers {
		w.take()
		w.finish()
		total += w.landed.Load()
		doubts += w.doubts
	}
	if got := ask(t, l.sink(), "SELECT count() FROM flows"); got != strconv.FormatInt(total, 10) {
		t.Errorf("flows has %s rows, want %d", got, total)
	}
	uneven := ask(t, l.sink(), "SELECT batch_id, toYYYYMMDD(time) AS day, count() AS n FROM flows GROUP BY batch_id, day HAVING n != 20000")
	if uneven != "" {
		t.Errorf("batches that are not whole: %s", uneven)
	}
	t.Logf("%d rows, %d kills, %d INSERTs in doubt, %d starts of the server", total, kills, doubts, l.starts)
}

// revived is the target of writers: one server or several, started again when they have ended.
type revived interface {
	sink() *Sink
	fence(ledger uint16, shard int, epoch uint64)
	probe(batch pipeline.BatchID, pieces ...pipeline.PieceRef) []int64
}

// writer lands batch after batch of one shard, as an owner does.
type writer struct {
	t      *testing.T
	l      revived
	shard  int
	rows   int
	epoch  uint64
	seq    uint64
	open   []pipeline.Piece // of the batch at seq, not known to have landed
	landed atomic.Int64
	doubts int
	stop   atomic.Bool
}

// take takes the shard over: fence, then probe the open batch.
func (w *writer) take() {
	w.epoch++
	w.l.fence(1, w.shard, w.epoch)
	if len(w.open) == 0 {
		return
	}
	refs := make([]pipeline.PieceRef, len(w.open))
	for i, p := range w.open {
		refs[i] = p.PieceRef
	}
	var missing []pipeline.Piece
	for i, n := range w.l.probe(w.batch(), refs...) {
		switch n {
		case 0:
			missing = append(missing, w.open[i])
		case w.open[i].Rows:
			w.done(w.open[i])
		default:
			w.t.Errorf("piece %d of batch %v has %d of %d rows", i, w.batch(), n, w.open[i].Rows)
		}
	}
	w.open = missing
}

func (w *writer) batch() pipeline.BatchID { return pipeline.NewBatchID(1, w.shard, w.seq) }

func (w *writer) done(p pipeline.Piece) {
	w.landed.Add(p.Rows)
	p.Record.Release()
}

// run lands until the server is gone, or the test says stop.
func (w *writer) run() {
	s := w.l.sink()
	for !w.stop.Load() {
		if len(w.open) == 0 {
			w.next(s)
		}
		for len(w.open) > 0 {
			err := s.Land(w.t.Context(), w.batch(), w.epoch, w.open[0])
			switch {
			case err == nil:
				w.done(w.open[0])
				w.open = w.open[1:]
			case errors.Is(err, pipeline.ErrInDoubt):
				w.doubts++
				return
			case errors.Is(err, pipeline.ErrTransient):
				return
			default:
				w.t.Error(err)
				return
			}
		}
	}
}

// next begins a batch of three days.
func (w *writer) next(s *Sink) {
	w.seq++
	for day := range 3 {
		p := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{
			Table: schemas.Flows, Batch: w.batch(), Seed: w.seq, Rows: w.rows, Day: sinktest.Day.AddDate(0, 0, day),
		})
		planned, err := s.Plan(w.batch(), []pipeline.Piece{p}, nil)
		if err != nil {
			w.t.Error(err)
		}
		p.Record.Release()
		w.open = append(w.open, planned...)
	}
}

// finish lands what is open.
func (w *writer) finish() {
	for _, p := range w.open {
		if err := w.l.sink().Land(w.t.Context(), w.batch(), w.epoch, p); err != nil {
			w.t.Error(err)
			continue
		}
		w.done(p)
	}
	w.open = nil
}
