package eventhubs_test

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// The lag counts what the hub has and nobody acknowledged, over all partitions: what
// was received, and what the source does not receive because it is full.
func TestLag(t *testing.T) {
	s := startHub(t, nil)
	u := newSetup(t, s)
	u.cfg.MaxUnacknowledged, u.cfg.LagInterval = 2, 10*time.Millisecond
	publish(t, s, 0, names("a", 5)...)
	publish(t, s, 3, "b")
	c := newCollector(none)
	r := u.run(t, c)
	wantLag := func(want int64) {
		t.Helper()
		for end := time.Now().Add(wait); r.Lag() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("lag %d, want %d", r.Lag(), want)
			}
		}
	}
	wantLag(6)
	publish(t, s, 0, names("c", 4)...) // received by nobody
	wantLag(10)
	c.waitFor(t, 3)
	c.acknowledge("a-0000")
	c.acknowledge("b")
	wantLag(8)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// The next start begins where the acknowledged run ends.
	u.cfg.MaxUnacknowledged = 100
	r = u.run(t, newCollector(all))
	wantLag(0)
}

// A message that says who sent it goes on in the sender's trace.
func TestTraceOfTheSender(t *testing.T) {
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	s := startHub(t, nil)
	u := newSetup(t, s)
	for name, props := range map[string]map[string]any{
		"w3c":     {"traceparent": "00-" + id + "-" + parent + "-01", "Diagnostic-Id": "00-00000000000000000000000000000001-0000000000000001-00"},
		"azure":   {"Diagnostic-Id": "00-" + id + "-" + parent + "-01"},
		"garbage": {"traceparent": "00-canary-" + parent, "Diagnostic-Id": 7},
		"silent":  nil,
	} {
		if _, err := s.Publish(hub, emulator.ToPartition(0), []byte(name), props); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan [2]string, 4)
	c := newCollector(all)
	r := u.runInto(t, func(ctx context.Context, d pipeline.Delivery) error {
		text := ""
		if span := trace.SpanContextFromContext(ctx); span.IsValid() {
			text = span.TraceID().String() + " " + span.SpanID().String()
		}
		got <- [2]string{d.Announcements[0].Blob.Path, text}
		return c.emit(ctx, d)
	})
	c.waitFor(t, 4)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"w3c": id + " " + parent, "azure": id + " " + parent, "garbage": "", "silent": ""}
	for range want {
		if g := <-got; g[1] != want[g[0]] {
			t.Errorf("%s: span %q, want %q", g[0], g[1], want[g[0]])
		}
	}
}
