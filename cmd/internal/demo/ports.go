package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/deploy/local/process"
)

// portAttempts bounds how often a child is started again because somebody took a
// port between our look and the child's bind.
const portAttempts = 5

// readyPoll is how often a starting child is asked whether it is ready.
const readyPoll = 20 * time.Millisecond

// wanted is a port that a child listens on.
type wanted struct {
	preferred int
	what      string // for people
}

// onPorts starts a child on the wanted ports, or the next free ones, and waits
// until it is ready.
//
// Two demos may start in the same moment: both find port 9464 free, both tell it to
// their pipeline, and one pipeline ends because it cannot have it. So the child is
// started again on the next ports then; and ready must make sure that it is this
// child that answers, not that of the other demo.
//
// Errors: the child's own end; ctx's cause, and then the child is gone.
func (d *demo) onPorts(ctx context.Context, wants []wanted, start func(numbers []int) (*process.Process, error), ready func(ctx context.Context, pid int) error) (*process.Process, error) {
	for attempt := 1; ; attempt++ {
		ports, numbers, err := reserve(wants)
		if err != nil {
			return nil, err
		}
		for _, p := range ports {
			p.Release()
		}
		child, err := start(numbers)
		if err == nil {
			err = d.waitFor(ctx, child, ready)
		}
		lost := false
		for _, p := range ports {
			p.Bound()
			lost = lost || err != nil && p.Taken()
		}
		if err == nil {
			d.sayMoved(wants, ports)
			return child, nil
		}
		if !lost || attempt == portAttempts || ctx.Err() != nil {
			return nil, err
		}
	}
}

// reserve holds a port for each wish, or none.
func reserve(wants []wanted) (ports []*process.Port, numbers []int, err error) {
	for _, w := range wants {
		p, err := process.ReservePort(w.preferred)
		if err != nil {
			for _, held := range ports {
				held.Release()
				held.Bound()
			}
			return nil, nil, fmt.Errorf("find a port for %s: %w", w.what, err)
		}
		ports, numbers = append(ports, p), append(numbers, p.Number)
	}
	return ports, numbers, nil
}

func (d *demo) sayMoved(wants []wanted, ports []*process.Port) {
	for i, w := range wants {
		if ports[i].Moved {
			d.say.line("port %d is busy: %s listens on %d", w.preferred, w.what, ports[i].Number)
		}
	}
}

// errNotOurs says that somebody else's child answers on the port.
var errNotOurs = errors.New("another process answers")

// waitFor asks until the child is ready. When it returns an error the child is
// gone.
func (d *demo) waitFor(ctx context.Context, child *process.Process, ready func(ctx context.Context, pid int) error) error {
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		if ready(ctx, child.Pid()) == nil {
			return nil
		}
		select {
		case <-child.Done():
			return child.ExitError()
		case <-ctx.Done():
			child.Kill()
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
