package emulator

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// pipePeer connects to the server without a socket, so that time can be faked. A
// pipe holds nothing: each side reads before the other goes on.
func pipePeer(t *testing.T, s *Server, idle time.Duration) *rawPeer {
	t.Helper()
	ours, theirs := net.Pipe()
	go newConn(s, ours).serve(context.Background())
	t.Cleanup(func() { _ = theirs.Close() })
	p := &rawPeer{t, theirs, bufio.NewReader(theirs)}
	p.write(headerSASL[:])
	p.header(headerSASL)
	p.read()
	p.write(wire.AppendFrame(nil, wire.FrameSASL, 0, &wire.SASLInit{Mechanism: mssbcbs}, nil))
	p.read()
	p.write(headerAMQP[:])
	p.header(headerAMQP)
	p.send(&wire.Open{ContainerID: "pipe", MaxFrameSize: 512, IdleTimeout: uint32(idle.Milliseconds())}, nil)
	if o, ok := p.read().(*wire.Open); !ok || o.IdleTimeout != uint32(s.cfg.IdleTimeout.Milliseconds()/2) {
		t.Fatalf("open %+v", o)
	}
	return p
}

// closedServer is one whose connections are made by hand.
func closedServer(t *testing.T) *Server {
	t.Helper()
	s, err := New(Config{Addr: "127.0.0.1:0", Hubs: []Hub{{Name: "logs", Partitions: 2}}, IdleTimeout: 4 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestIdle: empty frames come within half of what the peer announced, and the
// peer's silence ends the connection.
func TestIdle(t *testing.T) {
	s := closedServer(t)
	synctest.Test(t, func(t *testing.T) {
		p := pipePeer(t, s, time.Minute)
		begin, last, empty := time.Now(), time.Now(), 0
		for {
			v := p.read()
			if gap := time.Since(last); gap > 30*time.Second {
				t.Errorf("a gap of %s, want 30 s at most", gap)
			}
			last = time.Now()
			if c, ok := v.(*wire.Close); ok {
				if c.Error == nil || c.Error.Condition != condResourceLimit {
					t.Errorf("close %+v", c)
				}
				break
			}
			empty++
		}
		if took := time.Since(begin); took != 4*time.Minute {
			t.Errorf("closed after %s, want 4 min", took)
		}
		if empty < 7 {
			t.Errorf("%d empty frames in 4 min, want 7 or more", empty)
		}
		if _, err := p.br.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want the end of the connection", err)
		}
	})
}

// TestKeepsAlive: empty frames from the peer keep the connection open, and a peer
// without an idle time-out gets none.
func TestKeepsAlive(t *testing.T) {
	s := closedServer(t)
	synctest.Test(t, func(t *testing.T) {
		p := pipePeer(t, s, 0)
		for range 20 {
			time.Sleep(2 * time.Minute)
			p.write(wire.AppendFrame(nil, wire.FrameAMQP, 0, nil, nil))
		}
		p.send(&wire.Begin{IncomingWindow: 1, OutgoingWindow: 1}, nil)
		if b, ok := p.read().(*wire.Begin); !ok {
			t.Fatalf("%+v, want begin", b)
		}
	})
}

// TestHandshakeEnds: a peer that says nothing is not waited for.
func TestHandshakeEnds(t *testing.T) {
	s := closedServer(t)
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go newConn(s, ours).serve(context.Background())
		begin := time.Now()
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want the end of the connection", err)
		}
		if took := time.Since(begin); took != handshakeTime {
			t.Errorf("ended after %s, want %s", took, handshakeTime)
		}
	})
}
