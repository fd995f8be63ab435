//go:build unix

package children

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/process"
)

const envHelper = "MILLRACE_CHILDREN_HELPER"

// TestMain makes this binary a child that lives until it is stopped.
func TestMain(m *testing.M) {
	switch os.Getenv(envHelper) {
	case "":
		goleak.VerifyTestMain(m)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fallthrough
	default:
		fmt.Println("ready")
		time.Sleep(time.Minute)
	}
}

// helper starts a child and waits until it has set itself up.
func helper(role string) func(context.Context) (*process.Process, error) {
	return func(ctx context.Context) (*process.Process, error) {
		ready := &signalWriter{seen: make(chan struct{})}
		p, err := process.Start(process.Config{Name: role, Path: os.Args[0], Env: []string{envHelper + "=" + role}, Stdout: ready})
		if err != nil {
			return nil, err
		}
		select {
		case <-ready.seen:
			return p, nil
		case <-p.Done():
			return nil, p.ExitError()
		case <-ctx.Done():
			p.Kill()
			return nil, ctx.Err()
		}
	}
}

type signalWriter struct {
	once sync.Once
	seen chan struct{}
}

func (w *signalWriter) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.seen) })
	return len(b), nil
}

func newGroup(t *testing.T) *Group {
	t.Helper()
	g := New(slog.New(slog.DiscardHandler))
	t.Cleanup(g.Kill)
	return g
}

func mustStart(t *testing.T, g *Group, spec Spec) {
	t.Helper()
	if err := g.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, because the ends of processes are not ours to
// schedule.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestCrashedChildIsStartedAgain(t *testing.T) {
	g := newGroup(t)
	var starts atomic.Int32
	mustStart(t, g, Spec{Name: "worker", Policy: Always, Start: func(ctx context.Context) (*process.Process, error) {
		starts.Add(1)
		return helper("plain")(ctx)
	}})
	first := g.Process("worker").Pid()
	if !g.Crash("worker") {
		t.Fatal("the child was not running")
	}
	eventually(t, "a second life", func() bool {
		p := g.Process("worker")
		return p != nil && p.Pid() != first
	})
	if got := starts.Load(); got != 2 {
		t.Errorf("%d starts, want 2", got)
	}
	select {
	case err := <-g.Failed():
		t.Errorf("the group failed: %v", err)
	default:
	}
}

func TestEndOfAnUnsupervisedChildFailsTheGroup(t *testing.T) {
	g := newGroup(t)
	mustStart(t, g, Spec{Name: "server", Start: helper("plain")})
	g.Crash("server")
	select {
	case err := <-g.Failed():
		if !strings.Contains(err.Error(), "killed") {
			t.Errorf("failure %q, want it to say killed", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
}

func TestFailedRestartFailsTheGroup(t *testing.T) {
	g := newGroup(t)
	var starts atomic.Int32
	mustStart(t, g, Spec{Name: "worker", Policy: Always, Start: func(ctx context.Context) (*process.Process, error) {
		if starts.Add(1) > 1 {
			return nil, errors.New("no more of these")
		}
		return helper("plain")(ctx)
	}})
	g.Crash("worker")
	select {
	case err := <-g.Failed():
		if want := "restart worker: no more of these"; err.Error() != want {
			t.Errorf("failure %q, want %q", err, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
}

func TestStopGoesBackwards(t *testing.T) {
	g := newGroup(t)
	var mu sync.Mutex
	var order []string
	for _, name := range []string{"storage", "hub", "pipeline"} {
		mustStart(t, g, Spec{Name: name, Start: helper("plain")})
		p := g.Process(name)
		go func() {
			<-p.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three ends", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(order) == 3
	})
	if got := strings.Join(order, " "); got != "pipeline hub storage" {
		t.Errorf("stopped in the order %s", got)
	}
	if err := g.Start(t.Context(), Spec{Name: "late", Start: helper("plain")}); err == nil {
		t.Error("a stopped group started a child")
	}
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	g := newGroup(t)
	mustStart(t, g, Spec{Name: "stubborn", Start: helper("stubborn")})
	p := g.Process("stubborn")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Stop(ctx); err == nil || !strings.Contains(err.Error(), "stubborn") {
		t.Errorf("Stop: %v, want it to name the child it killed", err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("Stop returned before the child was gone")
	}
}

// TestKillCutsAStopShort is the second Ctrl-C.
func TestKillCutsAStopShort(t *testing.T) {
	g := newGroup(t)
	mustStart(t, g, Spec{Name: "stubborn", Start: helper("stubborn")})
	stopped := make(chan error, 1)
	go func() { stopped <- g.Stop(context.Background()) }()
	eventually(t, "the group being stopped", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.stopping
	})
	g.Kill()
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("Stop after Kill: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Stop still waits after Kill")
	}
}

// TestStopDuringRestart: the child dies, its successor takes long to start,
// and the stop comes in between. No process may be left.
func TestStopDuringRestart(t *testing.T) {
	g := newGroup(t)
	var starts atomic.Int32
	starting := make(chan struct{})
	mustStart(t, g, Spec{Name: "slow", Policy: Always, Start: func(ctx context.Context) (*process.Process, error) {
		if starts.Add(1) == 1 {
			return helper("plain")(ctx)
		}
		close(starting)
		<-ctx.Done()
		return helper("plain")(context.Background()) // Too late, and it does not notice.
	}})
	g.Crash("slow")
	<-starting
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if p := g.Process("slow"); p != nil {
		t.Errorf("process %d runs after Stop", p.Pid())
	}
}

// TestStopDuringFirstStart: Stop cannot wait for a start in another goroutine,
// so that start has to give its process up.
func TestStopDuringFirstStart(t *testing.T) {
	g := newGroup(t)
	starting, proceed := make(chan struct{}), make(chan struct{})
	var p *process.Process
	result := make(chan error, 1)
	go func() {
		result <- g.Start(context.Background(), Spec{Name: "slow", Start: func(ctx context.Context) (_ *process.Process, err error) {
			close(starting)
			<-proceed
			p, err = helper("plain")(ctx)
			return p, err
		}})
	}()
	<-starting
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(proceed)
	if err := <-result; err == nil {
		t.Error("Start succeeded in a stopped group")
	}
	select {
	case <-p.Done():
	default:
		t.Error("the process lives on")
	}
}

func TestStopOneForgetsTheChild(t *testing.T) {
	g := newGroup(t)
	mustStart(t, g, Spec{Name: "one", Start: helper("plain")})
	if err := g.Start(t.Context(), Spec{Name: "one", Start: helper("plain")}); err == nil {
		t.Error("two children of one name")
	}
	if err := g.StopOne(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	mustStart(t, g, Spec{Name: "one", Start: helper("plain")})
}

func TestRestartsAreLogged(t *testing.T) {
	var text lockedBuffer
	g := New(slog.New(slog.NewTextHandler(&text, nil)))
	t.Cleanup(g.Kill)
	mustStart(t, g, Spec{Name: "worker", Policy: Always, Start: helper("plain")})
	g.Crash("worker")
	eventually(t, "a log line", func() bool { return strings.Contains(text.String(), "child=worker") })
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestAlwaysBacksOff(t *testing.T) {
	tests := []struct {
		restarts int
		lived    time.Duration
		want     time.Duration
	}{
		{0, 0, 0},
		{1, time.Second, 200 * time.Millisecond},
		{2, time.Second, 400 * time.Millisecond},
		{5, time.Second, 3200 * time.Millisecond},
		{6, time.Second, 5 * time.Second},
		{1000, time.Second, 5 * time.Second},
		{1000, time.Minute, 0},
	}
	for _, tt := range tests {
		got := Always(Exit{Restarts: tt.restarts, Lived: tt.lived})
		if !got.Restart || got.Delay != tt.want {
			t.Errorf("after %d restarts and %s: %+v, want a delay of %s", tt.restarts, tt.lived, got, tt.want)
		}
	}
}
