package assembly_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A running pipeline takes over what can change, refuses the rest as a whole with
// its key, and goes on. `millrace check` finds nothing wrong with what it runs on.
func TestReloadOfARunningPipeline(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	stopEstate := w.Estate(2_000)
	p := w.StartProgram()
	p.Edit("max_batch_age: 1s", "max_batch_age: 2s\nlog_level: debug", "configuration reloaded")
	p.Edit("memory_budget_mib: 128", "memory_budget_mib: 256", "memory_budget_mib: cannot change while the pipeline runs")
	p.Edit("memory_budget_mib: 256", "memory_budget_mib: 128", "configuration reloaded")

	out, err := exec.Command(p.Cmd.Path, "check", "-c", p.File()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "faults: 0") || !strings.Contains(string(out), "may be listed and read") ||
		!strings.Contains(string(out), "may be read, 4 partitions") || !strings.Contains(string(out), "as the promise needs them") {
		t.Errorf("check: %v\n%s", err, out)
	}
	landed := w.Number("SELECT count() FROM millrace.flows")
	w.WaitUntil("more rows", func() bool { return w.Number("SELECT count() FROM millrace.flows") > landed })
	stopEstate()
	if _, took := p.Stop(syscall.SIGTERM); p.Cmd.ProcessState.ExitCode() != 0 || took > 15*time.Second {
		t.Errorf("exit code %d after %v", p.Cmd.ProcessState.ExitCode(), took)
	}
}
