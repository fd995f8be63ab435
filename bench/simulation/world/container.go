package world

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// shared is the container that several instances keep one ledger in.
type shared struct {
	w       *World
	objects map[string]object
	serial  int
}

type object struct {
	data    []byte
	version string
}

func newShared(w *World) *shared { return &shared{w: w, objects: map[string]object{}} }

// names lists the objects below a prefix, sorted.
func (s *shared) names(prefix string) []string {
	var names []string
	for name := range s.objects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *shared) put(name string, data []byte) string {
	s.serial++
	o := object{bytes.Clone(data), fmt.Sprint("v", s.serial)}
	s.objects[name] = o
	return o.version
}

// remote is the container as one process has it. Each call takes time, in
// which the process can be frozen or die, and others can do something.
type remote struct {
	*shared
	p    *process
	body int
}

var _ ledger.Shared = remote{}

var errDead = fmt.Errorf("the process is gone: %w", pipeline.ErrFenced)

// call lets time pass and does what the call does, unless the request or its answer is
// lost.
func (r remote) call(op, name string, do func() error) error {
	if r.p.body != r.body {
		return errDead // deferred, while a process is unwound
	}
	r.p.point(op)
	r.p.pause(r.w.delay(8 * time.Millisecond))
	r.p.point(op)
	lost := fmt.Errorf("%s %q: %w", op, name, pipeline.ErrTransient)
	if r.w.hit(StoreFailed) {
		return lost
	}
	err := do()
	r.w.say(op, name)
	if r.w.hit(StoreUnanswered) {
		err = lost
	}
	r.p.pause(r.w.delay(2 * time.Millisecond))
	return err
}

// Create implements ledger.Store. As the real one, it takes an object with the same
// bytes for its own: an answer may have been lost.
func (r remote) Create(_ context.Context, name string, data []byte) error {
	return r.call("create", name, func() error {
		o, there := r.objects[name]
		switch {
		case !there:
			r.put(name, data)
		case !bytes.Equal(o.data, data):
			return fmt.Errorf("create ledger object %q: %w", name, ledger.ErrExists)
		}
		return nil
	})
}

// Put implements ledger.Store.
func (r remote) Put(_ context.Context, name string, data []byte) error {
	return r.call("put", name, func() error {
		r.put(name, data)
		return nil
	})
}

// Get implements ledger.Store.
func (r remote) Get(ctx context.Context, name string) ([]byte, error) {
	data, _, err := r.Load(ctx, name)
	return data, err
}

// Load implements ledger.Shared.
func (r remote) Load(_ context.Context, name string) (data []byte, version string, err error) {
	err = r.call("load", name, func() error {
		o, there := r.objects[name]
		if !there {
			return fmt.Errorf("read ledger object %q: %w", name, ledger.ErrNotExist)
		}
		data, version = bytes.Clone(o.data), o.version
		return nil
	})
	return data, version, err
}

// Swap implements ledger.Shared.
func (r remote) Swap(_ context.Context, name string, data []byte, version string) (next string, err error) {
	err = r.call("swap", name, func() error {
		o := r.objects[name]
		switch {
		case o.version == version:
			next = r.put(name, data)
		case bytes.Equal(o.data, data):
			next = o.version
		default:
			return fmt.Errorf("replace ledger object %q: %w", name, ledger.ErrChanged)
		}
		return nil
	})
	return next, err
}

// List implements ledger.Store.
func (r remote) List(_ context.Context, prefix string) (names []string, err error) {
	err = r.call("list", prefix, func() error {
		names = r.names(prefix)
		return nil
	})
	return names, err
}

// Delete implements ledger.Store.
func (r remote) Delete(_ context.Context, name string) error {
	return r.call("delete", name, func() error {
		delete(r.objects, name)
		return nil
	})
}

// leaseClock is the clock of an owner.
type leaseClock struct{ p *process }

var _ ledger.Clock = leaseClock{}

// Now implements ledger.Clock.
func (c leaseClock) Now() time.Time { return c.p.now() }

// Wait implements ledger.Clock.
func (c leaseClock) Wait(ctx context.Context, d time.Duration) error {
	c.p.pause(d)
	return ctx.Err()
}

// Until implements ledger.Clock.
func (c leaseClock) Until(ctx context.Context, end time.Time) (context.Context, context.CancelFunc) {
	return deadline{ctx, c.p, end}, func() {}
}

// deadline is a context that ends at a time of the simulation.
type deadline struct {
	context.Context //nolint:containedctx // it is one
	p               *process
	end             time.Time
}

// Err implements context.Context.
func (d deadline) Err() error {
	if !d.p.now().Before(d.end) {
		return context.DeadlineExceeded
	}
	return d.Context.Err()
}
