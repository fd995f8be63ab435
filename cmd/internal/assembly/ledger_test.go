package assembly_test

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/ledger"
)

func (w *world) summary() (s ledger.Summary) {
	w.T.Helper()
	if err := json.Unmarshal([]byte(w.Must("ledger", "show", "-o", "json")), &s); err != nil {
		w.T.Fatal(err)
	}
	return s
}

// The ledger of a killed pipeline is lost. A start alone is refused; a rebuilt ledger
// goes on, and nothing is lost or doubled, nor in the windows.
func TestLostLedgerIsRebuilt(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	w.SharedLedger()
	stopEstate := w.Estate(6_000)
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		t.Fatal(err)
	}
	p := w.StartProgram()
	w.More(6_000)
	p.Stop(syscall.SIGTERM) // a checkpoint, with open windows
	p = w.StartProgram()
	w.More(6_000)
	before := w.summary()
	if before.Shards != 4 || before.ID != 1 || before.State[0].Next == 1 || before.Owner == nil || before.Owner.Epoch != before.Epoch {
		t.Errorf("show beside the pipeline: %+v", before)
	}
	p.Stop(syscall.SIGKILL)
	if out, code := w.Command("ledger", "rebuild", "--yes"); code != 1 || !strings.Contains(out, "holds a ledger") {
		t.Errorf("rebuild of a ledger that is there: %d, %s", code, out)
	}
	w.lose(cfg, "lost")
	if out, code := w.Command("run"); code != 1 || !strings.Contains(out, "this ledger never wrote to it") {
		t.Errorf("a start without the ledger: %d, %s", code, out)
	}
	if out := w.Must("ledger", "rebuild"); !strings.Contains(out, "nothing was changed: --yes does it") || !strings.Contains(out, "rows behind the last checkpoint would be taken back from table flows") {
		t.Errorf("dry run: %s", out)
	}
	if out, code := w.Command("ledger", "show"); code != 1 || !strings.Contains(out, "millrace ledger rebuild") {
		t.Errorf("show without a ledger: %d, %s", code, out)
	}
	w.rebuild(before)
	p = w.StartProgram("--end-of-input-on-stop")
	w.More(2_000)
	truth := stopEstate()
	p.Stop(syscall.SIGTERM)
	w.Exact(truth.Totals.Tuples)
}

// rebuild makes the lost ledger again.
func (w *world) rebuild(before ledger.Summary) {
	w.T.Helper()
	if out := w.Must("ledger", "rebuild", "--yes"); strings.Contains(out, " 0 byte ranges") {
		w.T.Errorf("no window was open: the test proves little")
	}
	after := w.summary()
	if after.ID != before.ID || after.Name != before.Name || after.Epoch <= before.Epoch || after.Shards != before.Shards || after.Start.Sub(before.Start).Abs() > time.Second {
		w.T.Errorf("rebuilt %+v, was %+v", after, before)
	}
	for i, s := range after.State {
		if s.Next <= before.State[i].Next || s.Pending != 0 {
			w.T.Errorf("shard %d goes on at %d, was at %d; %d pending", i, s.Next, before.State[i].Next, s.Pending)
		}
	}
}

// lose deletes the ledger's folder, or points to an empty place in the container.
func (w *world) lose(cfg config.Config, place string) {
	w.T.Helper()
	if err := os.RemoveAll(cfg.State); err != nil {
		w.T.Fatal(err)
	}
	if at := strings.Index(w.YAML, "prefix: "); at >= 0 {
		end := strings.Index(w.YAML[at:], ",")
		w.YAML = w.YAML[:at] + "prefix: " + place + w.YAML[at+end:]
	}
}

// 4 shards become 7, then 2, with load between, behind soft stops and a kill.
func TestReshard(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	stopEstate := w.Estate(6_000)
	p := w.StartProgram()
	w.More(4_000)
	if out, code := w.Command("ledger", "reshard", "--shards", "7", "--yes"); code != 1 || !strings.Contains(out, "is in use by another process") {
		t.Errorf("beside the pipeline: %d, %s", code, out)
	}
	p.Stop(syscall.SIGTERM)
	if out := w.Must("ledger", "reshard", "--shards", "7"); !strings.Contains(out, "nothing was changed") || w.summary().Shards != 4 {
		t.Errorf("dry run: %s", out)
	}
	w.Must("ledger", "reshard", "--shards", "7", "--yes")
	before := w.summary()
	if before.Shards != 7 || len(before.State) != 7 {
		t.Errorf("resharded: %+v", before)
	}
	p = w.StartProgram()
	w.More(8_000)
	p.Stop(syscall.SIGKILL) // what is pending lands first
	w.Must("ledger", "reshard", "--shards", "2", "--yes")
	after := w.summary()
	for _, s := range after.State {
		if s.Next <= before.State[0].Next {
			t.Errorf("shard %d goes on at %d, was at %d", s.Shard, s.Next, before.State[0].Next)
		}
	}
	if busy := w.Number("SELECT uniqExact(bitAnd(bitShiftRight(batch_id, 36), 4095)) FROM millrace.flows"); busy < 5 {
		t.Errorf("rows of %d shards, want of more than 4", busy)
	}
	p = w.StartProgram()
	w.More(4_000)
	// A ledger that is lost after a resharding is rebuilt, with its windows.
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		t.Fatal(err)
	}
	p.Stop(syscall.SIGTERM)
	p = w.StartProgram()
	w.More(2_000)
	p.Stop(syscall.SIGKILL)
	before = w.summary()
	w.lose(cfg, "")
	w.rebuild(before)
	p = w.StartProgram("--end-of-input-on-stop")
	w.More(2_000)
	truth := stopEstate()
	p.Stop(syscall.SIGTERM)
	w.Exact(truth.Totals.Tuples)
}
