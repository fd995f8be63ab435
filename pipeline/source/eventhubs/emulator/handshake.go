package emulator

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// Protocol headers.
var (
	headerAMQP = [8]byte{'A', 'M', 'Q', 'P', 0, 1, 0, 0}
	headerSASL = [8]byte{'A', 'M', 'Q', 'P', 3, 1, 0, 0}
)

// Ways to log in. MSSBCBS is ANONYMOUS by another name: the token that follows on
// $cbs is what counts.
const (
	anonymous = "ANONYMOUS"
	plain     = "PLAIN"
	mssbcbs   = "MSSBCBS"
)

// handshake logs the peer in and opens the connection.
func (c *conn) handshake() error {
	header, err := c.header()
	if err != nil {
		return err
	}
	if header != headerSASL {
		c.out = append(c.out, headerSASL[:]...)
		return fmt.Errorf("protocol header %q, want SASL", header[:])
	}
	if err := c.login(); err != nil {
		return err
	}
	if header, err = c.header(); err != nil {
		return err
	}
	c.out = append(c.out, headerAMQP[:]...)
	if header != headerAMQP {
		return fmt.Errorf("protocol header %q, want AMQP 1.0", header[:])
	}
	c.flush()
	return c.open()
}

func (c *conn) header() (h [8]byte, err error) {
	_, err = io.ReadFull(c.br, h[:])
	return h, err
}

func (c *conn) login() error {
	c.out = append(c.out, headerSASL[:]...)
	c.out = wire.AppendFrame(c.out, wire.FrameSASL, 0, &wire.SASLMechanisms{Mechanisms: []wire.Symbol{mssbcbs, plain, anonymous}}, nil)
	c.flush()
	f, err := wire.ReadFrame(c.br, saslFrameLimit)
	if err != nil {
		return err
	}
	p, _, err := wire.ParsePerformative(f.Body)
	if err != nil {
		return err
	}
	init, ok := p.(*wire.SASLInit)
	if !ok || f.Type != wire.FrameSASL {
		return errors.New("first frame is no SASL init")
	}
	outcome := c.check(init)
	c.out = wire.AppendFrame(c.out, wire.FrameSASL, 0, &wire.SASLOutcome{Outcome: outcome}, nil)
	c.flush()
	if outcome != 0 {
		return fmt.Errorf("login by %q refused", init.Mechanism)
	}
	return nil
}

// check gives the outcome: 0 is good, 1 is not.
func (c *conn) check(init *wire.SASLInit) uint8 {
	switch init.Mechanism {
	case anonymous, mssbcbs:
		return 0
	case plain:
		parts := bytes.Split(init.Response, []byte{0})
		if len(parts) != 3 {
			return 1
		}
		if c.trusted {
			return 0
		}
		name := subtle.ConstantTimeCompare(parts[1], []byte(c.s.cfg.KeyName))
		key := subtle.ConstantTimeCompare(parts[2], []byte(c.s.cfg.Key))
		if name&key == 1 {
			c.trusted = true
			return 0
		}
	}
	return 1
}

// open exchanges the open frames.
func (c *conn) open() error {
	f, err := wire.ReadFrame(c.br, uint32(c.s.cfg.MaxFrameSize))
	if err != nil {
		return err
	}
	p, _, err := wire.ParsePerformative(f.Body)
	if err != nil {
		return err
	}
	o, ok := p.(*wire.Open)
	if !ok || f.Channel != 0 || f.Type != wire.FrameAMQP {
		return errors.New("first frame is no open")
	}
	c.peerFrame, c.peerIdle = o.MaxFrameSize, time.Duration(o.IdleTimeout)*time.Millisecond
	c.send(0, &wire.Open{
		ContainerID: "event-hubs-emulator", MaxFrameSize: uint32(c.s.cfg.MaxFrameSize), ChannelMax: maxSessions - 1,
		// A peer sends at half of what it is told; we wait for twice as long.
		IdleTimeout: uint32(c.s.cfg.IdleTimeout.Milliseconds() / 2),
		Properties:  wire.Map{{Key: wire.Symbol("product"), Value: "Event Hubs emulator"}},
	}, nil)
	switch {
	case c.peerFrame < 512:
		c.fail(wire.Errorf(condInvalidField, "max-frame-size is %d, want 512 or more.", c.peerFrame))
		return errors.New("frame size too small")
	case c.peerIdle > 0 && c.peerIdle < minPeerIdle:
		c.fail(wire.Errorf(condNotAllowed, "idle-time-out is %s, want %s or more.", c.peerIdle, minPeerIdle))
		return errors.New("idle time-out too small")
	}
	c.flush()
	return nil
}
