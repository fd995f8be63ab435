//go:build unix

package process

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// envHelper makes this test binary play a part instead of running tests.
const envHelper = "MILLRACE_PROCESS_HELPER"

func TestMain(m *testing.M) {
	switch role := os.Getenv(envHelper); role {
	case "":
		goleak.VerifyTestMain(m)
	case "parent":
		helperParent()
	case "deaf":
		helperDeaf()
	case "watcher":
		WatchParent(func() { os.Exit(7) })
		fmt.Println("ready")
		select {}
	case "talker":
		helperTalker()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Minute)
	default:
		fmt.Fprintln(os.Stderr, "unknown role", role)
		os.Exit(2)
	}
}

// helperDeaf ends by itself after a minute and pays attention to nothing.
func helperDeaf() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	time.Sleep(time.Minute)
}

// helperTalker writes numbered lines for ever, until stopped.
func helperTalker() {
	for i := 0; ; i++ {
		fmt.Printf("line %08d of the talker\n", i)
		if i%1000 == 999 {
			time.Sleep(time.Millisecond)
		}
	}
}

// helperParent starts children and prints their ids, while threads of the
// runtime come and go.
func helperParent() {
	for _, role := range []string{"deaf", "watcher"} {
		p, err := Start(helper(role))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Println(p.Pid())
	}
	if node, err := exec.LookPath("node"); err == nil {
		p, err := Start(Config{Name: "node", Path: node, Node: true, Args: []string{"--eval", "setInterval(()=>{},1000)"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Println(p.Pid())
	}
	churnThreads(50)
	fmt.Println("started")
	select {}
}

// churnThreads ends many OS threads: a goroutine that ends while locked takes
// its thread with it. A child forked from such a thread would be killed.
func churnThreads(n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			runtime.LockOSThread()
			time.Sleep(time.Millisecond)
		})
	}
	wg.Wait()
}

func helper(role string) Config {
	return Config{Name: role, Path: os.Args[0], Env: []string{envHelper + "=" + role}}
}

func start(t *testing.T, cfg Config) *Process {
	t.Helper()
	p, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// waitDone fails the test when the child is not gone in time.
func waitDone(t *testing.T, p *Process, limit time.Duration) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(limit):
		t.Fatalf("%s still lives after %s", p.Name(), limit)
	}
}

// alive is false for a process that has ended, reaped or not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return runtime.GOOS != "linux"
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestNoChildOutlivesAKilledParent(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cfg := helper("parent")
	cfg.Stdout = in
	parent := start(t, cfg)
	var children []int
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "started"; {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, pid)
	}
	in.Close()
	if len(children) < 2 {
		t.Fatalf("the parent started %d children, want 2 or 3: %s", len(children), parent.Tail())
	}
	for _, pid := range children {
		if !alive(pid) {
			t.Errorf("child %d died while its parent lived", pid)
		}
	}

	killed := time.Now()
	// Only the parent: its group would take the children along.
	if err := syscall.Kill(parent.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range children {
		for alive(pid) {
			if time.Since(killed) > 2*time.Second {
				t.Errorf("child %d lives 2 s after kill -9 of its parent", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// TestEndOfInputEndsChildren covers systems without a parent-death signal.
func TestEndOfInputEndsChildren(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is needed for this test: install Node.js 20 or newer")
	}
	for _, cfg := range []Config{
		helper("watcher"),
		{Name: "node", Path: node, Node: true, Args: []string{"--eval", "console.log('ready');setInterval(()=>{},1000)"}},
	} {
		t.Run(cfg.Name, func(t *testing.T) {
			ready := &firstWrite{seen: make(chan struct{})}
			cfg.Stdout = ready
			p := start(t, cfg)
			<-ready.seen
			if err := p.stdin.Close(); err != nil {
				t.Fatal(err)
			}
			waitDone(t, p, 2*time.Second)
			if p.Err() == nil {
				t.Error("the child ended with exit code 0, want a failure")
			}
		})
	}
}

func TestChildSurvivesThreadsThatEnd(t *testing.T) {
	p := start(t, helper("deaf"))
	churnThreads(200)
	select {
	case <-p.Done():
		t.Fatalf("the child died with a thread of the runtime: %v", p.ExitError())
	case <-time.After(100 * time.Millisecond):
	}
}

func TestStopIsSoftFirst(t *testing.T) {
	p := start(t, helper("talker"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if !p.Stopped() {
		t.Error("Stopped() = false after Stop")
	}
	if err := p.Stop(ctx); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestStopKillsAtTheDeadline(t *testing.T) {
	ready := &firstWrite{seen: make(chan struct{})}
	cfg := helper("stubborn")
	cfg.Stdout = ready
	p := start(t, cfg)
	<-ready.seen
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := p.Stop(ctx)
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Stop of a stubborn child: %v, want an error that says killed", err)
	}
	if p.Err() == nil {
		t.Error("a killed child has no error after Stop returned")
	}
}

// firstWrite closes seen when something is written.
type firstWrite struct {
	once sync.Once
	seen chan struct{}
}

func (w *firstWrite) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.seen) })
	return len(b), nil
}

func TestLogFileIsBounded(t *testing.T) {
	const limit = 64 << 10
	cfg := helper("talker")
	cfg.LogFile = filepath.Join(t.TempDir(), "logs", "talker.log")
	cfg.MaxLogBytes = limit
	p := start(t, cfg)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := os.Stat(cfg.LogFile + ".1"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the log was not rotated in 10 s")
		}
		time.Sleep(time.Millisecond)
	}
	p.Kill()
	for _, path := range []string{cfg.LogFile, cfg.LogFile + ".1"} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		// One write of the copier may be as large as its buffer.
		if info.Size() > limit+32<<10 {
			t.Errorf("%s has %d bytes, want about %d at most", filepath.Base(path), info.Size(), limit)
		}
	}
	if tail := p.Tail(); len(tail) > tailBytes || !strings.HasPrefix(tail, "line ") {
		t.Errorf("tail of %d bytes begins %.20q, want whole lines of the talker", len(tail), tail)
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	_, err := Start(Config{Name: "ghost", Path: "/no/such/program"})
	if err == nil || !strings.Contains(err.Error(), "start ghost") {
		t.Errorf("Start of a missing program: %v", err)
	}
}

func TestExitErrorQuotesTheChild(t *testing.T) {
	p := start(t, Config{Name: "shell", Path: "/bin/sh", Args: []string{"-c", "echo out of cheese >&2; exit 3"}})
	waitDone(t, p, 5*time.Second)
	want := "shell ended: exit status 3: out of cheese"
	if got := p.ExitError().Error(); got != want {
		t.Errorf("ExitError = %q, want %q", got, want)
	}
	if p.Stopped() {
		t.Error("Stopped() = true for a child that ended by itself")
	}
}

func TestReservePort(t *testing.T) {
	first, err := ReservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	if first.Moved {
		t.Error("any port was asked for, so none was moved")
	}
	second, err := ReservePort(first.Number)
	if err != nil {
		t.Fatal(err)
	}
	if !second.Moved || second.Number == first.Number {
		t.Errorf("busy port %d gave %d, moved %t", first.Number, second.Number, second.Moved)
	}
	second.Release()
	first.Release()
	if third, _ := PickPort(first.Number); third == first.Number {
		t.Errorf("port %d was handed out twice at once", third)
	}
	first.Bound()
	if again, moved := PickPort(first.Number); again != first.Number || moved {
		t.Errorf("free port %d gave %d, moved %t", first.Number, again, moved)
	}
}

func TestPortTaken(t *testing.T) {
	p, err := ReservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	p.Release()
	if p.Taken() {
		t.Error("a released port counts as taken")
	}
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", p.Number))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !p.Taken() {
		t.Error("a port with a listener does not count as taken")
	}
}
