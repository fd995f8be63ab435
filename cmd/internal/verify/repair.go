package verify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rows"
)

// Target is what a repair writes to; sinks/clickhouse implements it.
type Target interface {
	pipeline.Sink
	engine.Checkpoints
	Exec(ctx context.Context, sql string) (string, error)
}

// RepairDeps are what a repair needs beside what a comparison does.
type RepairDeps struct {
	Target Target
	// Flows is the table that flow rows land in, with enrichment or without.
	Flows schemas.Table
	// State is the pipeline's folder; the repair's ledger is below it.
	State string
	// Register gives the id that the target knows a ledger by.
	Register func(ctx context.Context, name string, shards int) (uint16, error)
	// Cluster says that the target is several servers.
	Cluster bool
}

// Repaired is what a repair did, or would do.
type Repaired struct {
	Before *Result `json:"before"`
	Steps  []Step  `json:"steps"`
	// After is the comparison behind it; nil after a dry run.
	After *Result `json:"after,omitempty"`
}

// maxRounds bounds how often the tables are looked at anew: a merge may move rows away
// from under a statement, and a statement names so many rows at most.
const maxRounds = 20

// Plan compares, and says what a repair would do. Nothing is written.
func Plan(ctx context.Context, deps Deps, o Options) (*Repaired, error) {
	o.Level = Full
	v := newVerifier(deps, o)
	v.repairs = &plan{}
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	out := &Repaired{Before: v.result, Steps: v.repairs.steps()}
	for _, f := range v.result.Findings {
		if f.Window != nil && f.Repairable {
			out.Steps = append(out.Steps, Step{Table: f.Table, Rows: 1, Text: "make the window's row again: " + f.Window.text()})
		}
	}
	return out, nil
}

// Repair compares, and puts right what can be. Run again, or after a kill, it does what
// is left.
//
// Errors: another repair runs; the target is a cluster; as Run.
func Repair(ctx context.Context, deps Deps, rd RepairDeps, o Options, say func(Step)) (*Repaired, error) {
	if rd.Cluster {
		return nil, errors.New("repair: the target is a cluster: a row is removed where it is, so do it server by server, with clickhouse.url in place of clickhouse.servers")
	}
	o.Level = Full
	r := &repairer{Deps: deps, RepairDeps: rd, say: say}
	if err := r.open(ctx); err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	defer r.directory.Close()
	out := &Repaired{}
	for range maxRounds {
		v := newVerifier(deps, o)
		v.repairs = &plan{}
		if err := v.run(ctx); err != nil {
			return nil, fmt.Errorf("repair: %w", err)
		}
		out.After = v.result
		if out.Before == nil {
			out.Before = v.result
		}
		done, err := r.round(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("repair: %w: run it again, it does what is left", err)
		}
		out.Steps = r.steps
		if !done {
			break
		}
	}
	return out, nil
}

// repairer is one repair. It holds the lock of its ledger.
type repairer struct {
	Deps
	RepairDeps
	say       func(Step)
	steps     []Step
	directory *ledger.Directory
	book      *ledger.Ledger
	epoch     uint64
	seq       uint64 // of the last batch of its own
}

// RepairFolder has the ledger of repairs, below the state folder.
const RepairFolder = "repair"

// open takes the repair's ledger over and fences what an earlier repair has left on
// its way. What it has landed is done: nothing of it can come any more.
func (r *repairer) open(ctx context.Context) error {
	var err error
	if r.directory, err = ledger.OpenDirectory(filepath.Join(r.State, RepairFolder)); err != nil {
		return fmt.Errorf("one at a time: %w", err)
	}
	r.book, err = ledger.Open(ctx, r.directory, ledger.Info{Shards: 1, Created: r.Now().UTC()}, r.Register)
	if err == nil {
		r.epoch = r.book.Epoch() << 20
		err = r.Target.Fence(ctx, r.book.Info().ID, 0, r.epoch)
	}
	if err == nil {
		err = r.settle(ctx)
	}
	if err != nil {
		return errors.Join(err, r.directory.Close())
	}
	return nil
}

// settle finds the last batch of its own, and records it as done.
func (r *repairer) settle(ctx context.Context) error {
	id := r.book.Info().ID
	from, to := uint64(pipeline.NewBatchID(id, 0, 0)), uint64(pipeline.NewBatchID(id, 0, pipeline.MaxSeq))
	sql := fmt.Sprintf("SELECT max(m) FROM (SELECT max(batch_id) AS m FROM flows WHERE batch_id > %d AND batch_id <= %d UNION ALL SELECT max(batch_id) FROM batches WHERE batch_id > %[1]d AND batch_id <= %[2]d)", from, to)
	err := ask.Each(ctx, r.Conn, "table flows", sql, func(row ask.Row) error {
		var last uint64
		err := row.Scan(&last)
		r.seq = pipeline.BatchID(last).Seq()
		return err
	})
	if err != nil || r.seq == 0 {
		return err
	}
	return r.book.WriteBase(ctx, ledger.Base{Seq: r.seq})
}

func (r *repairer) step(s Step) {
	r.steps = append(r.steps, s)
	if r.say != nil {
		r.say(s)
	}
}

// round carries out what a comparison found: rows first, then, when these are right,
// windows. It says whether there was something to do.
func (r *repairer) round(ctx context.Context, v *verifier) (bool, error) {
	steps := v.repairs.steps()
	for _, s := range steps {
		r.step(s)
	}
	for _, d := range v.repairs.deletions() {
		if _, err := r.Target.Exec(ctx, d.sql); err != nil {
			return true, fmt.Errorf("remove rows from table %s: %w", d.table, err)
		}
	}
	if err := r.landRows(ctx, v.repairs.land); err != nil {
		return true, err
	}
	if err := r.landEntries(ctx, v.repairs.entries); err != nil {
		return true, err
	}
	if err := r.landBatches(ctx, v.repairs.batches); err != nil {
		return true, err
	}
	if len(steps) > 0 {
		return true, nil
	}
	return r.windows(ctx, v)
}

// landRows reads the bytes of each commit's rows again and lands them under it. Holes
// that nobody has rows of get a commit of the repair's own.
func (r *repairer) landRows(ctx context.Context, all []landing) error {
	var ids []pipeline.BatchID
	byBatch := map[pipeline.BatchID][]landing{}
	for _, l := range all {
		id := l.x.batch
		if id == 0 {
			r.seq++
			id = pipeline.NewBatchID(r.book.Info().ID, 0, r.seq)
		}
		if byBatch[id] == nil {
			ids = append(ids, id)
		}
		byBatch[id] = append(byBatch[id], l)
	}
	for _, id := range ids {
		if err := r.landBatch(ctx, id, byBatch[id]); err != nil {
			return err
		}
	}
	if len(ids) == 0 || r.seq == 0 {
		return nil
	}
	return r.book.WriteBase(ctx, ledger.Base{Seq: r.seq})
}

func (r *repairer) landBatch(ctx context.Context, id pipeline.BatchID, parts []landing) error {
	batch := decode.NewBatch(r.Allocator)
	defer batch.Release()
	want := map[place]map[tupleAt]bool{}
	var holes []batchRow
	for _, l := range parts {
		text, err := r.Blobs.Range(ctx, l.blob, l.x.offset, l.x.length)
		if err == nil && !l.x.hole && pipeline.Hash(text) != l.x.hash {
			err = errors.New("its bytes changed meanwhile")
		}
		if err != nil {
			return fmt.Errorf("read blob %q: %w", l.blob, err)
		}
		at := engine.RangeOf(pipeline.Replay{Blob: l.blob, Generation: l.place.generation, Offset: l.x.offset, Length: l.x.length})
		if _, ok := l.blob.Hour(); !ok {
			at.MinTime, at.MaxTime = 0, 0
		}
		result := batch.Decode(at, text)
		if want[l.place] == nil {
			want[l.place] = map[tupleAt]bool{}
		}
		for _, t := range l.tuples {
			want[l.place][t] = true
		}
		if l.x.hole && l.x.batch == 0 {
			u := l.x.unit
			u.batch, u.hash, u.rows, u.quarantined = id, pipeline.Hash(text), int64(len(l.tuples)), int64(len(result.Rejects))
			holes = append(holes, batchRow{l.blob, l.place.generation, u})
		}
	}
	rec := batch.Take(id)
	if rec == nil {
		return nil
	}
	picked := pick(rec, want)
	out := rows.Select(r.Allocator, rec, picked)
	rec.Release()
	if err := r.land(ctx, out); err != nil {
		return err
	}
	return r.landBatches(ctx, holes)
}

// pick gives the rows of wanted addresses.
func pick(rec arrow.Record, want map[place]map[tupleAt]bool) []int32 {
	blobAt := schemas.Flows.Index("blob")
	h := newRowHasher(rec)
	var picked []int32
	var buf []byte
	for row := range int(rec.NumRows()) {
		buf = h.columns[blobAt](buf[:0], row)
		p := place{string(buf), 0}
		buf = h.columns[generationAt](buf[:0], row)
		fmt.Sscan(string(buf), &p.generation) //nolint:errcheck // it is a number
		if want[p][tupleAt{int64(h.offsets[row]), h.ordinal[row]}] {
			picked = append(picked, int32(row))
		}
	}
	return picked
}

// land makes an INSERT of each day of flow rows, which it takes over, fenced under
// the repair's own ledger. What becomes of one whose answer is lost, the next repair
// finds out behind its own fence.
func (r *repairer) land(ctx context.Context, rec arrow.Record) error {
	rec, err := r.enriched(rec)
	if err != nil {
		return err
	}
	return r.landPieces(ctx, pipeline.Pieces(r.Allocator, r.Flows.Of(int(rec.NumCols())), rec))
}

func (r *repairer) landPieces(ctx context.Context, pieces []pipeline.Piece) error {
	defer func() {
		for _, p := range pieces {
			p.Release()
		}
	}()
	id := pipeline.NewBatchID(r.book.Info().ID, 0, max(r.seq, 1))
	for _, p := range pieces {
		if err := r.Target.Land(ctx, id, r.epoch, p); err != nil {
			return err
		}
	}
	return nil
}

// enriched puts enrichment behind the rows, as it would today. It takes rec over.
func (r *repairer) enriched(rec arrow.Record) (arrow.Record, error) {
	if r.Transforms == nil {
		return rec, nil
	}
	list, err := r.Transforms()
	if err != nil {
		rec.Release()
		return nil, err
	}
	for _, t := range list {
		if t.Name != enrich.Name {
			continue // filters let these rows pass once
		}
		if current := t.Current(); current != nil {
			out, err := current.Apply(r.Allocator, rec)
			rec.Release()
			if err != nil {
				return nil, err
			}
			rec = out.Flows
		}
	}
	return rec, nil
}

func (r *repairer) landEntries(ctx context.Context, all []entryLanding) error {
	for _, e := range all {
		u := pipeline.Unit{Blob: e.blob, Generation: e.place.generation, Offset: e.x.offset, Length: e.x.length}
		if _, ok := e.blob.Hour(); !ok {
			u.Clock = r.Now().UnixMilli()
		}
		if err := r.landPieces(ctx, engine.QuarantinePieces(memory.DefaultAllocator, e.x.batch, u, e.rejects)); err != nil {
			return err
		}
	}
	return nil
}

// landBatches enters byte ranges under the hour of their blob: when exactly they were
// committed is not known any more.
func (r *repairer) landBatches(ctx context.Context, all []batchRow) error {
	var manifests []pipeline.Manifest
	for _, b := range all {
		hour, ok := b.blob.Hour()
		if !ok {
			hour = r.Now().Truncate(time.Hour)
		}
		manifests = append(manifests, pipeline.Manifest{
			Batch: b.unit.batch, Shard: b.unit.batch.Shard(), Created: hour.Add(time.Hour).UnixMilli(),
			Units: []pipeline.Unit{{
				Blob: b.blob, Generation: b.generation, Offset: b.unit.offset, Length: b.unit.length, Hash: b.unit.hash,
				Rows: b.unit.rows, Quarantined: b.unit.quarantined, Filtered: b.unit.filtered,
			}},
		})
	}
	if len(manifests) == 0 {
		return nil
	}
	return r.Target.LandBatches(ctx, slices.Clip(manifests))
}
