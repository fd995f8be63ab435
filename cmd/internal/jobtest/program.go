package jobtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// EnvProgram says where the program is; `make test` builds it and sets this.
const EnvProgram = "MILLRACE_BIN"

// Program is `millrace run` in a process of its own.
type Program struct {
	T     *testing.T
	Cmd   *exec.Cmd
	pages chan string // the address of its pages, once it has started
	URL   string      // the same
	Done  chan struct{}

	mu  sync.Mutex
	log strings.Builder
}

var pagesLine = regexp.MustCompile(`msg="pipeline (?:starts|stands by)".* status=(http://\S+)/status`)

// StartProgram returns when the pipeline has recovered.
func (w *World) StartProgram(args ...string) *Program {
	w.T.Helper()
	p := w.Launch(args...)
	p.AwaitPages()
	p.Until("live", func(s Status) bool { return s.Live })
	return p
}

// AwaitPages returns when the program serves its pages.
func (p *Program) AwaitPages() {
	p.T.Helper()
	select {
	case p.URL = <-p.pages:
	case <-p.Done:
		p.T.Fatalf("it ended while starting: %s", p.Said())
	case <-time.After(Patience):
		p.T.Fatalf("it has not started within %v", Patience)
	}
}

// Serves is AwaitPages that does not wait.
func (p *Program) Serves() bool {
	select {
	case p.URL = <-p.pages:
	default:
	}
	return p.URL != ""
}

// Launch starts the program; what is left of it is killed when the test ends.
func (w *World) Launch(args ...string) *Program {
	w.T.Helper()
	file := filepath.Join(w.T.TempDir(), "millrace.yaml")
	yaml := strings.Replace(w.YAML, `listen: ""`, "listen: 127.0.0.1:0", 1)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		w.T.Fatal(err)
	}
	p := &Program{T: w.T, pages: make(chan string, 1), Done: make(chan struct{})}
	bin := w.Bin
	if bin == "" {
		bin = pipelinetest.RequirePart(w.T, EnvProgram)
	}
	p.Cmd = exec.Command(bin, append([]string{"run", "--config", file}, args...)...)
	p.Cmd.Env = append(os.Environ(), w.Env...)
	stderr, err := p.Cmd.StderrPipe()
	if err != nil {
		w.T.Fatal(err)
	}
	if err := p.Cmd.Start(); err != nil {
		w.T.Fatal(err)
	}
	go p.read(stderr)
	w.T.Cleanup(func() {
		_ = p.Cmd.Process.Kill() // it may have ended
		<-p.Done
		if w.T.Failed() {
			w.T.Logf("%v:\n%s", p.Cmd.Args, p.Said())
		}
	})
	return p
}

func (p *Program) read(stderr io.Reader) {
	defer close(p.Done)
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
	_ = p.Cmd.Wait() // the state says how
}

// Said is what it has logged so far.
func (p *Program) Said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Status is what the program tells of itself.
type Status struct {
	Role         string `json:"role"`
	Owner        string `json:"owner"`
	Epoch        uint64 `json:"epoch"`
	Live         bool   `json:"live"`
	Landed       int64  `json:"landed"`
	Behind       int64  `json:"behind"` // messages that wait at the sources
	BytesFetched int64  `json:"bytes_fetched"`
}

// Ask is false when nobody answers.
func (p *Program) Ask() (s Status, ok bool) {
	resp, err := http.Get(p.URL + "/status")
	if err != nil {
		return s, false
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s) == nil
}

// Until waits for a status.
func (p *Program) Until(what string, reached func(Status) bool) Status {
	p.T.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(10 * time.Millisecond) {
		if s, ok := p.Ask(); ok && reached(s) {
			return s
		}
		if time.Now().After(deadline) {
			p.T.Fatalf("not %s within %v", what, Patience)
		}
	}
}

// Stop sends the signals, and gives the last status and the time until the end.
func (p *Program) Stop(signals ...os.Signal) (last Status, took time.Duration) {
	p.T.Helper()
	last, _ = p.Ask()
	began := time.Now()
	for _, s := range signals {
		if err := p.Cmd.Process.Signal(s); err != nil {
			p.T.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // two at once could be taken for one
	}
	for {
		select {
		case <-p.Done:
			return last, time.Since(began)
		case <-time.After(2 * time.Millisecond):
			if s, ok := p.Ask(); ok {
				last = s
			}
		}
		if time.Since(began) > Patience {
			p.T.Fatalf("it did not end within %v", Patience)
		}
	}
}

// Kill is kill -9, at once.
func (p *Program) Kill() {
	_ = p.Cmd.Process.Kill() // it may have ended
	<-p.Done
}

// File is the program's configuration.
func (p *Program) File() string {
	return p.Cmd.Args[slices.Index(p.Cmd.Args, "--config")+1]
}

// Edit changes the configuration and sends SIGHUP, then waits until the program has
// Said the text once more than before.
func (p *Program) Edit(old, fresh, says string) {
	p.T.Helper()
	data, err := os.ReadFile(p.File())
	if err != nil {
		p.T.Fatal(err)
	}
	before := strings.Count(p.Said(), says)
	if err := os.WriteFile(p.File(), []byte(strings.Replace(string(data), old, fresh, 1)), 0o600); err != nil {
		p.T.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	for deadline := time.Now().Add(Patience); strings.Count(p.Said(), says) == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.T.Fatalf("it did not say %q", says)
		}
	}
}

// Instance starts the program with a folder of its own, as on another machine.
func (w *World) Instance(args ...string) *Program {
	w.T.Helper()
	before := w.YAML
	w.YAML = strings.Replace(before, w.State(), filepath.Join(w.T.TempDir(), "state"), 1)
	p := w.Launch(args...)
	w.YAML = before
	p.AwaitPages()
	return p
}

// Signal sends one.
func (p *Program) Signal(s syscall.Signal) {
	p.T.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.T.Fatal(err)
	}
}

// Ready gives the status code and text of its page /readyz.
func (p *Program) Ready() string {
	p.T.Helper()
	resp, err := http.Get(p.URL + "/readyz")
	if err != nil {
		p.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.T.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text)))
}

// Owns says that it owns the ledger and has recovered.
func Owns(s Status) bool { return s.Role == "owner" && s.Live }

// StandsBy says that another one owns the ledger.
func StandsBy(s Status) bool { return s.Role == "standby" }
