package pipelinetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/pipeline"
)

// SourceTarget is an empty topic, or whatever a source reads.
type SourceTarget interface {
	// Open gives a source as another process would have it: it goes on where the
	// positions that were saved say. A source with a method Flush(context) error is
	// flushed after its Run and the last acknowledgements, as a pipeline does.
	Open(t testing.TB) pipeline.Source
	// Send sends one message for each path, in order, to one partition; Path reads it
	// again out of an announcement.
	Send(t testing.TB, paths ...string)
}

// Path is the blob path that a message announces: the targets of SourceLaws send
// messages from which their sources parse an announcement of it.
func Path(d pipeline.Delivery) string { return d.Announcements[0].Blob.Path }

// sourcePatience bounds every wait for a delivery.
const sourcePatience = 30 * time.Second

// leakPatience bounds the wait for the goroutines of servers in this process.
const leakPatience = 5 * time.Second

// SourceLaws proves what a pipeline asks of a source that keeps positions, each law on
// a target of its own.
func SourceLaws(t *testing.T, target func(t *testing.T) SourceTarget) {
	for _, law := range []struct {
		name string
		run  func(t *testing.T, l *sourceLab)
	}{
		{"delivers in order until it is stopped", sourceDelivers},
		{"what is acknowledged does not come again", sourceRemembers},
		{"what is not acknowledged comes again", sourceRepeats},
		{"a hole is not stepped over", sourceHole},
		{"acknowledgements after the end count", sourceLateAcks},
		{"a full pipeline makes it wait", sourceWaits},
	} {
		t.Run(law.name, func(t *testing.T) {
			law.run(t, &sourceLab{SourceTarget: target(t), t: t})
		})
	}
}

type sourceLab struct {
	SourceTarget
	t *testing.T
}

// sourceRun is one life of a source.
type sourceRun struct {
	t      *testing.T
	source pipeline.Source
	cancel context.CancelFunc
	done   chan error
	leaks  goleak.Option

	mu    sync.Mutex
	got   []pipeline.Delivery
	more  chan struct{} // one token after each delivery
	acked map[string]int
}

// start runs a source whose deliveries are kept; gate, when not nil, holds each of
// them back until it gives a token or ctx ends.
func (l *sourceLab) start(gate <-chan struct{}) *sourceRun {
	l.t.Helper()
	r := &sourceRun{t: l.t, leaks: goleak.IgnoreCurrent(), source: l.Open(l.t), done: make(chan error, 1), more: make(chan struct{}, 10_000), acked: map[string]int{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	r.cancel = cancel
	go func() {
		r.done <- r.source.Run(ctx, func(ctx context.Context, d pipeline.Delivery) error {
			if gate != nil {
				select {
				case <-gate:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			r.mu.Lock()
			r.got = append(r.got, d)
			r.mu.Unlock()
			r.more <- struct{}{}
			return nil
		})
	}()
	l.t.Cleanup(cancel)
	return r
}

// take waits for n deliveries, and gives the paths of all so far.
func (r *sourceRun) take(n int) []string {
	r.t.Helper()
	for range n {
		select {
		case <-r.more:
		case err := <-r.done:
			r.t.Fatalf("the source ended: %v", err)
		case <-time.After(sourcePatience):
			r.t.Fatalf("no delivery within %v; so far %v", sourcePatience, r.paths())
		}
	}
	return r.paths()
}

func (r *sourceRun) paths() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]string, len(r.got))
	for i, d := range r.got {
		out[i] = Path(d)
	}
	return out
}

// ack acknowledges the deliveries with the paths.
func (r *sourceRun) ack(paths ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.got {
		if p := Path(d); slices.Contains(paths, p) && r.acked[p] == 0 {
			r.acked[p]++
			d.Ack()
		}
	}
}

// stop ends the life: every goroutine of Run must be gone when it returns.
func (r *sourceRun) stop() {
	r.t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("a source that was stopped gives %v, want nil", err)
		}
	case <-time.After(sourcePatience):
		r.t.Fatalf("the source does not stop within %v", sourcePatience)
	}
	// The emulator may run in this process; its connections are not the source's.
	ours := []goleak.Option{r.leaks, goleak.IgnoreAnyFunction("github.com/millrace/millrace/pipeline/source/eventhubs/emulator.(*Server).Run.func2")}
	err := goleak.Find(ours...)
	for deadline := time.Now().Add(leakPatience); err != nil && time.Now().Before(deadline); {
		err = goleak.Find(ours...)
	}
	if err != nil {
		r.t.Errorf("goroutines are left behind: %v", err)
	}
}

// flush saves the last acknowledgements.
func (r *sourceRun) flush() {
	r.t.Helper()
	if f, ok := r.source.(interface {
		Flush(ctx context.Context) error
	}); ok {
		if err := f.Flush(context.WithoutCancel(r.t.Context())); err != nil {
			r.t.Error(err)
		}
	}
}

// names are the paths first to last.
func names(first, last int) []string {
	var out []string
	for i := first; i <= last; i++ {
		out = append(out, fmt.Sprintf("blob-%03d", i))
	}
	return out
}

func (l *sourceLab) want(what string, want, got []string) {
	l.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		l.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func sourceDelivers(_ *testing.T, l *sourceLab) {
	l.Send(l.t, names(1, 20)...)
	r := l.start(nil)
	l.want("sent before the start", names(1, 20), r.take(20))
	l.Send(l.t, names(21, 25)...)
	l.want("sent while it runs", names(1, 25), r.take(5))
	r.stop()
}

func sourceRemembers(_ *testing.T, l *sourceLab) {
	l.Send(l.t, names(1, 10)...)
	r := l.start(nil)
	r.take(10)
	r.ack(names(1, 10)...)
	r.stop()
	r.flush()
	l.Send(l.t, names(11, 12)...)
	r = l.start(nil)
	l.want("after a restart", names(11, 12), r.take(2))
	r.stop()
}

func sourceRepeats(_ *testing.T, l *sourceLab) {
	l.Send(l.t, names(1, 10)...)
	r := l.start(nil)
	r.take(10)
	r.ack(names(1, 6)...)
	r.stop()
	r.flush()
	r = l.start(nil)
	l.want("after a restart", names(7, 10), r.take(4))
	r.stop()
}

func sourceHole(_ *testing.T, l *sourceLab) {
	l.Send(l.t, names(1, 10)...)
	r := l.start(nil)
	r.take(10)
	r.ack(append(names(5, 10), names(1, 3)...)...)
	r.stop()
	r.flush()
	r = l.start(nil)
	l.want("after a restart with message 4 not acknowledged", names(4, 10), r.take(7))
	r.stop()
}

func sourceLateAcks(_ *testing.T, l *sourceLab) {
	l.Send(l.t, names(1, 5)...)
	r := l.start(nil)
	r.take(5)
	r.stop()
	r.ack(names(1, 5)...)
	r.flush()
	l.Send(l.t, names(6, 6)...)
	r = l.start(nil)
	l.want("after a restart", names(6, 6), r.take(1))
	r.stop()
}

func sourceWaits(t *testing.T, l *sourceLab) {
	l.Send(l.t, names(1, 10)...)
	gate := make(chan struct{}, 3)
	for range 3 {
		gate <- struct{}{}
	}
	r := l.start(gate)
	l.want("through the gate", names(1, 3), r.take(3))
	select {
	case <-r.more:
		t.Error("a delivery went on although the pipeline was full")
	case <-time.After(200 * time.Millisecond):
	}
	r.stop() // while a delivery waits
}
