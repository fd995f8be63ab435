package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
)

// whole is a target that takes a batch at one time, as a transaction does. Its
// plans name the server that its configuration has at that moment.
type whole struct {
	*target
	server    string
	replanned atomic.Int64 // plans at a replay
}

func (w *whole) Plan(batch pipeline.BatchID, pieces []pipeline.Piece, recorded []pipeline.PieceRef) ([]pipeline.Piece, error) {
	if len(pieces) == 0 {
		return nil, nil
	}
	all := pipeline.Piece{PieceRef: pipeline.PieceRef{Partition: "all", Server: w.server}}
	if recorded != nil {
		w.replanned.Add(1)
		if len(recorded) == 0 {
			return nil, fmt.Errorf("batch %v had rows when it was new, and has none recorded", batch)
		}
		all.Server = recorded[0].Server
	}
	for _, p := range pieces {
		p.Retain()
		all.Rows += p.Rows
		all.Parts = append(all.Parts, p)
	}
	return []pipeline.Piece{all}, nil
}

// runSinks lets an engine work until a condition holds; the last one drains, the
// others are killed.
func runSinks(t *testing.T, dir string, e *estate, sinks []engine.NamedSink, alloc memory.Allocator, last bool, until func() bool) error {
	t.Helper()
	eng, stop := startSinks(t, dir, e, sinks, alloc, func(*engine.Config) {})
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- eng.Run(ctx) }()
	for range 8 {
		e.grow()
		time.Sleep(20 * time.Millisecond)
	}
	waitFor(t, until)
	if last {
		eng.Drain(true)
	} else {
		cancel()
	}
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		return fmt.Errorf("does not stop: %+v", eng.Status())
	}
}

func always() bool { return true }

// has says whether anything has landed; refuses, whether something was to land while
// the target is away.
func (s *target) has() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.addresses) > 0
}

func (s *target) refuses() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused > 0
}

// Law: two sinks of one pipeline, one of which lands a batch as a whole, hold the
// same rows once, over hard stops and lost answers, also when a plan would be made
// otherwise after the restart.
func TestSinksOfOnePipelineHoldTheSame(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	dir := t.TempDir() + "/ledger"
	e, s, w := newEstate(11, 8), newTarget(), &whole{target: newTarget()}
	sinks := []engine.NamedSink{{Sink: s}, {Name: "log", Sink: w}}
	for round := range 5 {
		w.server = fmt.Sprint(round)
		if err := runSinks(t, dir, e, sinks, alloc, round == 4, always); err != nil {
			t.Fatal(err)
		}
	}
	s.wantAll(t, e)
	w.wantAll(t, e)
	if diff := cmp.Diff(s.addresses, w.addresses); diff != "" {
		t.Errorf("the sinks differ:\n%.2000s", diff)
	}
	if w.replanned.Load() == 0 {
		t.Error("no batch was planned again")
	}
}

// A sink that comes later gets whole batches from then on; one that goes while a
// batch still has to land in it is refused with what to do.
func TestSinksComeAndGo(t *testing.T) {
	dir := t.TempDir() + "/ledger"
	e, s, w := newEstate(12, 6), newTarget(), &whole{target: newTarget()}
	alone, both := []engine.NamedSink{{Sink: s}}, []engine.NamedSink{{Sink: s}, {Name: "log", Sink: w}}
	run := func(sinks []engine.NamedSink, last bool, until func() bool) error {
		return runSinks(t, dir, e, sinks, memory.DefaultAllocator, last, until)
	}
	if err := run(alone, false, s.has); err != nil {
		t.Fatal(err)
	}
	if err := run(both, false, w.has); err != nil {
		t.Fatal(err)
	}
	if len(w.addresses) >= e.written {
		t.Errorf("the later sink has %d of %d rows", len(w.addresses), e.written)
	}
	w.away = true
	if err := run(both, false, w.refuses); err != nil {
		t.Fatal(err)
	}
	err := run(alone, true, always)
	if err == nil || !strings.Contains(err.Error(), `lands in sink "log" too`) {
		t.Errorf("a sink that went gives %v", err)
	}
	w.away = false
	if err := run(both, true, always); err != nil {
		t.Fatal(err)
	}
	s.wantAll(t, e)
	// Everything has landed: now it may go.
	if err := run(alone, true, always); err != nil {
		t.Fatal(err)
	}
	s.wantAll(t, e)
}

func TestSinksAreChecked(t *testing.T) {
	s := newTarget()
	for want, sinks := range map[string][]engine.NamedSink{
		"no sink":                     nil,
		`"clickhouse" stands twice`:   {{Sink: s}, {Sink: s}},
		`"log" is nil`:                {{Sink: s}, {Name: "log"}},
		`sink "clickhouse" stands tw`: {{Sink: s}, {Name: "clickhouse", Sink: s}},
	} {
		_, err := engine.New(engine.DefaultConfig(), engine.Parts{
			Sinks: sinks, Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.DiscardHandler),
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have: %v", want, err)
		}
	}
}
