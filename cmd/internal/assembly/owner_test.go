package assembly_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
)

// sharedLedger puts the ledger of a world into a container of its account.
func (w *world) sharedLedger() {
	w.t.Helper()
	cfg, err := config.Parse([]byte(w.yaml))
	if err != nil {
		w.t.Fatal(err)
	}
	w.yaml += fmt.Sprintf("ledger: {expiry: 5s, azure: {name: %s, endpoint: %q, container: ledgers, prefix: test, key: {env: TEST_STORAGE_KEY}}}\n",
		cfg.Accounts[0].Name, cfg.Accounts[0].Endpoint)
}

// instance starts the program with a folder of its own, as on another machine.
func (w *world) instance(args ...string) *program {
	w.t.Helper()
	before := w.yaml
	cfg, err := config.Parse([]byte(before))
	if err != nil {
		w.t.Fatal(err)
	}
	w.yaml = strings.Replace(before, cfg.State, filepath.Join(w.t.TempDir(), "state"), 1)
	p := w.launch(args...)
	w.yaml = before
	p.awaitPages()
	return p
}

func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) ready() string {
	p.t.Helper()
	resp, err := http.Get(p.url + "/readyz")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text)))
}

func owns(s status) bool     { return s.Role == "owner" && s.Live }
func standsBy(s status) bool { return s.Role == "standby" }

// Instances over one ledger, under load: the owner is frozen and wakes up late, is
// killed, is stopped softly. Each time another takes over, and nothing is lost or
// doubled.
func TestInstancesShareALedger(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	w.sharedLedger()
	stopEstate := w.estate(6_000)
	more := func() {
		t.Helper()
		before := w.number("SELECT count() FROM millrace.flows")
		w.waitUntil("more rows", func() bool { return w.number("SELECT count() FROM millrace.flows") > before+3_000 })
	}
	a := w.instance()
	first := a.until("owner", owns)
	b := w.instance()
	if s := b.until("standby", standsBy); s.Owner != first.Owner || s.Epoch != first.Epoch || s.Live {
		t.Errorf("b stands by: %+v, behind %+v", s, first)
	}
	if got := b.ready(); !strings.HasPrefix(got, "200 standby: instance ") {
		t.Errorf("b is %q", got)
	}
	more()

	// Frozen for longer than the expiry, and awake again.
	a.signal(syscall.SIGSTOP)
	second := b.until("owner", owns)
	if second.Epoch <= first.Epoch || second.Owner == first.Owner {
		t.Errorf("b owns %+v, behind %+v", second, first)
	}
	more()
	a.signal(syscall.SIGCONT)
	if s := a.until("standby", standsBy); s.Owner != second.Owner {
		t.Errorf("a stands by: %+v, behind %+v", s, second)
	}
	more()

	// Killed: the one that was frozen takes over, in the same process.
	b.stop(syscall.SIGKILL)
	third := a.until("owner", owns)
	if third.Owner != first.Owner || third.Epoch <= second.Epoch {
		t.Errorf("a owns %+v again, behind %+v", third, second)
	}
	more()

	// Stopped softly: the next one need not wait for the expiry.
	c := w.instance("--end-of-input-on-stop")
	c.until("standby", standsBy)
	if _, took := a.stop(syscall.SIGTERM); took > 30*time.Second || a.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("a ended with %d after %v", a.cmd.ProcessState.ExitCode(), took)
	}
	began := time.Now()
	c.until("owner", func(s status) bool { return s.Role == "owner" })
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("c took over %v after a had released the ledger, want within the 1s between two looks", took)
	}
	c.until("owner", owns)
	more()

	// A standby that is stopped ends at once.
	d := w.instance()
	d.until("standby", standsBy)
	if _, took := d.stop(syscall.SIGTERM); took > 3*time.Second || d.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("a standby ended with %d after %v", d.cmd.ProcessState.ExitCode(), took)
	}

	truth := stopEstate()
	if _, took := c.stop(syscall.SIGTERM); took > 30*time.Second || c.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("c ended with %d after %v", c.cmd.ProcessState.ExitCode(), took)
	}
	if n := w.number("SELECT count() FROM millrace.flows"); n != truth.Totals.Tuples {
		t.Errorf("%d rows, want %d", n, truth.Totals.Tuples)
	}
	if twice := w.number(noAddressTwice); twice != 0 {
		t.Errorf("%d tuple addresses are twice in flows", twice)
	}
	if n := w.number("SELECT sum(rows) FROM millrace.windows_traffic_1m"); n != truth.Totals.Tuples {
		t.Errorf("%d rows in windows, want %d", n, truth.Totals.Tuples)
	}
}
