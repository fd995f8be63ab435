package emulator

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// conn is one connection. The goroutine in serve owns everything but the mail; a
// second goroutine only reads frames.
type conn struct {
	s   *Server
	nc  net.Conn
	br  *bufio.Reader
	log *slog.Logger

	out       []byte // not yet written
	lastWrite time.Time
	closing   bool // the close frame is written, or nothing can be written any more
	stopping  atomic.Bool

	peerFrame uint32        // bytes that the peer takes in one frame
	peerIdle  time.Duration // the peer's idle time-out; 0 is none
	sessions  map[uint16]*session
	trusted   bool                 // needs no token
	claims    map[string]time.Time // path -> end of the token
	partial   int64                // bytes of messages that have not arrived whole
	due       time.Time            // when the next delayed event may go or a token ends; zero is never

	wakeup chan struct{} // holds one wish to look at mail and logs

	mailMu sync.Mutex
	mail   []func()
}

func newConn(s *Server, nc net.Conn) *conn {
	return &conn{
		s: s, nc: nc, br: bufio.NewReader(nc), log: s.cfg.Logger.With(slog.String("peer", nc.RemoteAddr().String())),
		sessions: map[uint16]*session{}, trusted: s.cfg.Key == "", claims: map[string]time.Time{},
		wakeup: make(chan struct{}, 1),
	}
}

// wake makes the owner look for events and mail. It never blocks.
func (c *conn) wake() {
	select {
	case c.wakeup <- struct{}{}:
	default:
	}
}

// post hands work to the owner. It never blocks, so two connections can evict each
// other's links at the same time.
func (c *conn) post(f func()) {
	c.mailMu.Lock()
	c.mail = append(c.mail, f)
	c.mailMu.Unlock()
	c.wake()
}

func (c *conn) readMail() {
	c.mailMu.Lock()
	mail := c.mail
	c.mail = nil
	c.mailMu.Unlock()
	for _, f := range mail {
		f()
	}
}

// serve speaks to the peer until it leaves, breaks the protocol or ctx ends.
func (c *conn) serve(ctx context.Context) {
	defer c.nc.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	_ = c.nc.SetDeadline(time.Now().Add(handshakeTime))
	if err := c.handshake(); err != nil {
		stop()
		c.log.Debug("event hubs emulator: handshake refused", slog.Any("cause", err))
		c.flush()
		return
	}
	if !stop() {
		return
	}
	_ = c.nc.SetDeadline(time.Time{})
	// A peer that does not read must not hold the stop up for writeTime.
	stop = context.AfterFunc(ctx, func() {
		c.stopping.Store(true)
		_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
	})
	defer stop()
	frames := make(chan wire.Frame, 64)
	var reader sync.WaitGroup
	var readErr error
	gone := make(chan struct{})
	reader.Go(func() { readErr = c.readFrames(frames, gone) })
	c.loop(ctx, frames, func() error { reader.Wait(); return readErr })
	for _, s := range c.sessions {
		s.release()
	}
	close(gone)
	// Give the peer a moment to read the close frame: closing a socket with unread
	// input resets the connection, and the frame would be lost.
	if tc, ok := c.nc.(*net.TCPConn); ok {
		_ = tc.CloseWrite()
	}
	linger := time.AfterFunc(lingerTime, func() { _ = c.nc.Close() })
	defer linger.Stop()
	reader.Wait()
}

// readFrames reads until the connection ends. After gone is closed it throws away
// what comes.
func (c *conn) readFrames(frames chan<- wire.Frame, gone <-chan struct{}) error {
	defer close(frames)
	for {
		select {
		case <-gone:
			_, err := io.Copy(io.Discard, c.br)
			return err
		default:
			_ = c.nc.SetReadDeadline(time.Now().Add(c.s.cfg.IdleTimeout))
		}
		f, err := wire.ReadFrame(c.br, uint32(c.s.cfg.MaxFrameSize))
		if err != nil {
			return err
		}
		select {
		case frames <- f:
		case <-gone:
		}
	}
}

// loop owns the connection's state. readErr tells why no more frames come, once
// the channel is closed.
func (c *conn) loop(ctx context.Context, frames <-chan wire.Frame, readErr func() error) {
	alive, stop := c.aliveTicks()
	defer stop()
	delayed := time.NewTimer(time.Hour)
	defer delayed.Stop()
	for !c.closing {
		select {
		case <-ctx.Done():
			c.fail(wire.Errorf(condForced, "The emulator is going down."))
		case f, ok := <-frames:
			if !ok {
				c.readFailed(readErr())
				break
			}
			c.frame(f)
			c.moreFrames(frames)
		case <-c.wakeup:
			c.readMail()
		case <-delayed.C:
		case <-alive:
			c.sayAlive()
		}
		if !c.closing {
			c.pump()
		}
		c.flush()
		if !c.due.IsZero() {
			delayed.Reset(time.Until(c.due))
		}
	}
}

// moreFrames handles what has been read already, so that a burst of frames costs
// one write.
func (c *conn) moreFrames(frames <-chan wire.Frame) {
	for range cap(frames) {
		if c.closing {
			return
		}
		select {
		case f, ok := <-frames:
			if !ok {
				return // the loop sees it again
			}
			c.frame(f)
		default:
			return
		}
	}
}

// aliveTicks fires four times in the peer's idle time-out, so that an empty frame
// goes out at the latest after half of it.
func (c *conn) aliveTicks() (<-chan time.Time, func()) {
	if c.peerIdle == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(c.peerIdle / 4)
	return t.C, t.Stop
}

func (c *conn) sayAlive() {
	if time.Since(c.lastWrite) >= c.peerIdle/4 {
		c.out = wire.AppendFrame(c.out, wire.FrameAMQP, 0, nil, nil)
	}
}

func (c *conn) readFailed(err error) {
	var frame *wire.FrameError
	switch {
	case errors.As(err, &frame):
		c.fail(wire.Errorf(condFraming, "%s", frame.Cause))
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.fail(wire.Errorf(condResourceLimit, "The connection was silent for longer than %s.", c.s.cfg.IdleTimeout))
	default:
		c.closing = true
	}
}

// fail ends the connection with an error.
func (c *conn) fail(e *wire.Error) {
	if c.closing {
		return
	}
	c.log.Debug("event hubs emulator: connection ended", slog.Any("cause", e))
	c.send(0, &wire.Close{Error: e}, nil)
	c.closing = true
}

// send puts a frame into the output.
func (c *conn) send(channel uint16, p wire.Performative, payload []byte) {
	c.out = wire.AppendFrame(c.out, wire.FrameAMQP, channel, p, payload)
}

// flush writes the output. A peer that does not read for writeTime is given up.
func (c *conn) flush() {
	if len(c.out) == 0 {
		return
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(writeTime))
	if c.stopping.Load() { // after the line above, so that one of the two sees the other
		_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
	}
	if _, err := c.nc.Write(c.out); err != nil {
		c.closing = true
	}
	c.lastWrite = time.Now()
	c.out = c.out[:0]
	if cap(c.out) > 4*flushBytes {
		c.out = nil
	}
}

// frame does what a frame says.
func (c *conn) frame(f wire.Frame) {
	p, payload, err := wire.ParsePerformative(f.Body)
	var bad *wire.FrameError
	if errors.As(err, &bad) {
		c.fail(wire.Errorf(condDecode, "%s", bad.Cause))
		return
	}
	if f.Type != wire.FrameAMQP {
		c.fail(wire.Errorf(condFraming, "A frame of type %d.", f.Type))
		return
	}
	switch p := p.(type) {
	case nil:
	case *wire.Begin:
		c.begin(f.Channel, p)
	case *wire.Close:
		c.send(0, &wire.Close{}, nil)
		c.closing = true
	default:
		s := c.sessions[f.Channel]
		if s == nil {
			c.fail(wire.Errorf(condNotAllowed, "A frame on channel %d, which has no session.", f.Channel))
			return
		}
		s.frame(p, payload)
	}
}

func (c *conn) begin(channel uint16, p *wire.Begin) {
	if channel >= maxSessions || c.sessions[channel] != nil || p.RemoteChannel != nil {
		c.fail(wire.Errorf(condNotAllowed, "Session on channel %d cannot begin.", channel))
		return
	}
	c.sessions[channel] = &session{
		c: c, channel: channel, nextIncoming: p.NextOutgoingID, window: incomingWindow,
		peerWindow: int64(p.IncomingWindow), links: map[uint32]*link{},
	}
	c.send(channel, &wire.Begin{
		RemoteChannel: &channel, IncomingWindow: incomingWindow, OutgoingWindow: incomingWindow, HandleMax: maxLinks - 1,
	}, nil)
}

// pump writes events and answers to the links that have credit, each its share.
func (c *conn) pump() {
	c.due = time.Time{}
	c.expire()
	more := false
	for _, s := range c.sessions {
		for _, l := range s.links {
			if l.out != nil && !l.closing && l.out.pump() {
				more = true
			}
			if len(c.out) > flushBytes {
				c.flush()
			}
		}
	}
	if more {
		c.wake()
	}
}
