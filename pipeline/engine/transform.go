package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/pipeline"
)

// Transforms is a place in the list of what flow rows pass before operators and
// sinks see them. Its content may change while the engine runs and between runs;
// a batch records which one it got.
type Transforms struct {
	// Name stands in manifests and may never change.
	Name string
	// Current gives the transform of new batches; nil when it is off. Shards call it
	// once a batch, from their goroutines.
	Current func() pipeline.Transform
	// Restore makes one again from its recipe; data gives what that names. A place that
	// is off needs it too, as long as the ledger may hold batches from before.
	Restore func(recipe []byte, data func(hash string) ([]byte, error)) (pipeline.Transform, error)
}

// checkTransforms finds what no manifest could be read back with.
func checkTransforms(list []Transforms) error {
	seen := map[string]bool{}
	var errs []error
	for _, t := range list {
		if seen[t.Name] {
			errs = append(errs, fmt.Errorf("transform %q stands twice: give each a name of its own", t.Name))
		}
		seen[t.Name] = true
		if t.Current == nil || t.Restore == nil {
			errs = append(errs, fmt.Errorf("transform %q lacks Current or Restore", t.Name))
		}
	}
	return errors.Join(errs...)
}

// used is a transform of one batch.
type used struct {
	pipeline.TransformRef
	transform pipeline.Transform
}

// current gives the transforms of a new batch.
func (e *Engine) current() []used {
	var out []used
	for _, t := range e.parts.Transforms {
		if transform := t.Current(); transform != nil {
			ref := pipeline.TransformRef{Name: t.Name, Version: pipeline.Hash(transform.Recipe())}
			out = append(out, used{TransformRef: ref, transform: transform})
		}
	}
	return out
}

// restored keeps the transforms of recorded batches while shards recover.
type restored struct {
	mu        sync.Mutex
	byVersion map[pipeline.TransformRef]pipeline.Transform
}

// recorded gives the transforms that a manifest names. Those that are current
// still are not made again. What a warm manifest's rows went through is not known:
// operators see them as they would be now.
func (e *Engine) recorded(ctx context.Context, m pipeline.Manifest) ([]used, error) {
	current := e.current()
	if m.Warm {
		return current, nil
	}
	var out []used
	for _, ref := range m.Transforms {
		transform, err := e.restore(ctx, ref, current)
		if err != nil {
			return nil, fmt.Errorf("replay batch %v: transform %q, version %s: %w", m.Batch, ref.Name, ref.Version, err)
		}
		out = append(out, used{TransformRef: ref, transform: transform})
	}
	return out, nil
}

func (e *Engine) restore(ctx context.Context, ref pipeline.TransformRef, current []used) (pipeline.Transform, error) {
	for _, u := range current {
		if u.TransformRef == ref {
			return u.transform, nil
		}
	}
	e.restored.mu.Lock()
	defer e.restored.mu.Unlock()
	if t := e.restored.byVersion[ref]; t != nil {
		return t, nil
	}
	for _, t := range e.parts.Transforms {
		if t.Name != ref.Name {
			continue
		}
		recipe, data, err := e.parts.Ledger.Transform(ctx, ref.Version)
		if err != nil {
			return nil, err
		}
		transform, err := t.Restore(recipe, data)
		if err != nil {
			return nil, err
		}
		e.parts.Logger.Info("replaying with what was configured then", slog.String("transform", ref.Name), slog.String("version", ref.Version))
		if e.restored.byVersion == nil {
			e.restored.byVersion = map[pipeline.TransformRef]pipeline.Transform{}
		}
		e.restored.byVersion[ref] = transform
		return transform, nil
	}
	return nil, errors.New("the pipeline does not know it: start with the parts that wrote the ledger, stop it softly, then change them")
}

// forgetRestored lets go of them once no shard recovers any more.
func (e *Engine) forgetRestored() {
	e.restored.mu.Lock()
	defer e.restored.mu.Unlock()
	e.restored.byVersion = nil
}

// transform gives the open rows as the transforms leave them, nil when there are
// none, and, for each unit of the batch, how many were left out; nil stands for
// none at all. The caller releases the record.
func (r *runner) transform(ctx context.Context, id pipeline.BatchID, list []used) (arrow.Record, []int64, error) {
	rec := r.decoded.Take(id)
	units := r.unitRows
	r.unitRows = nil
	var filtered []int64
	for _, u := range list {
		if rec == nil {
			return nil, nil, nil
		}
		out, err := u.transform.Apply(r.e.parts.Allocator, rec)
		rec.Release()
		if err != nil {
			return nil, nil, fmt.Errorf("transform %q: %w", u.Name, err)
		}
		rec = out.Flows
		if out.Kept != nil {
			if filtered == nil {
				filtered = make([]int64, len(units))
			}
			leaveOut(units, filtered, out.Kept)
		}
		for _, d := range out.Dropped {
			r.e.metrics.filtered(ctx, d)
		}
	}
	return rec, filtered, nil
}

// leaveOut moves the rows that are not among the kept ones, whose places rise, from
// the units' rows to their filtered ones.
func leaveOut(units, filtered []int64, kept []int32) {
	first, at := int64(0), 0
	for i, rows := range units {
		began := at
		for at < len(kept) && int64(kept[at]) < first+rows {
			at++
		}
		first += rows
		units[i] = int64(at - began)
		filtered[i] += rows - units[i]
	}
}

// sameFiltered says whether a replay left out what the manifest says.
func sameFiltered(units []pipeline.Unit, filtered []int64) bool {
	for i, u := range units {
		var n int64
		if filtered != nil {
			n = filtered[i]
		}
		if u.Filtered != n {
			return false
		}
	}
	return true
}

func transformRefs(list []used) []pipeline.TransformRef {
	var refs []pipeline.TransformRef
	for _, u := range list {
		refs = append(refs, u.TransformRef)
	}
	return refs
}

// keep makes the batch's transforms durable, before its manifest names them.
func (r *runner) keep(ctx context.Context, seq uint64, list []used) error {
	for _, u := range list {
		if err := r.e.parts.Ledger.KeepTransform(ctx, r.id, seq, u.Name, u.transform); err != nil {
			return fmt.Errorf("keep transform %q: %w", u.Name, err)
		}
	}
	return nil
}
