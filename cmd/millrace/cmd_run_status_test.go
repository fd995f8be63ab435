package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/cmd/internal/telemetry"
	"github.com/millrace/millrace/pipeline/engine"
)

// told gives what a status line says about one pipeline after another, a minute
// apart.
func told(t *testing.T, change func(*statusLine, *bytes.Buffer), all ...engine.Status) string {
	t.Helper()
	var out bytes.Buffer
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	l := &statusLine{say: func(s string) { out.WriteString(s + "\n") }, now: func() time.Time { return now }}
	if change != nil {
		change(l, &out)
	}
	for _, s := range all {
		l.read = func() (engine.Status, bool) { return s, s.Notifications > 0 }
		l.tell(t.Context())
		now = now.Add(time.Minute)
	}
	return out.String()
}

var (
	early = engine.Status{Notifications: 1, Live: true, Landed: 1000, Bytes: 5e6}
	later = engine.Status{
		Notifications: 2, Live: true, Landed: 1_201_000, Bytes: 605e6, OldestMS: 12_400, Behind: 1340, LagBytes: 2_345_678,
		Watermark: time.Date(2026, 11, 26, 12, 0, 44, 0, time.UTC).UnixMilli(), Queued: 3, Quarantined: 17, InDoubt: 1,
	}
)

func TestStatusForPeople(t *testing.T) {
	want := `12:00:00Z status: 0 rows/s, 0.0 MB/s, lag 0 s and 0 notifications (0.0 MB), watermark none yet, 0 blobs waiting, 0 quarantined, 0 in doubt
12:01:00Z status: 20,000 rows/s, 10.0 MB/s, lag 12 s and 1,340 notifications (2.3 MB), watermark 12:00:44, 3 blobs waiting, 17 quarantined, 1 in doubt
12:03:00Z status: recovering, 0 rows/s, 0.0 MB/s, lag 0 s and 0 notifications (0.0 MB), watermark none yet, 0 blobs waiting, 0 quarantined, 0 in doubt
`
	// Between the second and the last the pipeline ended: nothing is told, and the next
	// one begins without rates.
	got := told(t, nil, early, later, engine.Status{}, engine.Status{Notifications: 1, Landed: 9_000_000})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatusForMachines(t *testing.T) {
	text := told(t, func(l *statusLine, out *bytes.Buffer) {
		h, err := telemetry.NewHandler(out, telemetry.LogJSON, slog.LevelInfo)
		if err != nil {
			t.Fatal(err)
		}
		l.record = slog.New(h)
	}, early, later)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	delete(got, "time")
	want := map[string]any{
		"level": "INFO", "msg": "status", "live": true, "rows_per_second": 20000., "bytes_per_second": 10e6, "lag_seconds": 12.4, "lag_notifications": 1340.,
		"lag_bytes": 2345678., "watermark": "2026-11-26T12:00:44Z", "blobs_waiting": 3., "quarantined": 17., "filtered": 0., "in_doubt": 1.,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// On a terminal the line stays below what is logged and never wraps.
func TestStatusOnATerminal(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, width: func() int { return 8 }}
	write := func(text string) {
		if n, err := s.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}
	write("before\n")
	s.show("status 1 and more")
	write("a log line\n")
	s.show("status 2")
	s.show("")
	write("after\n")
	want := "before\n" + clearLine + "status " + clearLine + "a log line\nstatus " + clearLine + "status " + clearLine + "after\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
