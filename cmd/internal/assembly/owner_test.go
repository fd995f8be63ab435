package assembly_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/jobtest"
)

// Instances over one ledger, under load: the owner is frozen and wakes up late, is
// killed, is stopped softly. Each time another takes over, and nothing is lost or
// doubled.
func TestInstancesShareALedger(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	w.SharedLedger()
	stopEstate := w.Estate(6_000)
	more := func() {
		t.Helper()
		before := w.Number("SELECT count() FROM millrace.flows")
		w.WaitUntil("more rows", func() bool { return w.Number("SELECT count() FROM millrace.flows") > before+3_000 })
	}
	a := w.Instance()
	first := a.Until("owner", jobtest.Owns)
	b := w.Instance()
	if s := b.Until("standby", jobtest.StandsBy); s.Owner != first.Owner || s.Epoch != first.Epoch || s.Live {
		t.Errorf("b stands by: %+v, behind %+v", s, first)
	}
	if got := b.Ready(); !strings.HasPrefix(got, "200 standby: instance ") {
		t.Errorf("b is %q", got)
	}
	more()

	// Frozen for longer than the expiry, and awake again.
	a.Signal(syscall.SIGSTOP)
	second := b.Until("owner", jobtest.Owns)
	if second.Epoch <= first.Epoch || second.Owner == first.Owner {
		t.Errorf("b owns %+v, behind %+v", second, first)
	}
	more()
	a.Signal(syscall.SIGCONT)
	if s := a.Until("standby", jobtest.StandsBy); s.Owner != second.Owner {
		t.Errorf("a stands by: %+v, behind %+v", s, second)
	}
	more()

	// Killed: the one that was frozen takes over, in the same process.
	b.Stop(syscall.SIGKILL)
	third := a.Until("owner", jobtest.Owns)
	if third.Owner != first.Owner || third.Epoch <= second.Epoch {
		t.Errorf("a owns %+v again, behind %+v", third, second)
	}
	more()

	// Stopped softly: the next one need not wait for the expiry.
	c := w.Instance("--end-of-input-on-stop")
	c.Until("standby", jobtest.StandsBy)
	if _, took := a.Stop(syscall.SIGTERM); took > 30*time.Second || a.Cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("a ended with %d after %v", a.Cmd.ProcessState.ExitCode(), took)
	}
	began := time.Now()
	c.Until("owner", func(s jobtest.Status) bool { return s.Role == "owner" })
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("c took over %v after a had released the ledger, want within the 1s between two looks", took)
	}
	c.Until("owner", jobtest.Owns)
	more()

	// A standby that is stopped ends at once.
	d := w.Instance()
	d.Until("standby", jobtest.StandsBy)
	if _, took := d.Stop(syscall.SIGTERM); took > 3*time.Second || d.Cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("a standby ended with %d after %v", d.Cmd.ProcessState.ExitCode(), took)
	}

	truth := stopEstate()
	if _, took := c.Stop(syscall.SIGTERM); took > 30*time.Second || c.Cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("c ended with %d after %v", c.Cmd.ProcessState.ExitCode(), took)
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
}
