package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/mutant"
	"github.com/millrace/millrace/pipeline/shard"
	"github.com/millrace/millrace/schemas"
)

// seal closes the open batch: its rows become pieces, the operators see them, and
// everything is held until it has landed.
func (r *runner) seal(ctx context.Context, a shard.Seal) shard.Event {
	info := r.e.parts.Ledger.Info()
	id := pipeline.NewBatchID(info.ID, r.id, a.Seq)
	h, err := r.compute(ctx, id, a.Watermark, r.e.current(), r.e.parts.Sinks, nil)
	r.trace.operated(err)
	if err != nil {
		return shard.Failed{Err: err}
	}
	h.reserved, r.reserved = r.reserved, 0
	r.held[a.Seq] = h
	r.sealedSeq = a.Seq
	if a.Snapshot {
		if r.bases[a.Seq], err = r.snapshots(); err != nil {
			return shard.Failed{Err: err}
		}
	}
	return shard.Sealed{
		Seq: a.Seq, Pieces: refs(h.pieces), Sinks: sinkNames(r.e.parts.Sinks),
		Transforms: transformRefs(h.transforms), Filtered: h.filtered,
	}
}

// compute turns the open rows and rejects into the pieces of a batch for each of
// the sinks. recorded is what a replayed manifest says of them.
func (r *runner) compute(ctx context.Context, id pipeline.BatchID, w pipeline.Watermark, transforms []used, sinks []NamedSink, recorded []pipeline.PieceRef) (*held, error) {
	h := &held{batch: id, transforms: transforms}
	flows, filtered, err := r.transform(ctx, id, transforms)
	if err != nil {
		return nil, fmt.Errorf("batch %v: %w", id, err)
	}
	h.filtered = filtered
	pieces, err := r.operate(id, w, flows)
	defer func() { releaseAll(pieces) }()
	if err != nil {
		return nil, fmt.Errorf("batch %v: %w", id, err)
	}
	share(pieces)
	for _, s := range sinks {
		planned, err := s.plan(id, pieces, recorded)
		if err != nil {
			h.release()
			return nil, fmt.Errorf("batch %v: sink %q: %w", id, s.label(), err)
		}
		h.pieces = append(h.pieces, planned...)
	}
	return h, nil
}

// operate gives the batch's rows: flows, which it takes over, quarantine, and what
// the operators make of the flows. The caller releases them, also beside an error.
func (r *runner) operate(id pipeline.BatchID, w pipeline.Watermark, flows arrow.Record) ([]pipeline.Piece, error) {
	pieces := pipeline.Pieces(r.e.parts.Allocator, schemas.Flows, flows)
	in := pipeline.OperatorInput{Batch: id, Watermark: w}
	for _, p := range pieces {
		in.Flows = append(in.Flows, p.Record)
	}
	pieces = append(pieces, quarantinePieces(r.e.parts.Allocator, id, r.rejects)...)
	if !mutant.On(mutant.RejectsKept) {
		r.rejects = nil
	}
	for _, op := range r.operators {
		began := time.Now()
		more, err := op.Apply(in)
		if err != nil {
			return pieces, err
		}
		r.trace.applied(began, more)
		pieces = append(pieces, more...)
	}
	return pieces, nil
}

func refs(pieces []pipeline.Piece) []pipeline.PieceRef {
	out := make([]pipeline.PieceRef, len(pieces))
	for i, p := range pieces {
		out[i] = p.PieceRef
	}
	return out
}

func (r *runner) snapshots() ([][]byte, error) {
	out := make([][]byte, len(r.operators))
	for i, op := range r.operators {
		var err error
		if out[i], err = op.Snapshot(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// replay does again what was done live: the same bytes, the same rows, the same
// operators at the same watermark. Its memory is that of the batches between
// intent and done, which the core bounds; the budget is not asked, because nothing
// else runs in the shard that could give some back.
func (r *runner) replay(ctx context.Context, a shard.Replay) shard.Event {
	m := a.Manifest
	if m.Decoder > decode.Version {
		return shard.Failed{Err: fmt.Errorf("replay batch %v: it was decoded by version %d, this program knows versions up to %d: start the release that wrote the ledger, stop it softly, then go back", m.Batch, m.Decoder, decode.Version)}
	}
	if a.Muted && mutant.On(mutant.ReplaySkipped) {
		r.sealedSeq = m.Seq
		return shard.Replayed{Seq: m.Seq}
	}
	texts := make([][]byte, len(m.Units))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(r.e.atOneTime(r.e.cfg.Shard.MaxFetches))
	for i, u := range m.Units {
		group.Go(func() (err error) {
			if err := gctx.Err(); err != nil {
				return err // another unit could not be read
			}
			if texts[i], err = r.readUnit(gctx, u); err != nil {
				return fmt.Errorf("replay batch %v: blob %q, bytes %d to %d: %w", m.Batch, u.Blob, u.Offset, u.End(), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return shard.Failed{Err: err}
	}
	for i, u := range m.Units {
		again := u
		if err := r.decode(ctx, &again, texts[i]); err != nil {
			return shard.Failed{Err: err}
		}
		texts[i] = nil
	}
	sinks, recorded, err := r.sinksOf(m, a.Muted)
	if err != nil {
		return shard.Failed{Err: err}
	}
	transforms, err := r.e.recorded(ctx, m)
	if err != nil {
		return shard.Failed{Err: err}
	}
	h, err := r.compute(ctx, m.Batch, m.Watermark, transforms, sinks, recorded)
	if err != nil {
		return shard.Failed{Err: err}
	}
	if m.Warm {
		h.release()
		r.sealedSeq = m.Seq
		return shard.Replayed{Seq: m.Seq}
	}
	if !sameFiltered(m.Units, h.filtered) {
		h.release()
		return shard.Failed{Err: fmt.Errorf("replay batch %v: its filters left out other rows than they did: start the release that wrote the ledger, stop it softly, then upgrade", m.Batch)}
	}
	if diff := cmp.Diff(recorded, refs(h.pieces), cmpopts.EquateEmpty()); diff != "" {
		h.release()
		return shard.Failed{Err: fmt.Errorf("replay batch %v: the same bytes gave other pieces (decoder %d then, %d now; -committed +now): %s: start the release that wrote the ledger, stop it softly, then upgrade", m.Batch, m.Decoder, decode.Version, diff)}
	}
	r.manifests = append(r.manifests, m)
	r.sealedSeq = m.Seq
	if a.Muted {
		h.release()
	} else {
		r.held[m.Seq] = h
	}
	r.e.metrics.replayed(ctx)
	return shard.Replayed{Seq: m.Seq}
}

// land inserts one piece. The insert is not cancelled when the pipeline stops
// hard: the process ends, and the next start finds out what became of it.
func (r *runner) land(ctx context.Context, a shard.Land, batch pipeline.BatchID, p pipeline.Piece) shard.Event {
	if err := r.e.lands.Acquire(ctx, 1); err != nil {
		return nil
	}
	defer r.e.lands.Release(1)
	sink := r.e.sink(p.Sink)
	ctx, span := r.trace.land(ctx, sink.label(), p.PieceRef)
	began := time.Now()
	err := sink.Sink.Land(ctx, batch, a.Epoch, p)
	end(span, err)
	if ctx.Err() != nil {
		return nil
	}
	r.e.metrics.inserted(ctx, sink.label(), p.Table, time.Since(began), err)
	if err != nil {
		r.log.WarnContext(ctx, "landing", slog.String("batch", batch.String()), slog.String("sink", sink.label()), slog.String("table", p.Table), slog.Any("cause", err))
	}
	return shard.PieceLanded{Seq: a.Seq, Piece: a.Piece, Epoch: a.Epoch, Err: err}
}

// retryMax bounds the wait between two attempts: progress follows within seconds
// once the other side is back.
const retryMax = 5 * time.Second

// keepTrying is patiently for writes to the ledger, whose trouble the engine tells
// of: nothing lands while they do not come through.
func (r *runner) keepTrying(ctx context.Context, what string, f func() error) error {
	defer r.trouble.Store(nil)
	return r.patiently(ctx, what, func() error {
		err := f()
		if errors.Is(err, pipeline.ErrTransient) {
			r.trouble.Store(&err)
		}
		return err
	})
}

// patiently tries until it works, the error is not transient, or ctx ends.
func (r *runner) patiently(ctx context.Context, what string, f func() error) error {
	for attempt := 0; ; attempt++ {
		err := f()
		if err == nil || ctx.Err() != nil || !errors.Is(err, pipeline.ErrTransient) {
			return err
		}
		if r.hands != nil {
			return err // whoever has the deed in hand does it again
		}
		r.log.WarnContext(ctx, "trying again", slog.String("what", what), slog.Any("cause", err))
		if err := pipeline.Wait(ctx, min(100*time.Millisecond<<min(attempt, 10), retryMax)); err != nil {
			return err
		}
	}
}

func (r *runner) answer(ctx context.Context, err error, ev shard.Event) shard.Event {
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return shard.Failed{Err: err}
	}
	return ev
}

func (r *runner) fence(ctx context.Context, a shard.SetFence) shard.Event {
	id := r.id
	if mutant.On(mutant.FenceOfFirst) {
		id = 0
	}
	info := r.e.parts.Ledger.Info()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(r.e.atOneTime(len(r.e.parts.Sinks)))
	for _, s := range r.e.parts.Sinks {
		group.Go(func() error {
			return r.patiently(gctx, "fence", func() error { return s.Sink.Fence(gctx, info.ID, id, a.Epoch) })
		})
	}
	return r.answer(ctx, group.Wait(), shard.FenceSet(a))
}

func (r *runner) probe(ctx context.Context, a shard.Probe) shard.Event {
	info := r.e.parts.Ledger.Info()
	id := pipeline.NewBatchID(info.ID, r.id, a.Seq)
	var rows []int64
	err := r.patiently(ctx, "probe", func() (err error) {
		rows, err = r.e.probeAll(ctx, id, a.Pieces)
		return err
	})
	if err == nil && mutant.On(mutant.ProbeOfFirst) {
		for i, p := range a.Pieces {
			rows[i] = p.Rows * min(rows[0], 1)
		}
	}
	if err == nil {
		r.log.InfoContext(ctx, "probed a batch in doubt", slog.String("batch", id.String()), slog.Int("pieces", len(a.Pieces)), slog.Any("rows_found", rows))
	}
	return r.answer(ctx, err, shard.Probed{Seq: a.Seq, Rows: rows})
}

// writeLedger carries out the shard's ledger writes one by one.
func (r *runner) writeLedger(ctx context.Context) {
	defer r.work.Done()
	for {
		select {
		case f := <-r.ledger:
			if ev := f(ctx); ev != nil {
				_ = r.post(ctx, ev) // ctx ended: nobody waits for the answer
			}
		case <-ctx.Done():
			return
		}
	}
}

func (r *runner) writeManifest(ctx context.Context, a shard.WriteManifest, transforms []used) shard.Event {
	err := r.keepTrying(ctx, "manifest", func() error {
		if err := r.keep(ctx, a.Manifest.Seq, transforms); err != nil {
			return err
		}
		return r.e.parts.Ledger.WriteManifest(ctx, a.Manifest)
	})
	if errors.Is(err, ledger.ErrExists) {
		err = fmt.Errorf("batch %v has a manifest of another owner: %w", a.Manifest.Batch, pipeline.ErrFenced)
	}
	r.e.metrics.ledgerWrote(ctx, "manifest")
	return r.answer(ctx, err, shard.ManifestWritten{Seq: a.Manifest.Seq})
}

func (r *runner) writeHead(ctx context.Context, a shard.WriteHead) shard.Event {
	err := r.keepTrying(ctx, "head", func() error { return r.e.parts.Ledger.WriteHead(ctx, r.id, a.DoneSeq) })
	r.e.metrics.ledgerWrote(ctx, "head")
	return r.answer(ctx, err, shard.HeadWritten(a))
}

// writeBase makes a checkpoint: the byte ranges of its batches go to the target's
// table of batches first, so that the ledger can be rebuilt from there; then the
// base itself.
func (r *runner) writeBase(ctx context.Context, a shard.WriteBase) shard.Event {
	base := a.Base
	if s, ok := r.bases[base.Seq]; ok {
		base.Operators = s
		delete(r.bases, base.Seq)
		if mutant.On(mutant.SnapshotOfNow) {
			base.Operators, _ = r.snapshots()
		}
	} else {
		if r.sealedSeq != base.Seq {
			panic(fmt.Sprintf("BUG: base of batch %d without a snapshot, operators are at %d", base.Seq, r.sealedSeq))
		}
		var err error
		if base.Operators, err = r.snapshots(); err != nil {
			return shard.Failed{Err: err}
		}
	}
	covered := 0
	for covered < len(r.manifests) && r.manifests[covered].Seq <= base.Seq {
		covered++
	}
	manifests := r.manifests[:covered]
	r.manifests = append([]pipeline.Manifest(nil), r.manifests[covered:]...)
	r.write(ctx, a, func(ctx context.Context) shard.Event {
		if c := r.e.parts.Checkpoints; c != nil && len(manifests) > 0 {
			err := r.patiently(ctx, "batches", func() error { return c.LandBatches(ctx, manifests) })
			if err != nil {
				return r.answer(ctx, err, nil)
			}
		}
		err := r.keepTrying(ctx, "base", func() error { return r.e.parts.Ledger.WriteBase(ctx, base) })
		r.e.metrics.ledgerWrote(ctx, "base")
		return r.answer(ctx, err, shard.BaseWritten{Seq: base.Seq})
	})
	return nil
}
