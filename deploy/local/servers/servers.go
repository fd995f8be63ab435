// Package servers starts the real servers a demo or a test runs against:
// ClickHouse out of libchdb, Azurite, the blob storage emulator, and a Kafka
// broker.
//
// What flows in: where the parts are and which ports are preferred. What flows
// out: a child process that answers, and its addresses on 127.0.0.1. The
// caller owns the process and stops it; it dies with the caller in any case
// (see package process). No goroutine outlives it.
package servers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/deploy/local/process"
)

const (
	// startAttempts bounds how often a start is tried again because somebody
	// took the port between our check and the child's bind.
	startAttempts = 5
	// startTimeout bounds one start; a cold disk has to read half a gigabyte.
	startTimeout = 60 * time.Second
	pollInterval = 25 * time.Millisecond
)

// errPortTaken means: try again with another port.
var errPortTaken = errors.New("port taken by another program")

// retryPorts calls start until it does not lose its ports to somebody else.
func retryPorts(ctx context.Context, start func(context.Context) error) error {
	var err error
	for range startAttempts {
		attempt, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %s", startTimeout))
		err = start(attempt)
		cancel()
		if !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// reserve holds one port per preferred number, or none of them.
func reserve(preferred ...int) ([]*process.Port, error) {
	var ports []*process.Port
	for _, n := range preferred {
		p, err := process.ReservePort(n)
		if err != nil {
			release(ports)
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func release(ports []*process.Port) {
	for _, p := range ports {
		p.Release()
	}
}

// exitCause explains a child that ended before it was ready.
func exitCause(p *process.Process, ports []*process.Port) error {
	for _, port := range ports {
		if port.Taken() {
			return fmt.Errorf("%w: %d: %w", errPortTaken, port.Number, p.ExitError())
		}
	}
	return p.ExitError()
}

// bound ends the reservation of ports, whatever became of them.
func bound(ports []*process.Port) {
	for _, p := range ports {
		p.Bound()
	}
}

// lineSignal is a writer that closes seen at the first line that matches.
type lineSignal struct {
	match func(line []byte) bool
	seen  chan struct{}

	once sync.Once
	line []byte
}

// lineLimit bounds how much of a line is looked at.
const lineLimit = 1 << 10

func newLineSignal(match func(line []byte) bool) *lineSignal {
	return &lineSignal{match: match, seen: make(chan struct{})}
}

// Write keeps at most one line.
func (s *lineSignal) Write(b []byte) (int, error) {
	for _, c := range b {
		switch {
		case c == '\n':
			if s.match(s.line) {
				s.once.Do(func() { close(s.seen) })
			}
			s.line = s.line[:0]
		case len(s.line) < lineLimit:
			s.line = append(s.line, c)
		}
	}
	return len(b), nil
}
