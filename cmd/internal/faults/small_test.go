package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// small is a job without services but ClickHouse: one shard reads a folder of logs in
// one pass, commits it in one batch of three days, writes a base, and ends. All that
// it has stands in one folder, so that a copy begins at the same place again, with
// the same names of tables, parts and ledger objects.
type small struct {
	root string
	// enriched gives the ledger a transform and its data to keep.
	enriched bool
}

func (s small) state() string { return filepath.Join(s.root, "state") }
func (s small) data() string  { return filepath.Join(s.root, "clickhouse") }
func (s small) logs() string  { return filepath.Join(s.root, "logs") }
func (s small) names() string { return filepath.Join(s.root, "names.csv") }

const smallAccount = "millrace"

// smallDays are the partitions of each commit.
var smallDays = []time.Time{
	time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC),
	time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC),
	time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC),
}

// write adds the logs of two interfaces on each day and gives the number of tuples.
func (s small) write(t *testing.T, seed uint64) uint64 {
	t.Helper()
	var tuples uint64
	for _, day := range smallDays {
		cfg := traffic.DefaultConfig()
		cfg.Seed, cfg.Account, cfg.NICs, cfg.TuplesPerMinute = seed, smallAccount, 2, 40
		cfg.Start, cfg.Until = day, day.Add(3*time.Minute)
		sim, err := traffic.New(cfg, traffic.Deps{
			Blobs: traffic.NewDirectoryWriter(s.logs()), Publish: func(context.Context, string, []byte) error { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := sim.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		tuples += sim.Truth().Totals.Tuples
	}
	return tuples
}

// template makes a folder in which two commits are done and the logs of a third one
// wait. It gives the number of tuples of all three.
func template(t *testing.T, enriched bool) (small, uint64) {
	t.Helper()
	s := small{root: filepath.Join(t.TempDir(), "template"), enriched: enriched}
	if err := os.Mkdir(s.root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.names(), []byte("cidr,name\n10.0.0.0/8,inside\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var tuples uint64
	ch := s.start(t, clickhouseProgram(t), 0)
	for seed := uint64(1); seed <= 2; seed++ {
		tuples += s.write(t, seed)
		if err := s.world(t, ch.HTTPURL).finish(t); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, tuples + s.write(t, 3)
}

// copyTo gives a copy under another root, in place of what was there.
func (s small) copyTo(t *testing.T, root string) small {
	t.Helper()
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(root, os.DirFS(s.root)); err != nil {
		t.Fatal(err)
	}
	to := small{root: root, enriched: s.enriched}
	if err := os.Chmod(to.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	return to
}

func clickhouseProgram(t *testing.T) string {
	t.Helper()
	return pipelinetest.RequirePart(t, localtest.EnvClickHouse)
}

// start starts the ClickHouse of the folder; port 0 takes any.
func (s small) start(t *testing.T, bin string, port int) *servers.ClickHouse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobtest.Patience)
	defer cancel()
	ch, err := servers.StartClickHouse(ctx, servers.ClickHouseOptions{
		Bin: bin, Lib: pipelinetest.RequirePart(t, localtest.EnvLibrary), Dir: s.data(), HTTPPort: port, MemoryLimit: 2 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	if port != 0 && ch.PortsMoved {
		t.Fatalf("port %d was taken meanwhile", port)
	}
	t.Cleanup(ch.Kill)
	return ch
}

// smallWorld is a small job with its ClickHouse.
type smallWorld struct{ *jobtest.World }

// world has its ClickHouse at the URL.
func (s small) world(t *testing.T, url string) smallWorld {
	t.Helper()
	w := &jobtest.World{T: t, YAML: fmt.Sprintf(`
state: %q
shards: 1
start: 2020-01-01T00:00:00Z
listen: ""
max_batch_age: 1s
memory_budget_mib: 128
directories: [{path: %q, account: %s, container: %s}]
clickhouse: {url: %q, database: %s}
`, s.state(), filepath.Join(s.logs(), jobtest.VNetLogs), smallAccount, jobtest.VNetLogs, url, jobtest.Database)}
	if s.enriched {
		w.YAML += fmt.Sprintf("enrich: {names_file: %q}\n", s.names())
	}
	cfg := clickhouse.DefaultConfig()
	cfg.URL, cfg.Database = url, "system"
	var err error
	if w.Tables, err = clickhouse.New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Tables.Close() })
	return smallWorld{w}
}

// ended waits for the end of a program.
func ended(p *jobtest.Program) bool {
	select {
	case <-p.Done:
		return true
	case <-time.After(jobtest.Patience):
		return false
	}
}

// finish runs the pipeline to the end of its input.
func (w smallWorld) finish(t *testing.T) error {
	t.Helper()
	p := w.Launch()
	if !ended(p) {
		return fmt.Errorf("it does not end: %s", p.Said())
	}
	if code := p.Cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("it does not start again: exit code %d: %s", code, p.Said())
	}
	return nil
}

// balance is what is wrong with the tables.
type balance struct {
	Lost uint64 `json:"lost"`
	Dup  uint64 `json:"dup"`
}

func (b *balance) add(o balance) {
	b.Lost += o.Lost
	b.Dup += o.Dup
}

// reconcile compares the tables with the truth.
func (w smallWorld) reconcile(t *testing.T, tuples uint64) balance {
	t.Helper()
	rows := w.Number("SELECT count() FROM millrace.flows")
	twice := w.Number(jobtest.AddressesTwice)
	b := balance{Dup: twice}
	if unique := rows - twice; unique < tuples {
		b.Lost = tuples - unique
	}
	w.Exact(tuples)
	return b
}
