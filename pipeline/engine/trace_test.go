package engine_test

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/pipeline/engine"
)

// traced runs an estate with telemetry and gives what it left.
func traced(t *testing.T, run func(e *estate, s *target, eng *engine.Engine)) (spans tracetest.SpanStubs, metrics metricdata.ResourceMetrics, log string) {
	t.Helper()
	exporter, reader := tracetest.NewInMemoryExporter(), sdkmetric.NewManualReader()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	var out lockedBuffer
	e, s := newEstate(11, 8), newTarget()
	s.steady = true
	eng, stop := startParts(t, t.TempDir()+"/ledger", e, []engine.NamedSink{{Sink: s}}, memory.DefaultAllocator, func(_ *engine.Config, p *engine.Parts) {
		p.Tracer, p.Meter, p.Logger = tracer.Tracer("test"), meter.Meter("test"), slog.New(&spanHandler{slog.NewTextHandler(&out, nil)})
	})
	defer stop()
	run(e, s, eng)
	if err := reader.Collect(t.Context(), &metrics); err != nil {
		t.Fatal(err)
	}
	return exporter.GetSpans(), metrics, out.String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// spanHandler adds the span's id to each line.
type spanHandler struct{ slog.Handler }

func (h *spanHandler) Handle(ctx context.Context, r slog.Record) error {
	r.AddAttrs(slog.String("span_id", trace.SpanContextFromContext(ctx).SpanID().String()))
	return h.Handler.Handle(ctx, r)
}

func (h *spanHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &spanHandler{h.Handler.WithAttrs(attrs)}
}

func drained(t *testing.T, eng *engine.Engine, rounds int, grow func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- eng.Run(t.Context()) }()
	for range rounds {
		grow()
		time.Sleep(30 * time.Millisecond)
	}
	eng.Drain(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// From every notification the links lead to reads, from a read to the commit of its
// byte ranges, and the commit has all its steps.
func TestSpansHangTogether(t *testing.T) {
	spans, metrics, _ := traced(t, func(e *estate, _ *target, eng *engine.Engine) {
		drained(t, eng, 12, e.grow)
		if s := eng.Status(); s.LagBytes != 0 || s.InDoubt != 0 {
			t.Errorf("a pipeline that has drained lags: %+v", s)
		}
	})
	byName, byID := map[string]tracetest.SpanStubs{}, map[trace.SpanID]tracetest.SpanStub{}
	children := map[trace.SpanID]map[string]int{}
	for _, s := range spans {
		byName[s.Name] = append(byName[s.Name], s)
		byID[s.SpanContext.SpanID()] = s
		if p := s.Parent.SpanID(); p.IsValid() {
			if children[p] == nil {
				children[p] = map[string]int{}
			}
			children[p][s.Name]++
		}
	}
	want := []string{"commit", "decode", "done", "fetch", "intent", "land", "notification", "operate", "window close"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(byName))); diff != "" {
		t.Errorf("kinds of spans (-want +got):\n%s", diff)
	}
	// A read is linked to its notifications, and a commit to its reads.
	linked := map[trace.SpanID]bool{}
	for _, s := range append(byName["fetch"], byName["commit"]...) {
		if s.Parent.IsValid() {
			t.Errorf("%s has a parent: what caused it is many", s.Name)
		}
		for _, l := range s.Links {
			from := byID[l.SpanContext.SpanID()]
			if want := map[string]string{"fetch": "notification", "commit": "fetch"}[s.Name]; from.Name != want {
				t.Errorf("%s links to %q, want %s", s.Name, from.Name, want)
			}
			linked[from.SpanContext.SpanID()] = true
		}
	}
	for _, s := range byName["fetch"] {
		if decoded := children[s.SpanContext.SpanID()]["decode"]; (decoded > 0) != linked[s.SpanContext.SpanID()] {
			t.Errorf("a read with %d byte ranges is linked to a commit: %v", decoded, linked[s.SpanContext.SpanID()])
		}
	}
	for _, s := range byName["commit"] {
		has := children[s.SpanContext.SpanID()]
		if has["operate"] != 1 || has["intent"] != 1 || has["done"] != 1 || len(s.Links) > 0 && has["land"] == 0 {
			t.Errorf("a commit of %d reads has the steps %v", len(s.Links), has)
		}
	}
	checkAttributes(t, spans)
	for _, name := range []string{"millrace.latency.queryable", "millrace.latency.acknowledged"} {
		if n := histogramCount(metrics, name); n == 0 {
			t.Errorf("%s measured nothing", name)
		}
	}
}

// checkAttributes wants no attribute with free values but the blob of a read and
// the batch of a commit.
func checkAttributes(t *testing.T, spans tracetest.SpanStubs) {
	t.Helper()
	free := map[string]bool{"fetch blob": true, "commit batch": true}
	for _, s := range spans {
		for _, a := range s.Attributes {
			text := a.Value.String()
			if key := s.Name + " " + string(a.Key); (strings.ContainsAny(text, "/ ") || len(text) > 40) && !free[key] {
				t.Errorf("attribute %s is %q", key, text)
			}
		}
		if len(s.Events) > 0 || s.Status.Description != "" {
			t.Errorf("%s has events or a status text: %+v", s.Name, s.Status)
		}
	}
}

func histogramCount(rm metricdata.ResourceMetrics, name string) (n uint64) {
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			if h, ok := m.Data.(metricdata.Histogram[float64]); ok && m.Name == name {
				for _, p := range h.DataPoints {
					n += p.Count
				}
			}
		}
	}
	return n
}

// An insert that fails is a span with the class of the error, and its line in the
// log has the span's id; the commit waits and lag is told.
func TestTroubleIsTraced(t *testing.T) {
	spans, _, log := traced(t, func(e *estate, s *target, eng *engine.Engine) {
		s.away = true
		round := 0
		drained(t, eng, 12, func() {
			e.grow()
			if round++; round < 12 {
				return
			}
			waitFor(t, func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.refused > 0
			})
			if st := eng.Status(); st.LagBytes == 0 || st.OldestMS == 0 {
				t.Errorf("nothing lands, and the lag is %d bytes, %d ms", st.LagBytes, st.OldestMS)
			}
			s.mu.Lock()
			s.away = false
			s.mu.Unlock()
		})
	})
	failed := map[string]bool{}
	for _, s := range spans {
		if s.Name == "land" && s.Status.Description == "transient" {
			failed[s.SpanContext.SpanID().String()] = true
		}
	}
	lines := 0
	for line := range strings.Lines(log) {
		_, id, ok := strings.Cut(strings.TrimSpace(line), "msg=landing")
		_, id, found := strings.Cut(id, "span_id=")
		if !ok {
			continue
		}
		lines++
		if !found || !failed[id] {
			t.Errorf("a line of no failed insert: %s", line)
		}
	}
	if lines == 0 || lines != len(failed) {
		t.Errorf("%d lines, %d failed inserts", lines, len(failed))
	}
}
