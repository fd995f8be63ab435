package world

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/bench/simulation/audit"
	"github.com/millrace/millrace/bench/simulation/table"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/mutant"
	"github.com/millrace/millrace/pipeline/shard"
	"github.com/millrace/millrace/schemas"
)

// target is a ClickHouse server and the network before it.
type target struct {
	w       *World
	server  *table.Server
	columns map[string][]int // of the rows' texts, by table
	serial  int
	landed  map[string]bool // tuples, by address and counter
	away    time.Duration   // nobody gets through before that time
}

func newTarget(w *World) *target {
	t := &target{w: w, server: table.New(table.Options{}), landed: map[string]bool{}}
	t.columns = map[string][]int{schemas.Flows.Name: flowColumns, schemas.Quarantine.Name: quarantineColumns}
	for _, c := range w.plan.Windows {
		t.columns[c.Table().Name] = windowColumns(c.Table(), c.GroupBy)
	}
	for _, name := range append(windowTables(w.plan.Windows), schemas.Flows.Name, schemas.Quarantine.Name, schemas.Batches.Name) {
		t.server.Create(name)
	}
	return t
}

func windowTables(list []window.Config) []string {
	var names []string
	for _, c := range list {
		names = append(names, c.Table().Name)
	}
	return names
}

// address of a tuple, as it is landed or refused.
func address(blob string, offset int64, ordinal int, number uint64) string {
	return fmt.Sprintf("%s %d %d %d", blob, offset, ordinal, number)
}

// has says whether a tuple has landed, in flows or in quarantine.
func (t *target) has(u audit.Tuple) bool {
	number := u.Number
	if u.Reason != "" {
		number = 0
	}
	return t.landed[address(u.Blob, u.Offset, u.Ordinal, number)]
}

// took notes what an INSERT has brought, if it is there.
func (t *target) took(in table.Insert) {
	if t.server.Up() && t.server.Count(in.Table, in.Batch)[in.Partition] == 0 {
		return
	}
	switch in.Table {
	case schemas.Flows.Name:
		for _, row := range in.Rows {
			r := parseRow(row)
			t.landed[address(r.Blob, r.Offset, r.Ordinal, r.Number)] = true
		}
	case schemas.Quarantine.Name:
		for _, row := range in.Rows {
			r := parseRejected(row)
			t.landed[address(r.Blob, r.Offset, r.Ordinal, 0)] = true
		}
	}
}

// insert makes the statement of a piece.
func (t *target) insert(p *process, id int, a shard.Land) table.Insert {
	batch, piece := p.engine.Piece(id, a)
	t.serial++
	in := table.Insert{
		Query: fmt.Sprint("q", t.serial), Table: piece.Table, Partition: piece.Partition, Batch: uint64(batch),
		Rows: texts(piece.Record, t.columns[piece.Table]), Ledger: batch.Ledger(), Shard: id, Epoch: a.Epoch,
	}
	switch {
	case mutant.On(mutant.InsertUnfenced):
		in.Epoch = 0
	case mutant.On(mutant.InsertHalf):
		in.Rows = in.Rows[:(len(in.Rows)+1)/2]
	case mutant.On(mutant.InsertRenumbered):
		in.Batch += uint64(t.serial) << 20
	}
	return in
}

// land sends an INSERT; answer hears what the sender hears, if it lives still.
func (t *target) land(in table.Insert, answer func(error)) {
	w := t.w
	w.say("insert", in.Table, int64(in.Batch), int64(in.Epoch), int64(len(in.Rows)))
	lost := func() { answer(classify(table.ErrLost)) }
	switch {
	case w.now < t.away:
		answer(fmt.Errorf("%w: %w", pipeline.ErrTransient, table.ErrDown))
	case w.hit(InsertRefused):
		errs := []error{table.ErrReadOnly, table.ErrTooManyParts, table.ErrNoSpace, table.ErrTooManyQueries}
		t.server.Refuse(errs[w.rng.IntN(len(errs))], 1)
		t.begin(in, answer)
	case w.hit(InsertUnsent):
		lost()
	case w.hit(InsertLate):
		// It stands in some buffer, and comes when nobody waits for it any more.
		lost()
		w.after(between(w.rng, time.Second, 3*time.Minute), func() { t.begin(in, func(error) {}) })
	case w.hit(InsertKilled):
		_ = t.server.InsertKilled(in, table.Point(w.rng.IntN(4)))
		t.server.Restart() // to look at what it left
		t.took(in)
		t.down()
		lost()
	case w.hit(InsertUnanswered):
		t.begin(in, func(error) { lost() })
	default:
		t.begin(in, answer)
	}
}

// begin lets the server run the INSERT.
func (t *target) begin(in table.Insert, answer func(error)) {
	if err := t.server.Begin(in); err != nil {
		answer(classify(err))
		return
	}
	took := t.w.delay(50 * time.Millisecond)
	if t.w.hit(InsertSlow) {
		took += between(t.w.rng, time.Second, time.Minute)
	}
	t.w.after(took, func() {
		err := t.server.End(in.Query)
		if err == nil {
			t.took(in)
		} else {
			err = table.ErrLost // it had begun
		}
		t.w.say("inserted", in.Table, int64(in.Batch))
		answer(classify(err))
	})
}

// classify says what the sink makes of a server's error.
func classify(err error) error {
	class := table.ClassOf(err)
	switch class {
	case table.Landed:
		return nil
	case table.Fenced:
		return fmt.Errorf("%w: %w", pipeline.ErrFenced, err)
	case table.Transient:
		return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	case table.InDoubt:
		if mutant.On(mutant.DoubtIsTransient) {
			return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
		}
		return fmt.Errorf("%w: %w", pipeline.ErrInDoubt, err)
	case table.Fatal:
	}
	return err
}

// down ends the server, and starts it again some time later.
func (t *target) down() {
	t.server.Kill()
	t.w.after(between(t.w.rng, 300*time.Millisecond, 20*time.Second), t.server.Restart)
}

// sink is the target as one process sees it. Land is not called: the process sends
// what it lands by itself, because it takes time.
type sink struct{ p *process }

var _ pipeline.Sink = sink{}

func (sink) Land(context.Context, pipeline.BatchID, uint64, pipeline.Piece) error {
	panic("a piece is landed behind the world's back")
}

var errNoAnswer = fmt.Errorf("%w: no answer", pipeline.ErrTransient)

// ask says whether a question gets through.
func (s sink) ask() error {
	t := s.p.w.target
	if t.w.now < t.away || !t.server.Up() || t.w.hit(QuestionFailed) {
		return errNoAnswer
	}
	return nil
}

// Fence implements pipeline.Sink.
func (s sink) Fence(_ context.Context, ledger uint16, id int, epoch uint64) error {
	t := s.p.w.target
	if err := s.ask(); err != nil {
		if t.w.rng.IntN(2) == 0 && t.w.now >= t.away {
			_ = t.server.Fence(ledger, id, epoch) // the answer is lost
		}
		return err
	}
	if err := t.server.Fence(ledger, id, epoch); err != nil {
		return classify(err)
	}
	t.w.say("fence", s.p.name, int64(id), int64(epoch))
	if n := len(t.server.Running(ledger, id, epoch)); n > 0 && !mutant.On(mutant.FenceUnwaited) {
		return fmt.Errorf("%w: %d older INSERTs still run", pipeline.ErrTransient, n)
	}
	return nil
}

// Probe implements pipeline.Sink.
func (s sink) Probe(_ context.Context, batch pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	if err := s.ask(); err != nil {
		return nil, err
	}
	rows := make([]int64, len(pieces))
	for i, p := range pieces {
		rows[i] = s.p.w.target.server.Count(p.Table, uint64(batch))[p.Partition]
	}
	s.p.w.say("probe", s.p.name, append([]int64{int64(batch)}, rows...)...)
	return rows, nil
}

// LandBatches implements engine.Checkpoints.
func (s sink) LandBatches(context.Context, []pipeline.Manifest) error { return s.ask() }

var _ engine.Checkpoints = sink{}
