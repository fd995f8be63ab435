package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v17/arrow/array"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/pipeline"
)

// NamedSink is one target of a pipeline. A batch is done when it has landed in all
// of them.
type NamedSink struct {
	// Name as manifests record it; "" for the default sink.
	Name string
	Sink pipeline.Sink
}

func (s NamedSink) label() string { return label(s.Name) }

// label names a sink for people and metrics.
func label(name string) string {
	if name == "" {
		return pipeline.DefaultSink
	}
	return name
}

// checkSinks finds what no manifest could be read back with.
func checkSinks(sinks []NamedSink) error {
	if len(sinks) == 0 {
		return errors.New("no sink: want at least one")
	}
	var errs []error
	for i, s := range sinks {
		if slices.ContainsFunc(sinks[:i], func(o NamedSink) bool { return o.label() == s.label() }) {
			errs = append(errs, fmt.Errorf("sink %q stands twice: give each a name of its own", s.label()))
		}
		if s.Sink == nil {
			errs = append(errs, fmt.Errorf("sink %q is nil", s.label()))
		}
	}
	return errors.Join(errs...)
}

// sinkNames is what a manifest records: nil for the default sink alone.
func sinkNames(sinks []NamedSink) []string {
	if len(sinks) == 1 && sinks[0].Name == "" {
		return nil
	}
	names := make([]string, len(sinks))
	for i, s := range sinks {
		names[i] = s.Name
	}
	return names
}

// sink finds a sink that a piece was planned for.
func (e *Engine) sink(name string) NamedSink {
	i := slices.IndexFunc(e.parts.Sinks, func(s NamedSink) bool { return s.Name == name })
	if i < 0 {
		panic(fmt.Sprintf("BUG: a piece for sink %q, which the engine does not have", name))
	}
	return e.parts.Sinks[i]
}

// sinksOf gives the sinks that a manifest's batch lands in, with the pieces that it
// records of them. A sink that was added later is not among them: it starts with a
// later batch. One that was taken away may be missing only when the batch has
// landed.
func (r *runner) sinksOf(m pipeline.Manifest, landed bool) ([]NamedSink, []pipeline.PieceRef, error) {
	names := m.Sinks
	if names == nil {
		names = []string{""}
	}
	var sinks []NamedSink
	for _, name := range names {
		i := slices.IndexFunc(r.e.parts.Sinks, func(s NamedSink) bool { return s.Name == name })
		switch {
		case i >= 0:
			sinks = append(sinks, r.e.parts.Sinks[i])
		case !landed:
			return nil, nil, fmt.Errorf("replay batch %v: it lands in sink %q too, which the configuration no longer has: start with the old configuration, stop it softly, then change it", m.Batch, label(name))
		}
	}
	recorded := []pipeline.PieceRef{} // not nil: that would be a new batch
	for _, ref := range m.Pieces {
		if slices.ContainsFunc(sinks, func(s NamedSink) bool { return s.Name == ref.Sink }) {
			recorded = append(recorded, ref)
		}
	}
	return sinks, recorded, nil
}

// plan gives the pieces of a batch for this sink; the caller releases them.
func (s NamedSink) plan(id pipeline.BatchID, pieces []pipeline.Piece, recorded []pipeline.PieceRef) ([]pipeline.Piece, error) {
	planner, ok := s.Sink.(pipeline.Planner)
	if !ok {
		planner = asTheyAre{}
	}
	var own []pipeline.PieceRef
	if recorded != nil {
		own = []pipeline.PieceRef{}
	}
	for _, ref := range recorded {
		if ref.Sink == s.Name {
			own = append(own, ref)
		}
	}
	planned, err := planner.Plan(id, pieces, own)
	for i := range planned {
		planned[i].Sink = s.Name
	}
	return planned, err
}

// asTheyAre plans for a sink that takes each piece by itself.
type asTheyAre struct{}

func (asTheyAre) Plan(_ pipeline.BatchID, pieces []pipeline.Piece, _ []pipeline.PieceRef) ([]pipeline.Piece, error) {
	for _, p := range pieces {
		p.Retain()
	}
	return slices.Clone(pieces), nil
}

// share makes records safe to be read by several goroutines: an Arrow dictionary
// makes its array of values at the first call that asks for it.
func share(pieces []pipeline.Piece) {
	for _, p := range pieces {
		for _, column := range p.Record.Columns() {
			if d, ok := column.(*array.Dictionary); ok && d.Len() > 0 {
				d.Dictionary()
			}
		}
	}
}

// probeAll asks every sink for its own pieces, and gives the counts in the pieces'
// order.
func (e *Engine) probeAll(ctx context.Context, id pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	rows := make([]int64, len(pieces))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(e.atOneTime(len(e.parts.Sinks)))
	for _, s := range e.parts.Sinks {
		var own []pipeline.PieceRef
		var at []int
		for i, p := range pieces {
			if p.Sink == s.Name {
				own, at = append(own, p), append(at, i)
			}
		}
		if len(own) == 0 {
			continue
		}
		group.Go(func() error {
			found, err := s.Sink.Probe(ctx, id, own)
			if err != nil {
				return err
			}
			for i, n := range found {
				rows[at[i]] = n
			}
			return nil
		})
	}
	return rows, group.Wait()
}

func releaseAll(pieces []pipeline.Piece) {
	for _, p := range pieces {
		p.Release()
	}
}
