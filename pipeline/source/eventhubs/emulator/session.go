package emulator

import (
	"log/slog"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// session is one session of a connection. Peers choose channels and handles; the
// emulator answers with the same numbers.
type session struct {
	c       *conn
	channel uint16
	ended   bool // our end frame is written, the peer's has not come

	nextIncoming uint32
	window       uint32 // transfers that the peer may still send
	nextOutgoing uint32 // also the next delivery id
	nextDelivery uint32
	peerWindow   int64 // transfers that we may still send
	links        map[uint32]*link
}

// link is one link, seen from here: in takes messages, out gives them.
type link struct {
	s       *session
	handle  uint32
	name    string
	closing bool // our detach is written, the peer's has not come
	in      *inbound
	out     *outbound
}

func (s *session) frame(p wire.Performative, payload []byte) {
	if _, isEnd := p.(*wire.End); s.ended && !isEnd {
		return
	}
	switch p := p.(type) {
	case *wire.Attach:
		s.attach(p)
	case *wire.Flow:
		s.flow(p)
	case *wire.Transfer:
		s.transfer(p, payload)
	case *wire.Disposition:
		s.disposition(p)
	case *wire.Detach:
		s.detach(p)
	case *wire.End:
		if !s.ended {
			s.c.send(s.channel, &wire.End{}, nil)
		}
		s.release()
		delete(s.c.sessions, s.channel)
	default:
		s.c.fail(wire.Errorf(condNotAllowed, "A frame that has no place in a session."))
	}
}

// end ends the session with an error; its frames are ignored until the peer has
// ended it as well.
func (s *session) end(e *wire.Error) {
	s.c.send(s.channel, &wire.End{Error: e}, nil)
	s.release()
	s.ended = true
}

// release gives back what the session's links hold.
func (s *session) release() {
	for _, l := range s.links {
		l.release()
	}
	s.links = map[uint32]*link{}
}

func (s *session) link(handle uint32) *link {
	l := s.links[handle]
	if l == nil {
		s.end(wire.Errorf(condUnattached, "No link has the handle %d.", handle))
	}
	return l
}

// flow takes over windows and credit.
func (s *session) flow(p *wire.Flow) {
	next := uint32(0) // the peer has not seen our begin frame, which says 0
	if p.NextIncomingID != nil {
		next = *p.NextIncomingID
	}
	s.peerWindow = max(0, int64(p.IncomingWindow)-int64(s.nextOutgoing-next))
	if p.Handle == nil {
		if p.Echo {
			s.tell()
		}
		return
	}
	l := s.link(*p.Handle)
	if l == nil || l.closing {
		return
	}
	if l.out != nil {
		l.out.flow(p)
	} else if p.Echo {
		l.in.tell()
	}
}

// tell sends the state of the session.
func (s *session) tell() { s.c.send(s.channel, s.state(), nil) }

func (s *session) state() *wire.Flow {
	next := s.nextIncoming
	return &wire.Flow{
		NextIncomingID: &next, IncomingWindow: s.window,
		NextOutgoingID: s.nextOutgoing, OutgoingWindow: incomingWindow,
	}
}

func (s *session) transfer(p *wire.Transfer, payload []byte) {
	if s.window == 0 {
		s.end(wire.Errorf(condWindow, "More transfers than the window of %d.", incomingWindow))
		return
	}
	s.nextIncoming++
	if s.window--; s.window < incomingWindow/2 {
		s.window = incomingWindow
		s.tell()
	}
	l := s.link(p.Handle)
	if l == nil || l.closing {
		return
	}
	if l.in == nil {
		l.detach(wire.Errorf(condNotAllowed, "A transfer on a link that only sends."))
		return
	}
	l.in.transfer(p, payload)
}

// disposition settles what the peer wants settled. What the peer decided about an
// event changes nothing: a log keeps its events.
func (s *session) disposition(p *wire.Disposition) {
	if p.Receiver && !p.Settled && p.State != nil {
		s.c.send(s.channel, &wire.Disposition{First: p.First, Last: p.Last, Settled: true, State: p.State}, nil)
	}
}

func (s *session) detach(p *wire.Detach) {
	l := s.link(p.Handle)
	if l == nil {
		return
	}
	if !l.closing {
		s.c.send(s.channel, &wire.Detach{Handle: l.handle, Closed: p.Closed}, nil)
	}
	l.release()
	delete(s.links, p.Handle)
}

// detach ends the link with an error; its frames are ignored until the peer has
// detached as well.
func (l *link) detach(e *wire.Error) {
	if l.closing || l.s.ended || l.s.links[l.handle] != l {
		return
	}
	l.s.c.log.Debug("event hubs emulator: link ended", slog.String("link", l.name), slog.Any("cause", e))
	l.s.c.send(l.s.channel, &wire.Detach{Handle: l.handle, Closed: true, Error: e}, nil)
	l.closing = true
	l.release()
}

// node is what the link leads to; a link that was refused leads nowhere.
func (l *link) node() node {
	switch {
	case l.in != nil:
		return l.in.node
	case l.out != nil:
		return l.out.node
	}
	return node{}
}

func (l *link) release() {
	switch {
	case l.in != nil:
		l.in.release()
	case l.out != nil:
		l.out.release()
	}
}
