package assembly_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// envProgram says where the program is; `make test` builds it and sets this.
const envProgram = "MILLRACE_BIN"

// program is `millrace run` in a process of its own.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	pages chan string // the address of its pages, once it has started
	url   string      // the same
	done  chan struct{}

	mu  sync.Mutex
	log strings.Builder
}

var pagesLine = regexp.MustCompile(`msg="pipeline (?:starts|stands by)".* status=(http://\S+)/status`)

// startProgram returns when the pipeline has recovered.
func (w *world) startProgram(args ...string) *program {
	w.t.Helper()
	p := w.launch(args...)
	p.awaitPages()
	p.until("live", func(s status) bool { return s.Live })
	return p
}

// awaitPages returns when the program serves its pages.
func (p *program) awaitPages() {
	p.t.Helper()
	select {
	case p.url = <-p.pages:
	case <-p.done:
		p.t.Fatalf("it ended while starting: %s", p.said())
	case <-time.After(patience):
		p.t.Fatalf("it has not started within %v", patience)
	}
}

// launch starts the program; what is left of it is killed when the test ends.
func (w *world) launch(args ...string) *program {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "millrace.yaml")
	yaml := strings.Replace(w.yaml, `listen: ""`, "listen: 127.0.0.1:0", 1)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		w.t.Fatal(err)
	}
	p := &program{t: w.t, pages: make(chan string, 1), done: make(chan struct{})}
	p.cmd = exec.Command(pipelinetest.RequirePart(w.t, envProgram), append([]string{"run", "--config", file}, args...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go p.read(stderr)
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if w.t.Failed() {
			w.t.Logf("%v:\n%s", p.cmd.Args, p.said())
		}
	})
	return p
}

func (p *program) read(stderr io.Reader) {
	defer close(p.done)
	for s := bufio.NewScanner(stderr); s.Scan(); {
		if m := pagesLine.FindStringSubmatch(s.Text()); m != nil {
			select {
			case p.pages <- m[1]:
			default: // it says so again when it takes over, with the same address
			}
		}
		p.mu.Lock()
		p.log.WriteString(s.Text() + "\n")
		p.mu.Unlock()
	}
	_ = p.cmd.Wait() // the state says how
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// status is what the program tells of itself.
type status struct {
	Role         string `json:"role"`
	Owner        string `json:"owner"`
	Epoch        uint64 `json:"epoch"`
	Live         bool   `json:"live"`
	Landed       int64  `json:"landed"`
	BytesFetched int64  `json:"bytes_fetched"`
}

// ask is false when nobody answers.
func (p *program) ask() (s status, ok bool) {
	resp, err := http.Get(p.url + "/status")
	if err != nil {
		return s, false
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s) == nil
}

// until waits for a status.
func (p *program) until(what string, reached func(status) bool) status {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if s, ok := p.ask(); ok && reached(s) {
			return s
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not %s within %v", what, patience)
		}
	}
}

// stop sends the signals, and gives the last status and the time until the end.
func (p *program) stop(signals ...os.Signal) (last status, took time.Duration) {
	p.t.Helper()
	last, _ = p.ask()
	began := time.Now()
	for _, s := range signals {
		if err := p.cmd.Process.Signal(s); err != nil {
			p.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // two at once could be taken for one
	}
	for {
		select {
		case <-p.done:
			return last, time.Since(began)
		case <-time.After(2 * time.Millisecond):
			if s, ok := p.ask(); ok {
				last = s
			}
		}
		if time.Since(began) > patience {
			p.t.Fatalf("it did not end within %v", patience)
		}
	}
}

// estate writes logs until it is stopped, then gives the truth.
func (w *world) estate(rate float64) (stop func() traffic.Truth) {
	w.t.Helper()
	return w.estateInto(rate, func(_ context.Context, body []byte) error {
		_, err := w.hub.Publish(hubName, emulator.InTurn(), body, nil)
		return err
	})
}

// estateInto is estate with notifications that go another way.
func (w *world) estateInto(rate float64, publish func(ctx context.Context, body []byte) error) (stop func() traffic.Truth) {
	w.t.Helper()
	cfg := traffic.DefaultConfig()
	cfg.Account, cfg.NICs, cfg.TuplesPerMinute, cfg.TuplesPerSecond = w.account, 16, 1000, rate
	cfg.Start = time.Now().Add(-time.Hour)
	sim, err := traffic.New(cfg, traffic.Deps{Blobs: w.blobs, Publish: func(ctx context.Context, _ string, body []byte) error {
		return publish(ctx, body)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- sim.Run(ctx) }()
	stop = sync.OnceValue(func() traffic.Truth {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("estate: %v", err)
		}
		return sim.Truth()
	})
	w.t.Cleanup(func() { stop() })
	return stop
}

// A pipeline under load that is asked to stop ends within seconds, and the next one
// goes on where it stopped: nothing is read again. One that is stopped hard, or
// killed, ends at once, and what it was reading is read again. Nothing is lost or
// doubled by any of them.
func TestStopsUnderLoad(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 2s, discover: 2s}\n")
	stopEstate := w.estate(10_000)
	var landed uint64
	stop := func(how string, most time.Duration, code int, signals ...os.Signal) status {
		t.Helper()
		p := w.startProgram()
		before := landed
		w.waitUntil("more rows", func() bool {
			n := w.number("SELECT count() FROM millrace.flows")
			return n > before+10_000
		})
		last, took := p.stop(signals...)
		landed = w.number("SELECT count() FROM millrace.flows")
		if got := p.cmd.ProcessState.ExitCode(); took > most || got != code {
			t.Errorf("%s: exit code %d after %v, want %d within %v", how, got, took, code, most)
		}
		return last
	}
	var fetched int64
	fetched += stop("soft", 15*time.Second, 0, syscall.SIGTERM).BytesFetched
	fetched += stop("interrupt", 15*time.Second, 0, os.Interrupt).BytesFetched
	// Each soft stop has landed what it had read, and the start after it went on there.
	bytes, rows := w.number("SELECT sum(length) FROM millrace.batches FINAL"), w.number("SELECT sum(rows) FROM millrace.batches FINAL")
	if rows != landed || float64(fetched) > 1.05*float64(bytes) {
		t.Errorf("after two soft stops: %d bytes were fetched for %d that landed, with %d of %d rows", fetched, bytes, rows, landed)
	}
	fetched += stop("hard", 5*time.Second, 0, syscall.SIGTERM, syscall.SIGTERM).BytesFetched
	fetched += stop("killed", 5*time.Second, -1, syscall.SIGKILL).BytesFetched

	last := w.startProgram("--end-of-input-on-stop")
	w.waitUntil("more rows", func() bool { return w.number("SELECT count() FROM millrace.flows") > landed })
	truth := stopEstate()
	s, took := last.stop(syscall.SIGTERM)
	fetched += s.BytesFetched
	if code := last.cmd.ProcessState.ExitCode(); code != 0 || took > 30*time.Second {
		t.Errorf("end of input: exit code %d after %v", code, took)
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
	if float64(fetched) > 3*float64(truth.Totals.Bytes) {
		t.Errorf("%d bytes were fetched of blobs of %d", fetched, truth.Totals.Bytes)
	}
}

// deadWorld is a configuration whose target never answers.
func deadWorld(t *testing.T) *world {
	t.Helper()
	t.Setenv("TEST_STORAGE_KEY", "a2V5")
	return &world{t: t, yaml: fmt.Sprintf(`
state: %q
start: now
listen: ""
accounts:
  - {name: logs, endpoint: "http://127.0.0.1:1/logs", containers: [logs], key: {env: TEST_STORAGE_KEY}}
clickhouse: {url: "http://127.0.0.1:1"}
`, filepath.Join(t.TempDir(), "state"))}
}

// A start that waits for its target can be stopped, too.
func TestStopWhileStarting(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		p := deadWorld(t).launch()
		for deadline := time.Now().Add(patience); !strings.Contains(p.said(), "waiting for it\" what=target"); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it does not wait for its target: %s", p.said())
			}
		}
		if _, took := p.stop(s); took > 5*time.Second || p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(p.said(), "millrace: stopped while starting") {
			t.Errorf("%v: exit code %d after %v, said %s", s, p.cmd.ProcessState.ExitCode(), took, p.said())
		}
	}
}

// Two pipelines cannot have one ledger; the second one says so at once, whether the
// target is there or not.
func TestLedgerInUse(t *testing.T) {
	w := deadWorld(t)
	cfg, err := config.Parse([]byte(w.yaml))
	if err != nil {
		t.Fatal(err)
	}
	d, err := ledger.OpenDirectory(cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := w.launch()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.said(), "is in use by another process: stop it first, or give this pipeline a folder of its own") {
		t.Errorf("exit code %d, said %s", code, p.said())
	}
}

// number asks for one.
func (w *world) number(sql string) (n uint64) {
	w.t.Helper()
	if _, err := fmt.Sscan(w.ask(sql), &n); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// waitUntil asks until the condition holds.
func (w *world) waitUntil(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("no %s within %v", what, patience)
		}
	}
}
