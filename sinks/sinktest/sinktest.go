// Package sinktest is the conformance suite of sinks: what exactly-once asks of
// Land, Probe and Fence, as laws that any pipeline.Sink must keep.
//
// What flows in: a target, which opens sinks and reads back what landed by another
// way than the sink's. What flows out: failed tests. Records are made with a
// checked allocator and released here; the suite starts goroutines only in the law
// about concurrency and waits for them.
package sinktest

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Target is one empty database, or whatever a sink writes to.
type Target interface {
	// Open gives a sink as another process would have it. The target closes it.
	Open(t testing.TB) pipeline.Sink
	// Read gives all rows of the table in any order, with its columns in order. The
	// caller releases the records.
	Read(t testing.TB, table schemas.Table) []arrow.Record
	// Parts gives the rows of each atomic unit that Land made, in any order.
	Parts(t testing.TB, table schemas.Table) []int64
}

// Tables are what a target must have.
func Tables() []schemas.Table { return []schemas.Table{schemas.Flows, schemas.Quarantine, Maps} }

// BigPart is the name of the law that takes longest. A sink with several formats
// keeps it in one of them.
const BigPart = "half a million rows are one part"

// Run proves the laws, each on a target of its own, but for those named in without.
func Run(t *testing.T, target func(t *testing.T) Target, without ...string) {
	for _, law := range []struct {
		name string
		run  func(t *testing.T, l *lab)
	}{
		{"landed once is there once", landedOnce},
		{"every value comes back", valuesComeBack},
		{"a batch of many pieces is probed in order", manyPieces},
		{"batches in one range are told apart", batchesApart},
		{"an older epoch is refused", olderEpoch},
		{"fences do not touch others", fenceScope},
		{"a later owner stays", laterOwner},
		{"concurrent lands", concurrent},
		{BigPart, oneBigPart},
		{"no rows", noRows},
		{"a piece that lies is refused", lies},
	} {
		if slices.Contains(without, law.name) {
			continue
		}
		t.Run(law.name, func(t *testing.T) {
			mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
			defer mem.AssertSize(t, 0)
			tg := target(t)
			l := &lab{t: t, Target: tg, mem: mem, sink: tg.Open(t)}
			defer l.release()
			law.run(t, l)
		})
	}
}

// lab is what a law works with.
type lab struct {
	Target
	t     *testing.T
	mem   *memory.CheckedAllocator
	sink  pipeline.Sink
	mu    sync.Mutex
	owned []arrow.Record
	// planned are what planners gave.
	planned []pipeline.Piece
}

func (l *lab) release() {
	for _, p := range l.planned {
		p.Release()
	}
	for _, r := range l.owned {
		r.Release()
	}
}

func (l *lab) make(s Shape) pipeline.Piece {
	p := Make(l.mem, s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owned = append(l.owned, p.Record)
	return p
}

// plan gives what the sink lands the pieces as: they themselves, or, for a planner,
// what it makes of the batch.
func (l *lab) plan(batch pipeline.BatchID, pieces ...pipeline.Piece) []pipeline.Piece {
	l.t.Helper()
	planned, err := l.tryPlan(batch, pieces...)
	if err != nil {
		l.t.Fatal(err)
	}
	return planned
}

func (l *lab) tryPlan(batch pipeline.BatchID, pieces ...pipeline.Piece) ([]pipeline.Piece, error) {
	planner, ok := l.sink.(pipeline.Planner)
	if !ok {
		return pieces, nil
	}
	planned, err := planner.Plan(batch, pieces, nil)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.planned = append(l.planned, planned...)
	l.mu.Unlock()
	// At a replay, it gives the same again.
	refs := refsOf(planned)
	again, err := planner.Plan(batch, pieces, refs)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, p := range again {
			p.Release()
		}
	}()
	if diff := cmp.Diff(refs, refsOf(again), cmpopts.EquateEmpty()); diff != "" {
		l.t.Errorf("batch %v is planned otherwise at a replay (-live +replay):\n%s", batch, diff)
	}
	return planned, nil
}

func refsOf(pieces []pipeline.Piece) []pipeline.PieceRef {
	refs := make([]pipeline.PieceRef, len(pieces))
	for i, p := range pieces {
		refs[i] = p.PieceRef
	}
	return refs
}

// land lands whole batches, each with all its pieces.
func (l *lab) land(epoch uint64, batch pipeline.BatchID, pieces ...pipeline.Piece) {
	l.t.Helper()
	for _, p := range l.plan(batch, pieces...) {
		if err := l.landOne(epoch, batch, p); err != nil {
			l.t.Fatal(err)
		}
	}
}

// landOne lands one planned piece, as patiently as an engine.
func (l *lab) landOne(epoch uint64, batch pipeline.BatchID, p pipeline.Piece) error {
	for {
		err := l.sink.Land(l.t.Context(), batch, epoch, p)
		if !errors.Is(err, pipeline.ErrTransient) {
			return err
		}
		l.pause(err)
	}
}

// pause is what lies between two tries.
func (l *lab) pause(why error) {
	l.t.Helper()
	l.t.Log(why)
	select {
	case <-time.After(20 * time.Millisecond):
	case <-l.t.Context().Done():
		l.t.Fatal(why)
	}
}

// wantRefused wants every piece of the batch to be refused by the fence.
func (l *lab) wantRefused(epoch uint64, batch pipeline.BatchID, pieces ...pipeline.Piece) {
	l.t.Helper()
	planned := l.plan(batch, pieces...)
	if len(planned) == 0 {
		l.t.Error("nothing was planned of rows that must be refused")
	}
	for _, p := range planned {
		l.wantFenced(l.sink.Land(l.t.Context(), batch, epoch, p))
	}
}

// wantProbe compares what a probe counts of the batch's pieces, in their order.
func (l *lab) wantProbe(batch pipeline.BatchID, pieces []pipeline.Piece, want ...int64) {
	l.t.Helper()
	planned := l.plan(batch, pieces...)
	if _, ok := l.sink.(pipeline.Planner); ok && len(planned) < len(want) {
		want = []int64{sum(want)}[:len(planned)] // the planner lands them as one
	}
	l.wantProbed(batch, planned, want...)
}

func sum(list []int64) int64 {
	total := int64(0)
	for _, n := range list {
		total += n
	}
	return total
}

// wantProbed is wantProbe of planned pieces.
func (l *lab) wantProbed(batch pipeline.BatchID, planned []pipeline.Piece, want ...int64) {
	l.t.Helper()
	got, err := l.sink.Probe(l.t.Context(), batch, refsOf(planned))
	for errors.Is(err, pipeline.ErrTransient) { // as patiently as an engine
		l.pause(err)
		got, err = l.sink.Probe(l.t.Context(), batch, refsOf(planned))
	}
	if err != nil {
		l.t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		l.t.Errorf("probe of batch %v (-want +got):\n%s", batch, diff)
	}
}

// wantRows compares the table's rows with those of the pieces.
func (l *lab) wantRows(table schemas.Table, pieces ...pipeline.Piece) {
	l.t.Helper()
	want := make([]arrow.Record, len(pieces))
	for i, p := range pieces {
		want[i] = p.Record
	}
	got := l.Read(l.t, table)
	defer func() {
		for _, r := range got {
			r.Release()
		}
	}()
	if diff := cmp.Diff(Lines(want...), Lines(got...)); diff != "" {
		l.t.Errorf("rows of %q (-want +got):\n%.4000s", table.Name, diff)
	}
}

// wantFenced says that the error is a refusal by the fence.
func (l *lab) wantFenced(err error) {
	l.t.Helper()
	if !errors.Is(err, pipeline.ErrFenced) {
		l.t.Errorf("error is %v, want ErrFenced", err)
	}
}

func landedOnce(_ *testing.T, l *lab) {
	batch := pipeline.NewBatchID(1, 2, 3)
	p := l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 1000})
	l.wantProbe(batch, []pipeline.Piece{p}, 0)
	l.land(1, batch, p)
	l.wantProbe(batch, []pipeline.Piece{p}, 1000)
	l.wantRows(schemas.Flows, p)
	// Another process sees the same.
	l.sink = l.Open(l.t)
	l.wantProbe(batch, []pipeline.Piece{p}, 1000)
}

func valuesComeBack(t *testing.T, l *lab) {
	for i, table := range Tables() {
		t.Run(table.Name, func(t *testing.T) {
			batch := pipeline.NewBatchID(pipeline.MaxLedger, pipeline.MaxShards-1, pipeline.MaxSeq-uint64(i))
			p := l.make(Shape{Table: table, Batch: batch, Seed: uint64(i), Rows: 333})
			l.land(^uint64(0), batch, p)
			l.wantRows(table, p)
			l.wantProbe(batch, []pipeline.Piece{p}, 333)
		})
	}
}

func manyPieces(t *testing.T, l *lab) {
	batch := pipeline.NewBatchID(1, 0, 1)
	next := Day.AddDate(0, 0, 1)
	pieces := []pipeline.Piece{
		l.make(Shape{Table: Maps, Batch: batch, Seed: 1, Rows: 11}),
		l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 2, Rows: 22}),
		l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 3, Rows: 33, Day: next}),
		l.make(Shape{Table: schemas.Quarantine, Batch: batch, Seed: 4, Rows: 44, Day: next}),
		l.make(Shape{Table: Maps, Batch: batch, Seed: 5, Rows: 55, Day: next}),
		// The same partition again, told apart by its MACs.
		l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 6, Rows: 66, FirstMAC: 100}),
	}
	planned := l.plan(batch, pieces...)
	want := make([]int64, len(planned))
	l.wantProbed(batch, planned, want...)
	// From the last to the first, so that an order of the sink's own would show.
	for i := len(planned) - 1; i >= 0; i-- {
		if err := l.landOne(1, batch, planned[i]); err != nil {
			t.Fatal(err)
		}
		want[i] = planned[i].Rows
		l.wantProbed(batch, planned, want...)
	}
	if sum(want) != 11+22+33+44+55+66 {
		t.Errorf("%d rows were planned, want all", sum(want))
	}
	l.wantRows(schemas.Flows, pieces[1], pieces[2], pieces[5])
	l.wantRows(Maps, pieces[0], pieces[4])
	l.wantRows(schemas.Quarantine, pieces[3])
}

func batchesApart(_ *testing.T, l *lab) {
	var batches []pipeline.BatchID
	var pieces []pipeline.Piece
	for _, id := range []struct {
		ledger uint16
		shard  int
		seq    uint64
	}{{1, 0, 1}, {1, 0, 2}, {1, 1, 1}, {2, 0, 1}} {
		b := pipeline.NewBatchID(id.ledger, id.shard, id.seq)
		batches = append(batches, b)
		pieces = append(pieces, l.make(Shape{Table: schemas.Flows, Batch: b, Seed: 7, Rows: 50}))
	}
	for i := range batches {
		l.land(1, batches[i], pieces[i])
		for j := range batches {
			want := int64(0)
			if j <= i {
				want = 50
			}
			l.wantProbe(batches[j], pieces[j:j+1], want)
		}
	}
}

func olderEpoch(t *testing.T, l *lab) {
	batch := pipeline.NewBatchID(1, 2, 3)
	p := l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 100})
	successor := l.Open(t)
	if err := successor.Fence(t.Context(), 1, 2, 5); err != nil {
		t.Fatal(err)
	}
	l.wantRefused(4, batch, p)
	l.wantProbe(batch, []pipeline.Piece{p}, 0)
	l.wantRows(schemas.Flows)
	l.land(5, batch, p)
	l.wantProbe(batch, []pipeline.Piece{p}, 100)
	// The owner itself goes on under a higher epoch after doubt.
	if err := successor.Fence(t.Context(), 1, 2, 6); err != nil {
		t.Fatal(err)
	}
	next := pipeline.NewBatchID(1, 2, 4)
	q := l.make(Shape{Table: Maps, Batch: next, Seed: 2, Rows: 7})
	l.wantRefused(5, next, q)
	l.wantProbe(next, []pipeline.Piece{q}, 0)
	l.land(6, next, q)
	l.wantRows(Maps, q)
	l.wantRows(schemas.Flows, p)
}

func fenceScope(t *testing.T, l *lab) {
	if err := l.sink.Fence(t.Context(), 1, 2, 100); err != nil {
		t.Fatal(err)
	}
	for i, id := range []pipeline.BatchID{pipeline.NewBatchID(1, 3, 1), pipeline.NewBatchID(2, 2, 1), pipeline.NewBatchID(1, 22, 1), pipeline.NewBatchID(12, 2, 1)} {
		l.land(1, id, l.make(Shape{Table: schemas.Flows, Batch: id, Seed: uint64(i), Rows: 5}))
	}
}

func laterOwner(t *testing.T, l *lab) {
	for _, epoch := range []uint64{3, 3, 9} {
		if err := l.sink.Fence(t.Context(), 1, 2, epoch); err != nil {
			t.Fatal(err)
		}
	}
	l.wantFenced(l.sink.Fence(t.Context(), 1, 2, 8))
	l.wantFenced(l.Open(t).Fence(t.Context(), 1, 2, 1))
	batch := pipeline.NewBatchID(1, 2, 3)
	p := l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 3})
	l.wantRefused(8, batch, p)
	l.land(9, batch, p)
}

func concurrent(t *testing.T, l *lab) {
	const writers, each = 4, 6
	var wg sync.WaitGroup
	pieces := make([]pipeline.Piece, writers*each)
	errs := make([]error, len(pieces))
	for i := range pieces {
		batch := pipeline.NewBatchID(1, i%writers, uint64(i/writers))
		pieces[i] = l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: uint64(i), Rows: 500})
		for _, p := range l.plan(batch, pieces[i]) {
			wg.Go(func() { errs[i] = l.landOne(1, batch, p) })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	l.wantRows(schemas.Flows, pieces...)
	for i, p := range pieces {
		l.wantProbe(pipeline.NewBatchID(1, i%writers, uint64(i/writers)), []pipeline.Piece{p}, 500)
	}
}

func oneBigPart(t *testing.T, l *lab) {
	const rows = 500_000
	batch := pipeline.NewBatchID(1, 2, 3)
	p := l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: rows, MACs: 300})
	l.land(1, batch, p)
	if diff := cmp.Diff([]int64{rows}, l.Parts(t, schemas.Flows)); diff != "" {
		t.Errorf("parts of %d rows (-want +got):\n%s", rows, diff)
	}
	l.wantProbe(batch, []pipeline.Piece{p}, rows)
	// Refused before or while its body is read: either way nothing lands.
	if err := l.Open(t).Fence(t.Context(), 1, 2, 2); err != nil {
		t.Fatal(err)
	}
	late := pipeline.NewBatchID(1, 2, 4)
	for _, p := range l.plan(late, p) {
		if err := l.sink.Land(t.Context(), late, 1, p); !errors.Is(err, pipeline.ErrFenced) && !errors.Is(err, pipeline.ErrInDoubt) {
			t.Errorf("half a million rows of an older epoch: %v, want ErrFenced", err)
		}
	}
	l.wantProbe(batch, []pipeline.Piece{p}, rows)
	q := l.make(Shape{Table: Maps, Batch: late, Seed: 1, Rows: 200_000})
	l.land(2, late, q)
	if diff := cmp.Diff([]int64{200_000}, l.Parts(t, Maps)); diff != "" {
		t.Errorf("parts of %d rows (-want +got):\n%s", 200_000, diff)
	}
}

func noRows(_ *testing.T, l *lab) {
	batch := pipeline.NewBatchID(1, 2, 3)
	p := l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 0})
	l.wantProbe(batch, []pipeline.Piece{p}, 0)
	l.land(1, batch, p)
	l.wantProbe(batch, []pipeline.Piece{p}, 0)
	l.wantRows(schemas.Flows)
	l.wantProbe(batch, nil)
}

// lies lands pieces whose reference would lead a later probe astray: rows outside
// of it would be landed again.
func lies(t *testing.T, l *lab) {
	batch := pipeline.NewBatchID(1, 2, 3)
	good := l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 10})
	night := l.make(Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 10, Day: Day.Add(12 * time.Hour)})
	other := l.make(Shape{Table: Maps, Batch: batch, Seed: 1, Rows: 10})
	for name, change := range map[string]func(p *pipeline.Piece){
		"rows":           func(p *pipeline.Piece) { p.Rows-- },
		"earliest time":  func(p *pipeline.Piece) { p.MinTime++ },
		"latest time":    func(p *pipeline.Piece) { p.MaxTime-- },
		"MACs":           func(p *pipeline.Piece) { p.MACs = p.MACs[1:] },
		"table":          func(p *pipeline.Piece) { p.Table = "nothing" },
		"schema":         func(p *pipeline.Piece) { p.Record = other.Record },
		"two partitions": func(p *pipeline.Piece) { *p = night },
	} {
		if _, ok := l.sink.(pipeline.Planner); ok && name == "two partitions" {
			continue // a planner cuts as it needs
		}
		p := good
		change(&p)
		planned, err := l.tryPlan(batch, p)
		for _, p := range planned {
			err = errors.Join(err, l.sink.Land(t.Context(), batch, 1, p))
		}
		switch {
		case err == nil:
			t.Errorf("a piece that lies about its %s was landed", name)
		case errors.Is(err, pipeline.ErrTransient) || errors.Is(err, pipeline.ErrInDoubt):
			t.Errorf("a piece that lies about its %s gives %v, want a fatal error", name, err)
		}
	}
	l.wantRows(schemas.Flows)
	if _, err := l.sink.Probe(t.Context(), batch, []pipeline.PieceRef{{Table: "nothing", Rows: 1}}); err == nil {
		t.Error("a probe of an unknown table succeeded")
	}
}
