package emulator

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// rawPeer speaks frame by frame, also what no client would.
type rawPeer struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
}

func startRaw(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	cfg := Config{Addr: "127.0.0.1:0", Hubs: []Hub{{Name: "logs", Partitions: 2}}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, s *Server) *rawPeer {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	return &rawPeer{t, nc, bufio.NewReader(nc)}
}

// dialRaw logs in and opens the connection and a session on channel 0.
func dialRaw(t *testing.T, s *Server, open wire.Open) *rawPeer {
	t.Helper()
	p := connect(t, s)
	p.write(headerSASL[:])
	p.write(wire.AppendFrame(nil, wire.FrameSASL, 0, &wire.SASLInit{Mechanism: "MSSBCBS"}, nil))
	p.header(headerSASL)
	if m, ok := p.read().(*wire.SASLMechanisms); !ok || len(m.Mechanisms) != 3 {
		t.Fatalf("mechanisms %v", m)
	}
	if o, ok := p.read().(*wire.SASLOutcome); !ok || o.Outcome != 0 {
		t.Fatalf("outcome %v", o)
	}
	p.write(headerAMQP[:])
	open.ContainerID = "raw"
	p.send(&open, nil)
	p.send(&wire.Begin{IncomingWindow: 100, OutgoingWindow: 100}, nil)
	p.header(headerAMQP)
	if o, ok := p.read().(*wire.Open); !ok || o.IdleTimeout != uint32(s.cfg.IdleTimeout.Milliseconds()/2) {
		t.Fatalf("open %+v", o)
	}
	if b, ok := p.read().(*wire.Begin); !ok || b.RemoteChannel == nil {
		t.Fatalf("begin %+v", b)
	}
	return p
}

func (p *rawPeer) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *rawPeer) send(f wire.Performative, payload []byte) {
	p.t.Helper()
	p.write(wire.AppendFrame(nil, wire.FrameAMQP, 0, f, payload))
}

func (p *rawPeer) header(want [8]byte) {
	p.t.Helper()
	var got [8]byte
	if _, err := io.ReadFull(p.br, got[:]); err != nil || got != want {
		p.t.Fatalf("header %q, %v, want %q", got, err, want)
	}
}

// read gives the next frame; nil is an empty one.
func (p *rawPeer) read() wire.Performative {
	p.t.Helper()
	f, err := wire.ReadFrame(p.br, 1<<20)
	if err != nil {
		p.t.Fatal(err)
	}
	v, _, err := wire.ParsePerformative(f.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// closed expects a close frame with the condition and the end of the connection.
func (p *rawPeer) closed(condition wire.Symbol) {
	p.t.Helper()
	c, ok := p.read().(*wire.Close)
	if !ok || c.Error == nil || c.Error.Condition != condition {
		p.t.Fatalf("%+v, want close with %s", c, condition)
	}
	if _, err := p.br.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Errorf("the connection stays open: %v", err)
	}
}

// attached makes a link to the address and reads the credit.
func (p *rawPeer) attached(handle uint32, address string) {
	p.t.Helper()
	p.send(&wire.Attach{Name: address, Handle: handle, Target: wire.NewTarget(address), InitialDeliveryCount: new(uint32)}, nil)
	if a, ok := p.read().(*wire.Attach); !ok || a.Target == nil {
		p.t.Fatalf("attach %+v", a)
	}
	if f, ok := p.read().(*wire.Flow); !ok || *f.LinkCredit != producerCredit {
		p.t.Fatalf("flow %+v", f)
	}
}

func TestRefusesOtherProtocols(t *testing.T) {
	s := startRaw(t, nil)
	for _, header := range []string{"AMQP\x00\x01\x00\x00", "AMQP\x02\x01\x00\x00", "GET / HT", "AMQP\x00\x00\x09\x01"} {
		p := connect(t, s)
		p.write([]byte(header))
		p.header(headerSASL)
		if _, err := p.br.ReadByte(); err == nil {
			t.Errorf("%q: the connection stays open", header)
		}
	}
}

func TestFrameLimit(t *testing.T) {
	s := startRaw(t, func(c *Config) { c.MaxFrameSize = 1024 })
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 512})
	p.write([]byte("\xff\xff\xff\xff\x02\x00\x00\x00")) // claims 4 GiB
	p.closed(condFraming)
	p = dialRaw(t, s, wire.Open{MaxFrameSize: 512})
	p.send(&wire.Flow{}, make([]byte, 2000))
	p.closed(condFraming)
	p = dialRaw(t, s, wire.Open{MaxFrameSize: 512})
	p.write([]byte("\x00\x00\x00\x09\x02\x00\x00\x00\x40"))
	p.closed(condDecode)
}

func TestOpenLimits(t *testing.T) {
	s := startRaw(t, nil)
	for _, open := range []wire.Open{{MaxFrameSize: 511}, {MaxFrameSize: 512, IdleTimeout: 1}} {
		p := connect(t, s)
		p.write(headerSASL[:])
		p.write(wire.AppendFrame(nil, wire.FrameSASL, 0, &wire.SASLInit{Mechanism: "ANONYMOUS"}, nil))
		p.write(headerAMQP[:])
		p.send(&open, nil)
		p.header(headerSASL)
		p.read()
		p.read()
		p.header(headerAMQP)
		p.read()
		if c, ok := p.read().(*wire.Close); !ok || c.Error == nil {
			t.Errorf("%+v: %+v, want close", open, c)
		}
	}
}

func message(body string) []byte {
	return wire.AppendSection(nil, wire.SectionData, []byte(body))
}

func id(n uint32) *uint32 { return &n }

// TestMessageSizeLimit: a message above the limit is rejected when all of it has
// come, and the link goes on.
func TestMessageSizeLimit(t *testing.T) {
	s := startRaw(t, func(c *Config) { c.MaxMessageSize = 2000 })
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 4096})
	p.attached(0, "logs")
	p.send(&wire.Transfer{DeliveryID: id(0), More: true}, make([]byte, 1500))
	p.send(&wire.Transfer{More: true}, make([]byte, 1500))
	p.send(&wire.Transfer{}, make([]byte, 1500))
	d, ok := p.read().(*wire.Disposition)
	if !ok || d.First != 0 || !d.Settled {
		t.Fatalf("%+v, want the disposition of delivery 0", d)
	}
	if diff := cmp.Diff(wire.Rejected(wire.Errorf(condMessageSize,
		"The received message (delivery-id:0, size:4500 bytes) exceeds the limit (2000 bytes) currently allowed on the link.")), d.State); diff != "" {
		t.Error(diff)
	}
	if n := s.Stats().EventsIn; n != 0 {
		t.Errorf("%d events stored", n)
	}
	p.send(&wire.Transfer{DeliveryID: id(1)}, message("small"))
	if d, ok := p.read().(*wire.Disposition); !ok || d.First != 1 {
		t.Fatalf("%+v, want the disposition of delivery 1", d)
	}
	if n := s.Stats(); n.EventsIn != 1 || n.MessagesRejected != 1 {
		t.Errorf("%+v, want one event stored and one message rejected", n)
	}
}

func TestAbortedTransfer(t *testing.T) {
	s := startRaw(t, nil)
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 4096})
	p.attached(3, "logs/Partitions/0")
	m := message("whole")
	p.send(&wire.Transfer{Handle: 3, DeliveryID: id(0), More: true}, m[:3])
	p.send(&wire.Transfer{Handle: 3, Aborted: true}, nil)
	p.send(&wire.Transfer{Handle: 3, DeliveryID: id(1), More: true}, m[:3])
	p.send(&wire.Transfer{Handle: 3}, m[3:])
	d, ok := p.read().(*wire.Disposition)
	if !ok || d.First != 1 || !d.Settled || !d.Receiver {
		t.Fatalf("%+v, want the disposition of delivery 1", d)
	}
	if n := s.Stats().EventsKept; n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// TestCreditIsReplenished: a producer that never waits for an answer is granted new
// credit at every half.
func TestCreditIsReplenished(t *testing.T) {
	s := startRaw(t, nil)
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 4096})
	p.attached(0, "logs")
	settled := true
	var burst []byte
	for i := range uint32(producerCredit * 3) {
		burst = wire.AppendFrame(burst, wire.FrameAMQP, 0, &wire.Transfer{DeliveryID: id(i), Settled: &settled}, message("x"))
	}
	p.write(burst)
	grants := 0
	for grants < 5 {
		if f, ok := p.read().(*wire.Flow); ok && f.Handle != nil {
			grants++
		}
	}
}

func TestBadMessagesAreRejected(t *testing.T) {
	s := startRaw(t, nil)
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 4096})
	p.attached(0, "logs")
	batch := uint32(wire.BatchFormat)
	for i, tt := range []struct {
		format  *uint32
		payload []byte
	}{
		{nil, []byte("\x40")},
		{&batch, []byte("\x40")},
		{&batch, wire.AppendSection(nil, wire.SectionValue, "no data")},
		{&batch, message("not a message")},
		{nil, wire.AppendSection(nil, wire.SectionMessageAnnotations, wire.Map{{Key: wire.Symbol(keyNote), Value: int64(1)}})},
	} {
		p.send(&wire.Transfer{DeliveryID: id(uint32(i)), MessageFormat: tt.format}, tt.payload)
		d, ok := p.read().(*wire.Disposition)
		state, _ := d.State.(wire.Described)
		if !ok || !d.Settled || state.Descriptor != uint64(wire.CodeRejected) {
			t.Errorf("case %d: %+v, want rejected", i, d)
		}
	}
	if n := s.Stats(); n.EventsIn != 0 || n.MessagesRejected != 5 {
		t.Errorf("%+v", n)
	}
}

func TestSessionErrors(t *testing.T) {
	s := startRaw(t, nil)
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 4096})
	p.send(&wire.Transfer{Handle: 9}, nil)
	if e, ok := p.read().(*wire.End); !ok || e.Error == nil || e.Error.Condition != condUnattached {
		t.Fatalf("%+v, want end", e)
	}
	p.send(&wire.Transfer{Handle: 9}, nil) // ignored: the session is ending
	p.send(&wire.End{}, nil)
	p.send(&wire.Begin{IncomingWindow: 1, OutgoingWindow: 1}, nil)
	if b, ok := p.read().(*wire.Begin); !ok {
		t.Fatalf("%+v, want begin", b)
	}
	p.attached(0, "logs")
	p.send(&wire.Attach{Name: "again", Target: wire.NewTarget("logs")}, nil)
	if e, ok := p.read().(*wire.End); !ok || e.Error == nil || e.Error.Condition != condHandleInUse {
		t.Fatalf("%+v, want end", e)
	}
	p.write(wire.AppendFrame(nil, wire.FrameAMQP, 77, &wire.Flow{}, nil))
	p.closed(condNotAllowed)
}

// TestEcho: a flow frame that asks for one is answered, for the session and for a
// link.
func TestEcho(t *testing.T) {
	s := startRaw(t, nil)
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 4096})
	p.send(&wire.Flow{IncomingWindow: 5, Echo: true}, nil)
	if f, ok := p.read().(*wire.Flow); !ok || f.Handle != nil || f.IncomingWindow != incomingWindow {
		t.Fatalf("%+v", f)
	}
	source := &wire.Terminus{Descriptor: uint64(wire.CodeSource), Fields: wire.List{"logs/ConsumerGroups/$Default/Partitions/0"}}
	p.send(&wire.Attach{Name: "r", Receiver: true, SndSettle: 2, Source: source}, nil)
	if a, ok := p.read().(*wire.Attach); !ok || a.InitialDeliveryCount == nil || a.Source == nil || a.Target == nil {
		t.Fatalf("%+v", a)
	}
	p.send(&wire.Flow{IncomingWindow: 5, Handle: id(0), LinkCredit: id(7), Echo: true}, nil)
	if f, ok := p.read().(*wire.Flow); !ok || f.Handle == nil || *f.LinkCredit != 7 {
		t.Fatalf("%+v", f)
	}
}

// TestSessionWindow: the peer's window holds events back, in the middle of a
// message as well.
func TestSessionWindow(t *testing.T) {
	s := startRaw(t, nil)
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 512})
	if _, err := s.Publish("logs", ToPartition(0), make([]byte, 1500), nil); err != nil {
		t.Fatal(err)
	}
	source := &wire.Terminus{Descriptor: uint64(wire.CodeSource), Fields: wire.List{"logs/ConsumerGroups/$Default/Partitions/0"}}
	p.send(&wire.Attach{Name: "r", Receiver: true, SndSettle: 2, Source: source}, nil)
	p.read()
	frames := 0
	next := uint32(0)
	for more := true; more; {
		p.send(&wire.Flow{NextIncomingID: &next, IncomingWindow: 1, Handle: id(0), LinkCredit: id(1), DeliveryCount: id(0), Echo: true}, nil)
		for {
			v := p.read()
			if tr, ok := v.(*wire.Transfer); ok {
				frames, more = frames+1, tr.More
				next++
				break
			}
		}
	}
	if frames != 4 {
		t.Errorf("%d frames, want 4", frames)
	}
}

func TestConnectionLimit(t *testing.T) {
	s := startRaw(t, func(c *Config) { c.MaxConnections = 1 })
	dialRaw(t, s, wire.Open{MaxFrameSize: 512})
	p := connect(t, s)
	if _, err := p.br.ReadByte(); err == nil {
		t.Error("a connection too many stays open")
	}
	if n := s.Stats().ConnectionsRefused; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}

// TestStopDespiteDeafPeer: a peer that takes credit and never reads cannot hold
// the stop up.
func TestStopDespiteDeafPeer(t *testing.T) {
	s, err := New(Config{Addr: "127.0.0.1:0", Hubs: []Hub{{Name: "logs", Partitions: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 1 << 20})
	source := &wire.Terminus{Descriptor: uint64(wire.CodeSource), Fields: wire.List{"logs/ConsumerGroups/$Default/Partitions/0"}}
	p.send(&wire.Attach{Name: "deaf", Receiver: true, SndSettle: 2, Source: source}, nil)
	p.send(&wire.Flow{IncomingWindow: 1 << 30, Handle: id(0), LinkCredit: id(1 << 30)}, nil)
	for range 40 { // more than the socket's buffers hold
		if _, err := s.Publish("logs", ToPartition(0), make([]byte, 1_000_000), nil); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond) // until the writer stands
	begin := time.Now()
	cancel()
	if err := <-done; err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("stopped after %s: %v", time.Since(begin), err)
	}
}

// TestStopTellsPeers: clients are told when the emulator goes down.
func TestStopTellsPeers(t *testing.T) {
	s, err := New(Config{Addr: "127.0.0.1:0", Hubs: []Hub{{Name: "logs", Partitions: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p := dialRaw(t, s, wire.Open{MaxFrameSize: 512})
	cancel()
	p.closed(condForced)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
