// Package children supervises the child processes of a command: it notices
// when one ends, asks a policy what to do, starts it again, and stops all of
// them in order.
//
// What flows in: a Spec per child, which knows how to start it until it is
// ready. What flows out: the first failure nobody could mend, on Failed. Each
// child has one goroutine; all are gone when Stop or Kill returns. How a child
// dies with this process, whatever happens, is package process's matter.
package children

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/deploy/local/process"
)

// Exit tells a policy how a child ended.
type Exit struct {
	Name string
	// Err names the exit status and the last thing the child said.
	Err error
	// Restarts is how often the child has been started again before.
	Restarts int
	// Lived is how long it was up.
	Lived time.Duration
}

// Decision is what a policy wants done.
type Decision struct {
	// Restart starts the child again after Delay; without it the group fails.
	Restart bool
	Delay   time.Duration
}

// Policy decides after an end that nobody asked for. It is called from the
// child's goroutine and must not block.
type Policy func(Exit) Decision

// Always starts a child again, at once the first time and after growing
// pauses, 200 ms to 5 s, when it keeps dying young.
func Always(e Exit) Decision {
	const young, first, most = 10 * time.Second, 200 * time.Millisecond, 5 * time.Second
	if e.Restarts == 0 || e.Lived >= young {
		return Decision{Restart: true}
	}
	return Decision{Restart: true, Delay: min(first<<min(e.Restarts-1, 10), most)}
}

// Never lets the group fail when the child ends.
func Never(Exit) Decision { return Decision{} }

// Spec describes one child.
type Spec struct {
	Name string
	// Start starts the child and returns when it is ready. It is called again
	// for a restart, from another goroutine, never twice at a time. When ctx
	// ends it gives up and leaves no process behind.
	Start func(ctx context.Context) (*process.Process, error)
	// Policy defaults to Never.
	Policy Policy
}

// Group is a set of supervised children.
type Group struct {
	log    *slog.Logger
	failed chan error

	mu       sync.Mutex
	children []*child // In the order of start.
	stopping bool
}

// New returns a group without children.
func New(log *slog.Logger) *Group {
	return &Group{log: log, failed: make(chan error, 1)}
}

// Failed receives the first end of a child that its policy does not mend, or a
// restart that did not work. The other children go on: stop the group.
func (g *Group) Failed() <-chan error { return g.failed }

// Start starts a child, waits until it is ready and supervises it from then on.
//
// Errors: the child did not start; the group is being stopped; the name is
// taken.
func (g *Group) Start(ctx context.Context, spec Spec) error {
	if spec.Policy == nil {
		spec.Policy = Never
	}
	c := &child{spec: spec, group: g, done: make(chan struct{})}
	if err := g.add(c); err != nil {
		return err
	}
	p, err := spec.Start(ctx)
	if err != nil {
		g.remove(c)
		return err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if !c.begin(p, cancel) {
		cancel()
		p.Kill()
		g.remove(c)
		return fmt.Errorf("start %s: the group was stopped meanwhile", spec.Name)
	}
	go c.supervise(life, p)
	return nil
}

func (g *Group) add(c *child) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return fmt.Errorf("start %s: the group is being stopped", c.spec.Name)
	}
	if g.find(c.spec.Name) != nil {
		return fmt.Errorf("start %s: there is a child of this name", c.spec.Name)
	}
	g.children = append(g.children, c)
	return nil
}

func (g *Group) remove(c *child) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.children = slices.DeleteFunc(g.children, func(other *child) bool { return other == c })
}

// find returns nil for an unknown name. The caller holds the lock.
func (g *Group) find(name string) *child {
	for _, c := range g.children {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

// Process returns the running process of a child, or nil while there is none.
func (g *Group) Process(name string) *process.Process {
	g.mu.Lock()
	c := g.find(name)
	g.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.current()
}

// Crash kills a child as kill -9 does; its policy then decides. It returns
// false when the child is not running.
func (g *Group) Crash(name string) bool {
	p := g.Process(name)
	if p == nil {
		return false
	}
	p.SendKill()
	return true
}

// Stop stops the children softly, the last started first, and kills what is
// left when ctx ends. It returns when all processes and goroutines are gone.
//
// Errors: names the children that had to be killed.
func (g *Group) Stop(ctx context.Context) error {
	var faults []error
	for _, c := range slices.Backward(g.stop()) {
		faults = append(faults, c.stop(ctx))
	}
	return errors.Join(faults...)
}

// StopOne stops a single child for good and forgets it.
func (g *Group) StopOne(ctx context.Context, name string) error {
	g.mu.Lock()
	c := g.find(name)
	g.mu.Unlock()
	if c == nil {
		return fmt.Errorf("stop %s: there is no such child", name)
	}
	err := c.stop(ctx)
	g.remove(c)
	return err
}

// Kill ends all children at once and returns when they are gone. It may be
// called while Stop is waiting, to cut that short.
func (g *Group) Kill() {
	children := g.stop()
	for _, c := range children {
		if p := c.end(); p != nil {
			p.SendKill()
		}
	}
	for _, c := range children {
		c.wait()
	}
}

// stop refuses new children and returns the present ones.
func (g *Group) stop() []*child {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopping = true
	return slices.Clone(g.children)
}

func (g *Group) fail(err error) {
	select {
	case g.failed <- err:
	default: // The first failure is the one that is told.
	}
}

// child is one supervised process and its successors.
type child struct {
	spec  Spec
	group *Group
	done  chan struct{} // Closed when supervise has returned.

	mu       sync.Mutex
	process  *process.Process // Nil before the start and between two lives.
	cancel   context.CancelFunc
	stopping bool
}

// begin is false when the group was stopped during the first start. A stop
// that comes later finds the process.
func (c *child) begin(p *process.Process, cancel context.CancelFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return false
	}
	c.process, c.cancel = p, cancel
	return true
}

func (c *child) current() *process.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// supervise lives as long as the child is wanted.
func (c *child) supervise(ctx context.Context, p *process.Process) {
	defer close(c.done)
	for restarts := 0; p != nil; restarts++ {
		born := time.Now()
		<-p.Done()
		if !c.ended() {
			return
		}
		p = c.next(ctx, Exit{Name: c.spec.Name, Err: p.ExitError(), Restarts: restarts, Lived: time.Since(born)})
	}
}

// ended notes that no process runs, and says whether another is wanted.
func (c *child) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process = nil
	return !c.stopping
}

// next starts the next life, or returns nil when there is none.
//
// A stop may come while the child is being started. Then either Start sees the
// context end and cleans up, or it has a process ready just now, which adopt
// refuses and which is killed here: nobody else knows of it.
func (c *child) next(ctx context.Context, e Exit) *process.Process {
	d := c.spec.Policy(e)
	if !d.Restart {
		c.group.fail(e.Err)
		return nil
	}
	c.group.log.Warn("child ended, starting it again", slog.String("child", e.Name),
		slog.Int("restarts", e.Restarts), slog.Int64("delay_ms", d.Delay.Milliseconds()), slog.Any("error", e.Err))
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(d.Delay):
	}
	p, err := c.spec.Start(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.group.fail(fmt.Errorf("restart %s: %w", e.Name, err))
		}
		return nil
	}
	if !c.adopt(p) {
		p.Kill()
		return nil
	}
	return p
}

func (c *child) adopt(p *process.Process) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return false
	}
	c.process = p
	return true
}

// end says that no further life is wanted and returns the present one.
func (c *child) end() *process.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	if c.cancel != nil {
		c.cancel()
	}
	return c.process
}

func (c *child) stop(ctx context.Context) error {
	var err error
	if p := c.end(); p != nil {
		err = p.Stop(ctx)
	}
	c.wait()
	return err
}

// wait returns at once for a child whose first start has not ended: its
// starter holds it.
func (c *child) wait() {
	c.mu.Lock()
	begun := c.cancel != nil
	c.mu.Unlock()
	if begun {
		<-c.done
	}
}
