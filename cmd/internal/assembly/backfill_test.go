package assembly_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// past writes the logs of an estate from start to until, so many tuples a second; 0 is
// as fast as it goes. The same hours again give the same bytes, and more of them.
func (w *world) past(writer traffic.BlobWriter, start, until time.Time, rate float64) traffic.Truth {
	w.T.Helper()
	cfg := traffic.DefaultConfig()
	cfg.Account, cfg.NICs, cfg.TuplesPerMinute, cfg.MinutesPerAppend, cfg.Malformed = w.Account, 12, 300, 60, 0.0005
	cfg.Start, cfg.Until, cfg.TuplesPerSecond = start, until, rate
	if rate > 0 {
		cfg.MinutesPerAppend = 5
	}
	sim, err := traffic.New(cfg, traffic.Deps{Blobs: writer, Publish: func(context.Context, string, []byte) error { return nil }})
	if err != nil {
		w.T.Fatal(err)
	}
	if err := sim.Run(w.T.Context()); err != nil {
		w.T.Fatal(err)
	}
	return sim.Truth()
}

// liveAt runs the pipeline with a clock that is behind, until it has so many rows,
// and then stops it hard: its newest batches are in its ledger alone.
func (w *world) liveAt(behind time.Duration, rows uint64) {
	w.T.Helper()
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		w.T.Fatal(err)
	}
	p, err := assembly.Open(w.T.Context(), cfg, assembly.Deps{
		Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.NewTextHandler(w.T.Output(), nil)),
		Now: func() time.Time { return time.Now().Add(-behind) },
	})
	if err != nil {
		w.T.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(w.T.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	w.WaitUntil("rows of the live pipeline", func() bool { return w.Number("SELECT count() FROM millrace.flows") >= rows })
	cancel()
	if err := <-done; err != nil {
		w.T.Fatal(err)
	}
}

// said is what backfill and replay print with -o json.
type said struct {
	Kind        string           `json:"kind"`
	Blobs       map[string]int64 `json:"blobs"`
	Bytes       int64            `json:"bytes"`
	Resumed     int64            `json:"resumed"`
	Rows        uint64           `json:"rows"`
	Quarantined uint64           `json:"quarantined"`
	Skipped     map[string]int   `json:"skipped_files"`
}

// millrace starts the program with a command and the world's configuration.
func (w *world) millrace(args ...string) *exec.Cmd {
	w.T.Helper()
	file := filepath.Join(w.T.TempDir(), "millrace.yaml")
	if err := os.WriteFile(file, []byte(w.YAML), 0o600); err != nil {
		w.T.Fatal(err)
	}
	return exec.Command(pipelinetest.RequirePart(w.T, jobtest.EnvProgram), append(args, "-c", file)...)
}

// land runs backfill or replay to its end and gives estimate and result.
func (w *world) land(args ...string) (estimate, result said) {
	w.T.Helper()
	cmd := w.millrace(append(args, "-o", "json")...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.T.Fatalf("%v: %v\n%s%s", args, err, out, stderr.String())
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var s said
		if err := d.Decode(&s); err != nil {
			w.T.Fatal(err)
		}
		if s.Kind == "result" {
			result = s
		} else {
			estimate = s
		}
	}
	return estimate, result
}

// checkPast compares everything with what the estate wrote.
func (w *world) checkPast(truth traffic.Truth) {
	w.T.Helper()
	want := truth.Totals
	sums := fmt.Sprintf("%d\t%d\t%d\t%d", want.Tuples, want.Sums.BytesSent, want.Sums.BytesReceived, want.Sums.PacketsSent)
	for _, table := range []string{"flows", "windows_traffic_1m"} {
		rows := "sum(rows)"
		if table == "flows" {
			rows = "count()"
		}
		if got := w.Ask("SELECT " + rows + ", sum(bytes_sent), sum(bytes_received), sum(packets_sent) FROM millrace." + table); got != sums {
			w.T.Errorf("%s: %s, want %s", table, got, sums)
		}
	}
	if twice := w.Number(jobtest.AddressesTwice); twice != 0 {
		w.T.Errorf("%d tuple addresses are twice in flows", twice)
	}
	if n := w.Number("SELECT count() FROM millrace.quarantine"); n != want.Malformed {
		w.T.Errorf("%d entries in quarantine, want %d", n, want.Malformed)
	}
	const differ = `SELECT count() FROM (SELECT * FROM (
		SELECT window_start AS w, mac, direction, action, protocol, sum(rows) AS n, sum(bytes_sent) AS s, sum(packets_received) AS r
			FROM millrace.windows_traffic_1m GROUP BY w, mac, direction, action, protocol
		UNION ALL
		SELECT toDateTime64(toStartOfMinute(time), 3, 'UTC') AS w, mac, direction, action, protocol, count() AS n, sum(bytes_sent) AS s, sum(packets_received) AS r
			FROM millrace.flows GROUP BY w, mac, direction, action, protocol
	) GROUP BY ALL HAVING count() != 2)`
	if n := w.Number(differ); n != 0 {
		w.T.Errorf("%d windows differ from what flows add up to", n)
	}
}

// A live pipeline lands the first half of an hour and goes down; two days later a
// backfill lands the hour before, the other half, and the hour behind it. It is killed
// on its way, and the next one goes on. Each row lands once, and windows add up.
func TestBackfillLandsTheRest(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 1s, discover: 1s}\n")
	first := time.Now().UTC().Truncate(time.Hour).Add(-60 * time.Hour)
	w.YAML = strings.Replace(w.YAML, "start: now-4h", "start: "+first.Add(time.Hour).Format(time.RFC3339), 1)
	half := w.past(w.Blobs, first, first.Add(90*time.Minute), 0)
	w.liveAt(58*time.Hour, half.Totals.Tuples/4)
	live := w.Number("SELECT count() FROM millrace.flows")
	if n := w.Number("SELECT sum(rows) FROM millrace.batches FINAL"); n >= live {
		t.Errorf("the table of batches knows %d of %d rows: the test wants some that only the ledger knows", n, live)
	}
	truth := w.past(w.Blobs, first, first.Add(3*time.Hour), 0)

	period := []string{"backfill", "--from", first.Format(time.RFC3339), "--to", first.Add(72 * time.Hour).Format(time.RFC3339)}
	if dry, result := w.land(append(period, "--dry-run")...); dry.Resumed == 0 || dry.Blobs["todo"] == 0 || result.Kind != "" {
		t.Errorf("a dry run: estimate %+v, result %+v", dry, result)
	}
	period = append(period, "--yes")
	killed := w.millrace(period...)
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	w.WaitUntil("rows of the backfill", func() bool { return w.Number("SELECT count() FROM millrace.flows") > live })
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // it was killed
	part := w.Number("SELECT count() FROM millrace.flows")
	if part >= truth.Totals.Tuples {
		t.Fatalf("it was killed too late: %d rows", part)
	}

	estimate, result := w.land(period...)
	if estimate.Bytes == 0 || result.Rows == 0 || result.Rows > truth.Totals.Tuples-live {
		t.Errorf("estimate %+v, result %+v", estimate, result)
	}
	// The live pipeline starts again: what it had begun lands, the windows that it had
	// open close, and it reads nothing of these hours any more.
	w.run().drain()
	w.checkPast(truth)

	estimate, result = w.land(period...)
	if estimate.Blobs["todo"] != 0 || estimate.Blobs["landed"] != int64(len(truth.Blobs)) || result.Rows != 0 {
		t.Errorf("a second backfill: estimate %+v, result %+v", estimate, result)
	}
	w.checkPast(truth)
}

// A recorded tree lands once, whatever of it has landed before and how often it is
// replayed; what it landed, the storage account's blobs of the same names need not land
// again. Two at a time are refused.
func TestReplayLandsATreeOnce(t *testing.T) {
	w := newWorld(t, jobtest.SweeperOff)
	first := time.Now().UTC().Truncate(time.Hour).Add(-80 * time.Hour)
	root := t.TempDir()
	record := func(hours int) traffic.Truth {
		return w.past(traffic.NewDirectoryWriter(filepath.Join(root, w.Account)), first, first.Add(time.Duration(hours)*30*time.Minute), 0)
	}
	record(1)
	_, result := w.land("replay", root, "--yes")
	if result.Rows == 0 {
		t.Fatalf("result %+v", result)
	}
	one := result.Rows
	truth := record(2)
	if err := os.Symlink("/etc/passwd", filepath.Join(root, w.Account, "PT1H.json")); err != nil {
		t.Fatal(err)
	}
	estimate, result := w.land("replay", root, "--yes")
	if result.Rows != truth.Totals.Tuples-one || estimate.Resumed == 0 || estimate.Skipped["link"] != 1 {
		t.Errorf("%d rows of the tree that grew, want %d: %+v", result.Rows, truth.Totals.Tuples-one, estimate)
	}
	w.checkPast(truth)
	if _, result = w.land("replay", root, "--yes"); result.Rows != 0 || result.Blobs["todo"] != 0 {
		t.Errorf("a second replay: %+v", result)
	}
	truth = w.past(w.Blobs, first, first.Add(90*time.Minute), 0)
	estimate, result = w.land("backfill", "--yes", "--from", "now-100h", "--to", "now")
	if estimate.Blobs["landed"] == 0 || result.Rows == 0 {
		t.Errorf("estimate %+v, result %+v", estimate, result)
	}
	w.checkPast(truth)

	lock, err := ledger.OpenDirectory(filepath.Join(w.State(), "backfill"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	out, err := w.millrace("replay", root, "--yes").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "one backfill or replay at a time") {
		t.Errorf("two at a time: %v: %s", err, out)
	}
}

// A watched pipeline of directories reads what is new of files that grow, and nothing
// twice, whatever their age. In one pass it ends by itself.
func TestDirectories(t *testing.T) {
	w := newWorld(t, jobtest.SweeperOff)
	root := t.TempDir()
	at, to := strings.Index(w.YAML, "accounts:"), strings.Index(w.YAML, "clickhouse:")
	w.YAML = w.YAML[:at] + fmt.Sprintf("directories: [{path: %q}]\n", root) + w.YAML[to:]
	w.YAML = strings.Replace(w.YAML, "start: now-4h", "start: 2020-01-01T00:00:00Z", 1)
	onePass := w.YAML
	w.YAML += "directory_source: {watch: true, interval: 100ms}\n"
	if err := os.Mkdir(filepath.Join(root, w.Account), 0o700); err != nil {
		t.Fatal(err)
	}
	r := w.run()
	first := time.Now().UTC().Truncate(time.Hour).Add(-2000 * time.Hour)
	truth := w.past(traffic.NewDirectoryWriter(filepath.Join(root, w.Account)), first, first.Add(time.Hour), 150_000)
	w.WaitFor("SELECT count() FROM millrace.flows", fmt.Sprint(truth.Totals.Tuples))
	if n := w.Number("SELECT max(generation) FROM millrace.flows"); n != 0 {
		t.Errorf("generation %d: a file that only grew was taken for another one", n)
	}
	r.drain()
	w.checkPast(truth)
	w.YAML = onePass
	if out, err := w.millrace("run").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.checkPast(truth)
	// A resharding lands what is pending, and reads nothing new.
	w.past(traffic.NewDirectoryWriter(filepath.Join(root, w.Account)), first.Add(time.Hour), first.Add(2*time.Hour), 0)
	w.Must("ledger", "reshard", "--shards", "2", "--yes")
	w.checkPast(truth)
}
