package demo

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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// envProgram says where the program is; `make test` builds it and sets this.
const envProgram = "MILLRACE_BIN"

// patience bounds every wait of these tests: other packages' tests run beside.
const patience = 90 * time.Second

// smallEstate replays its hour in ten seconds.
var smallEstate = []string{"--nics", "8", "--tuples-per-minute", "100", "--rate", "5000"}

// demoRun is a real demo in a process of its own.
type demoRun struct {
	t    *testing.T
	cmd  *exec.Cmd
	dir  string
	out  lockedText
	done chan struct{}

	mu    sync.Mutex
	lines []string // of standard error
	news  chan struct{}
}

type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startDemo starts the program with a small estate in dir, or in the folder that it
// takes by itself. What is left of it is killed when the test ends.
func startDemo(t *testing.T, dir string, env []string, args ...string) *demoRun {
	t.Helper()
	program := pipelinetest.RequirePart(t, envProgram)
	pipelinetest.RequirePart(t, localtest.EnvLibrary)
	pipelinetest.RequirePart(t, localtest.EnvAzurite)
	r := &demoRun{t: t, dir: dir, done: make(chan struct{}), news: make(chan struct{})}
	args = append(append([]string{"demo"}, smallEstate...), args...)
	if dir != "" {
		args = append(args, "--dir", dir)
	}
	r.cmd = exec.Command(program, args...)
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.Stdout = &r.out
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go r.read(stderr)
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it may have ended
		<-r.done
		if t.Failed() {
			t.Logf("demo %v:\n%s\n%s", r.cmd.Args, r.text(), r.out.String())
		}
	})
	return r
}

// read collects the lines and waits for the end. The pipe ends when the demo does:
// its children have other ones.
func (r *demoRun) read(stderr io.Reader) {
	defer close(r.done)
	for s := bufio.NewScanner(stderr); s.Scan(); {
		r.mu.Lock()
		r.lines = append(r.lines, s.Text())
		close(r.news)
		r.news = make(chan struct{})
		r.mu.Unlock()
	}
	_ = r.cmd.Wait() // the state says how
}

func (r *demoRun) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// waitFor waits for a line and gives its submatches.
func (r *demoRun) waitFor(pattern string) []string {
	r.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for seen := 0; ; {
		r.mu.Lock()
		for ; seen < len(r.lines); seen++ {
			if m := re.FindStringSubmatch(r.lines[seen]); m != nil {
				r.mu.Unlock()
				return m
			}
		}
		news := r.news
		r.mu.Unlock()
		select {
		case <-news:
		case <-r.done:
			r.mu.Lock()
			ended := seen == len(r.lines)
			r.mu.Unlock()
			if ended {
				r.t.Fatalf("the demo ended without a line %q", pattern)
			}
		case <-timeout:
			r.t.Fatalf("no line %q within %v", pattern, patience)
		}
	}
}

func (r *demoRun) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// wait gives the exit code and how long it took to come.
func (r *demoRun) wait() (code int, took time.Duration) {
	r.t.Helper()
	began := time.Now()
	select {
	case <-r.done:
		return r.cmd.ProcessState.ExitCode(), time.Since(began)
	case <-time.After(patience):
		r.t.Fatalf("the demo did not end within %v", patience)
		return 0, 0
	}
}

// result reads the last line of a demo with -o json.
func (r *demoRun) result() Result {
	r.t.Helper()
	lines := strings.Split(strings.TrimSpace(r.out.String()), "\n")
	var res Result
	d := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	d.DisallowUnknownFields()
	if err := d.Decode(&res); err != nil {
		r.t.Fatalf("last line %q: %v", lines[len(lines)-1], err)
	}
	return res
}

// good waits for the end and wants everything to be where it belongs.
func (r *demoRun) good() Result {
	r.t.Helper()
	if code, _ := r.wait(); code != 0 {
		r.t.Fatalf("exit code %d, want 0", code)
	}
	res := r.result()
	if !res.Good() || !res.Reconciled || res.RowsLanded == 0 || res.TuplesWritten != res.RowsLanded+res.Quarantined {
		r.t.Fatalf("result %+v", res)
	}
	return res
}

// childrenOf lists the running processes whose parent is pid, with the names of
// their programs.
func childrenOf(t *testing.T, pid int) map[int]string {
	t.Helper()
	found := map[int]string{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …, and the name may hold anything.
		stat := string(data)
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		program, err := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil || len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		found[child] = filepath.Base(program)
	}
	return found
}

// alive lists those of the processes that still run; zombies do not.
func alive(pids map[int]string) map[int]string {
	left := map[int]string{}
	for pid, name := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(data), ") Z ") {
			left[pid] = name
		}
	}
	return left
}

// server is a ClickHouse of the test's own.
type server struct{ url, user, password string }

// startServer starts one that wants a password.
func startServer(t *testing.T, password string) server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ch, err := servers.StartClickHouse(ctx, servers.ClickHouseOptions{
		Bin: pipelinetest.RequirePart(t, localtest.EnvClickHouse), Lib: pipelinetest.RequirePart(t, localtest.EnvLibrary),
		Dir: t.TempDir(), Password: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ch.Kill)
	return server{ch.HTTPURL, ch.User, password}
}

// query posts a statement as curl does.
func (s server) query(t *testing.T, sql string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // curl's
	if s.user != "" {
		req.SetBasicAuth(s.user, s.password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s %v", sql, resp.Status, text, err)
	}
	return strings.TrimSpace(string(text))
}
