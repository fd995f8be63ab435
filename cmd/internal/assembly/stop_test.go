package assembly_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/pipeline/ledger"
)

// A pipeline under load that is asked to stop ends within seconds, and the next one
// goes on where it stopped: nothing is read again. One that is stopped hard, or
// killed, ends at once, and what it was reading is read again. Nothing is lost or
// doubled by any of them.
func TestStopsUnderLoad(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	stopEstate := w.Estate(10_000)
	var landed uint64
	stop := func(how string, most time.Duration, code int, signals ...os.Signal) jobtest.Status {
		t.Helper()
		p := w.StartProgram()
		before := landed
		w.WaitUntil("more rows", func() bool {
			n := w.Number("SELECT count() FROM millrace.flows")
			return n > before+10_000
		})
		last, took := p.Stop(signals...)
		landed = w.Number("SELECT count() FROM millrace.flows")
		if got := p.Cmd.ProcessState.ExitCode(); took > most || got != code {
			t.Errorf("%s: exit code %d after %v, want %d within %v", how, got, took, code, most)
		}
		return last
	}
	var fetched int64
	fetched += stop("soft", 15*time.Second, 0, syscall.SIGTERM).BytesFetched
	fetched += stop("interrupt", 15*time.Second, 0, os.Interrupt).BytesFetched
	// Each soft stop has landed what it had read, and the start after it went on there.
	bytes, rows := w.Number("SELECT sum(length) FROM millrace.batches FINAL"), w.Number("SELECT sum(rows) FROM millrace.batches FINAL")
	if rows != landed || float64(fetched) > 1.05*float64(bytes) {
		t.Errorf("after two soft stops: %d bytes were fetched for %d that landed, with %d of %d rows", fetched, bytes, rows, landed)
	}
	fetched += stop("hard", 5*time.Second, 0, syscall.SIGTERM, syscall.SIGTERM).BytesFetched
	fetched += stop("killed", 5*time.Second, -1, syscall.SIGKILL).BytesFetched

	last := w.StartProgram("--end-of-input-on-stop")
	w.WaitUntil("more rows", func() bool { return w.Number("SELECT count() FROM millrace.flows") > landed })
	truth := stopEstate()
	s, took := last.Stop(syscall.SIGTERM)
	fetched += s.BytesFetched
	if code := last.Cmd.ProcessState.ExitCode(); code != 0 || took > 30*time.Second {
		t.Errorf("end of input: exit code %d after %v", code, took)
	}
	if n := w.Number("SELECT count() FROM millrace.flows"); n != truth.Totals.Tuples {
		t.Errorf("%d rows, want %d", n, truth.Totals.Tuples)
	}
	if twice := w.Number(jobtest.AddressesTwice); twice != 0 {
		t.Errorf("%d tuple addresses are twice in flows", twice)
	}
	if n := w.Number("SELECT sum(rows) FROM millrace.windows_traffic_1m"); n != truth.Totals.Tuples {
		t.Errorf("%d rows in windows, want %d", n, truth.Totals.Tuples)
	}
	if float64(fetched) > 3*float64(truth.Totals.Bytes) {
		t.Errorf("%d bytes were fetched of blobs of %d", fetched, truth.Totals.Bytes)
	}
}

// deadWorld is a configuration whose target never answers.
func deadWorld(t *testing.T) *world {
	t.Helper()
	t.Setenv("TEST_STORAGE_KEY", "a2V5")
	return &world{World: &jobtest.World{T: t, YAML: fmt.Sprintf(`
state: %q
start: now
listen: ""
accounts:
  - {name: logs, endpoint: "http://127.0.0.1:1/logs", containers: [logs], key: {env: TEST_STORAGE_KEY}}
clickhouse: {url: "http://127.0.0.1:1"}
`, filepath.Join(t.TempDir(), "state"))}}
}

// A start that waits for its target can be stopped, too.
func TestStopWhileStarting(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		p := deadWorld(t).Launch()
		for deadline := time.Now().Add(jobtest.Patience); !strings.Contains(p.Said(), "waiting for it\" what=target"); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it does not wait for its target: %s", p.Said())
			}
		}
		if _, took := p.Stop(s); took > 5*time.Second || p.Cmd.ProcessState.ExitCode() != 1 || !strings.Contains(p.Said(), "millrace: stopped while starting") {
			t.Errorf("%v: exit code %d after %v, said %s", s, p.Cmd.ProcessState.ExitCode(), took, p.Said())
		}
	}
}

// Two pipelines cannot have one ledger; the second one says so at once, whether the
// target is there or not.
func TestLedgerInUse(t *testing.T) {
	w := deadWorld(t)
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		t.Fatal(err)
	}
	d, err := ledger.OpenDirectory(cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := w.Launch()
	select {
	case <-p.Done:
	case <-time.After(jobtest.Patience):
		t.Fatal("it goes on")
	}
	if code := p.Cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.Said(), "is in use by another process: stop it first, or give this pipeline a folder of its own") {
		t.Errorf("exit code %d, said %s", code, p.Said())
	}
}
