package assembly_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// file is the program's configuration.
func (p *program) file() string {
	return p.cmd.Args[slices.Index(p.cmd.Args, "--config")+1]
}

// edit changes the configuration and sends SIGHUP, then waits until the program has
// said the text once more than before.
func (p *program) edit(old, fresh, says string) {
	p.t.Helper()
	data, err := os.ReadFile(p.file())
	if err != nil {
		p.t.Fatal(err)
	}
	before := strings.Count(p.said(), says)
	if err := os.WriteFile(p.file(), []byte(strings.Replace(string(data), old, fresh, 1)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); strings.Count(p.said(), says) == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it did not say %q", says)
		}
	}
}

// A running pipeline takes over what can change, refuses the rest as a whole with
// its key, and goes on. `millrace check` finds nothing wrong with what it runs on.
func TestReloadOfARunningPipeline(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	stopEstate := w.estate(2_000)
	p := w.startProgram()
	p.edit("max_batch_age: 1s", "max_batch_age: 2s\nlog_level: debug", "configuration reloaded")
	p.edit("memory_budget_mib: 128", "memory_budget_mib: 256", "memory_budget_mib: cannot change while the pipeline runs")
	p.edit("memory_budget_mib: 256", "memory_budget_mib: 128", "configuration reloaded")

	out, err := exec.Command(p.cmd.Path, "check", "-c", p.file()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "faults: 0") || !strings.Contains(string(out), "may be listed and read") ||
		!strings.Contains(string(out), "may be read, 4 partitions") || !strings.Contains(string(out), "as the promise needs them") {
		t.Errorf("check: %v\n%s", err, out)
	}
	landed := w.number("SELECT count() FROM millrace.flows")
	w.waitUntil("more rows", func() bool { return w.number("SELECT count() FROM millrace.flows") > landed })
	stopEstate()
	if _, took := p.stop(syscall.SIGTERM); p.cmd.ProcessState.ExitCode() != 0 || took > 15*time.Second {
		t.Errorf("exit code %d after %v", p.cmd.ProcessState.ExitCode(), took)
	}
}
