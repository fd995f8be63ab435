package assembly_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// windowsDiffer counts groups of a minute whose window rows do not add up to what is
// computed anew from the flow rows.
const windowsDiffer = `SELECT count() FROM
(SELECT toUnixTimestamp(toStartOfMinute(time)) AS w, mac, direction, action, protocol, count() AS n, sum(bytes_sent) AS b FROM millrace.flows GROUP BY ALL) AS f
FULL OUTER JOIN
(SELECT toUnixTimestamp(toDateTime(window_start)) AS w, mac, direction, action, protocol, sum(rows) AS n, sum(bytes_sent) AS b FROM millrace.windows_traffic_1m GROUP BY ALL) AS t
ON f.w = t.w AND f.mac = t.mac AND f.direction = t.direction AND f.action = t.action AND f.protocol = t.protocol
WHERE f.n != t.n OR f.b != t.b`

// command runs millrace with the world's configuration and gives what it printed.
func (w *world) command(args ...string) (out string, code int) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "millrace.yaml")
	if err := os.WriteFile(file, []byte(w.yaml), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(pipelinetest.RequirePart(w.t, envProgram), append(args, "--config", file)...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	w.t.Logf("millrace %s: exit code %d\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), text)
	return string(text), cmd.ProcessState.ExitCode()
}

// must is command that has to go well.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, code := w.command(args...)
	if code != 0 {
		w.t.Fatalf("millrace %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

func (w *world) summary() (s ledger.Summary) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(w.must("ledger", "show", "-o", "json")), &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// more waits until so many further rows have landed.
func (w *world) more(rows uint64) {
	w.t.Helper()
	before := w.number("SELECT count() FROM millrace.flows")
	w.waitUntil("more rows", func() bool { return w.number("SELECT count() FROM millrace.flows") > before+rows })
}

// exact compares everything with the truth.
func (w *world) exact(tuples uint64) {
	w.t.Helper()
	for what, c := range map[string]struct {
		sql  string
		want uint64
	}{
		"rows":                                 {"SELECT count() FROM millrace.flows", tuples},
		"tuple addresses that are there twice": {noAddressTwice, 0},
		"rows in windows":                      {"SELECT sum(rows) FROM millrace.windows_traffic_1m", tuples},
		"rows in windows of 5 min":             {"SELECT sum(rows) FROM millrace.windows_rules_5m", tuples},
		"groups whose windows differ":          {windowsDiffer, 0},
		"rows in batches":                      {"SELECT sum(rows) FROM millrace.batches FINAL", tuples},
	} {
		if got := w.number(c.sql); got != c.want {
			w.t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

// The ledger of a killed pipeline is lost. A start alone is refused; a rebuilt ledger
// goes on, and nothing is lost or doubled, nor in the windows.
func TestLostLedgerIsRebuilt(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	w.sharedLedger()
	stopEstate := w.estate(6_000)
	cfg, err := config.Parse([]byte(w.yaml))
	if err != nil {
		t.Fatal(err)
	}
	p := w.startProgram()
	w.more(6_000)
	p.stop(syscall.SIGTERM) // a checkpoint, with open windows
	p = w.startProgram()
	w.more(6_000)
	before := w.summary()
	if before.Shards != 4 || before.ID != 1 || before.State[0].Next == 1 || before.Owner == nil || before.Owner.Epoch != before.Epoch {
		t.Errorf("show beside the pipeline: %+v", before)
	}
	p.stop(syscall.SIGKILL)
	if out, code := w.command("ledger", "rebuild", "--yes"); code != 1 || !strings.Contains(out, "holds a ledger") {
		t.Errorf("rebuild of a ledger that is there: %d, %s", code, out)
	}
	w.lose(cfg, "lost")
	if out, code := w.command("run"); code != 1 || !strings.Contains(out, "this ledger never wrote to it") {
		t.Errorf("a start without the ledger: %d, %s", code, out)
	}
	if out := w.must("ledger", "rebuild"); !strings.Contains(out, "nothing was changed: --yes does it") || !strings.Contains(out, "rows behind the last checkpoint would be taken back from table flows") {
		t.Errorf("dry run: %s", out)
	}
	if out, code := w.command("ledger", "show"); code != 1 || !strings.Contains(out, "millrace ledger rebuild") {
		t.Errorf("show without a ledger: %d, %s", code, out)
	}
	w.rebuild(before)
	p = w.startProgram("--end-of-input-on-stop")
	w.more(2_000)
	truth := stopEstate()
	p.stop(syscall.SIGTERM)
	w.exact(truth.Totals.Tuples)
}

// rebuild makes the lost ledger again.
func (w *world) rebuild(before ledger.Summary) {
	w.t.Helper()
	if out := w.must("ledger", "rebuild", "--yes"); strings.Contains(out, " 0 byte ranges") {
		w.t.Errorf("no window was open: the test proves little")
	}
	after := w.summary()
	if after.ID != before.ID || after.Name != before.Name || after.Epoch <= before.Epoch || after.Shards != before.Shards || after.Start.Sub(before.Start).Abs() > time.Second {
		w.t.Errorf("rebuilt %+v, was %+v", after, before)
	}
	for i, s := range after.State {
		if s.Next <= before.State[i].Next || s.Pending != 0 {
			w.t.Errorf("shard %d goes on at %d, was at %d; %d pending", i, s.Next, before.State[i].Next, s.Pending)
		}
	}
}

// lose deletes the ledger's folder, or points to an empty place in the container.
func (w *world) lose(cfg config.Config, place string) {
	w.t.Helper()
	if err := os.RemoveAll(cfg.State); err != nil {
		w.t.Fatal(err)
	}
	if at := strings.Index(w.yaml, "prefix: "); at >= 0 {
		end := strings.Index(w.yaml[at:], ",")
		w.yaml = w.yaml[:at] + "prefix: " + place + w.yaml[at+end:]
	}
}

// 4 shards become 7, then 2, with load between, behind soft stops and a kill.
func TestReshard(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	stopEstate := w.estate(6_000)
	p := w.startProgram()
	w.more(4_000)
	if out, code := w.command("ledger", "reshard", "--shards", "7", "--yes"); code != 1 || !strings.Contains(out, "is in use by another process") {
		t.Errorf("beside the pipeline: %d, %s", code, out)
	}
	p.stop(syscall.SIGTERM)
	if out := w.must("ledger", "reshard", "--shards", "7"); !strings.Contains(out, "nothing was changed") || w.summary().Shards != 4 {
		t.Errorf("dry run: %s", out)
	}
	w.must("ledger", "reshard", "--shards", "7", "--yes")
	before := w.summary()
	if before.Shards != 7 || len(before.State) != 7 {
		t.Errorf("resharded: %+v", before)
	}
	p = w.startProgram()
	w.more(8_000)
	p.stop(syscall.SIGKILL) // what is pending lands first
	w.must("ledger", "reshard", "--shards", "2", "--yes")
	after := w.summary()
	for _, s := range after.State {
		if s.Next <= before.State[0].Next {
			t.Errorf("shard %d goes on at %d, was at %d", s.Shard, s.Next, before.State[0].Next)
		}
	}
	if busy := w.number("SELECT uniqExact(bitAnd(bitShiftRight(batch_id, 36), 4095)) FROM millrace.flows"); busy < 5 {
		t.Errorf("rows of %d shards, want of more than 4", busy)
	}
	p = w.startProgram()
	w.more(4_000)
	// A ledger that is lost after a resharding is rebuilt, with its windows.
	cfg, err := config.Parse([]byte(w.yaml))
	if err != nil {
		t.Fatal(err)
	}
	p.stop(syscall.SIGTERM)
	p = w.startProgram()
	w.more(2_000)
	p.stop(syscall.SIGKILL)
	before = w.summary()
	w.lose(cfg, "")
	w.rebuild(before)
	p = w.startProgram("--end-of-input-on-stop")
	w.more(2_000)
	truth := stopEstate()
	p.stop(syscall.SIGTERM)
	w.exact(truth.Totals.Tuples)
}
