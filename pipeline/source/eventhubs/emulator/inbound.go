package emulator

import (
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// inbound is a link on which the peer sends: events, or requests.
type inbound struct {
	*link
	node          node
	credit        uint32
	deliveryCount uint32
	message       *partialMessage
}

// partialMessage is a message of which frames are still to come.
type partialMessage struct {
	id      uint32
	format  uint32
	settled bool
	size    int64  // so far, bytes
	payload []byte // empty once size is above the limit
}

func (in *inbound) release() { in.drop() }

// drop forgets the partial message.
func (in *inbound) drop() {
	if in.message != nil {
		in.s.c.partial -= int64(len(in.message.payload))
		in.message = nil
	}
}

// grant fills the peer's credit up.
func (in *inbound) grant() {
	in.credit = producerCredit
	in.tell()
}

// tell sends the state of the link.
func (in *inbound) tell() {
	f := in.s.state()
	handle, count, credit := in.handle, in.deliveryCount, in.credit
	f.Handle, f.DeliveryCount, f.LinkCredit = &handle, &count, &credit
	in.s.c.send(in.s.channel, f, nil)
}

func (in *inbound) transfer(p *wire.Transfer, payload []byte) {
	if in.message == nil && !in.start(p) {
		return
	}
	m, c := in.message, in.s.c
	m.settled = m.settled || p.Settled != nil && *p.Settled
	m.size += int64(len(payload))
	switch {
	case p.Aborted:
		in.drop()
		in.count()
		return
	case m.size > c.s.cfg.MaxMessageSize:
		in.discard(p.More)
		return
	case c.partial+int64(len(payload)) > maxPartialBytes:
		in.detach(wire.Errorf(condResourceLimit, "More than %d bytes of unfinished messages on the connection.", maxPartialBytes))
		return
	}
	if !p.More && len(m.payload) == 0 {
		in.message = nil
		in.complete(m, payload) // the common case: one frame, nothing to copy
		return
	}
	m.payload = append(m.payload, payload...)
	c.partial += int64(len(payload))
	if !p.More {
		in.drop()
		in.complete(m, m.payload)
	}
}

// discard forgets what came of a message above the limit, and rejects it when all
// of it has come. The link stays: JavaScript's client would wait for a disposition
// until its time is up.
func (in *inbound) discard(more bool) {
	m, c := in.message, in.s.c
	c.partial -= int64(len(m.payload))
	m.payload = nil
	if !more {
		in.message = nil
		in.settle(m, wire.Errorf(condMessageSize, "The received message (delivery-id:%d, size:%d bytes) exceeds the limit (%d bytes) currently allowed on the link.",
			m.id, m.size, c.s.cfg.MaxMessageSize))
	}
}

// start begins a message; false means that the link had to end.
func (in *inbound) start(p *wire.Transfer) bool {
	if in.credit == 0 {
		in.detach(wire.Errorf(condTransferLimit, "More messages than the credit allows."))
		return false
	}
	if p.DeliveryID == nil {
		in.detach(wire.Errorf(condInvalidField, "The first transfer of a message has no delivery-id."))
		return false
	}
	in.message = &partialMessage{id: *p.DeliveryID}
	if p.MessageFormat != nil {
		in.message.format = *p.MessageFormat
	}
	return true
}

// count says that a message came, and grants new credit when half is used.
func (in *inbound) count() {
	in.deliveryCount++
	if in.credit--; in.credit <= producerCredit/2 {
		in.grant()
	}
}

func (in *inbound) complete(m *partialMessage, payload []byte) {
	in.settle(m, in.receive(payload, m.format))
}

// settle accepts the message, or rejects it with the error.
func (in *inbound) settle(m *partialMessage, err *wire.Error) {
	if err != nil {
		in.s.c.s.stats.rejected.Add(1)
	}
	if !m.settled {
		state := wire.Accepted()
		if err != nil {
			state = wire.Rejected(err)
		}
		in.s.c.send(in.s.channel, &wire.Disposition{Receiver: true, First: m.id, Settled: true, State: state}, nil)
	}
	if !in.closing {
		in.count()
	}
}

// receive does what the message is for; an error is why it was rejected.
func (in *inbound) receive(payload []byte, format uint32) *wire.Error {
	if in.node.kind == nodeProducer {
		return in.produce(payload, format)
	}
	m, err := wire.ParseMessage(payload)
	if err != nil {
		return wire.Errorf(condDecode, "%s", err)
	}
	to := in.s.c.replyLink(in, m)
	if to == nil {
		return wire.Errorf(condNotAllowed, "There is no link for the answer.")
	}
	var a answer
	if in.node.kind == nodeCBS {
		a = in.s.c.putToken(m)
	} else {
		a = in.s.c.manage(m)
	}
	replyTo, _ := m.Property(wire.PropReplyTo).(string)
	to.reply(wire.Answer(m.Property(wire.PropMessageID), replyTo, a.properties(), a.value))
	return nil
}

// replyLink finds the link for the answer. Clients differ: most name the target
// address of their receiver in reply-to; Python names nothing and expects the
// answer on its receiver from the same node in the same session.
func (c *conn) replyLink(in *inbound, m *wire.Message) *outbound {
	replyTo, _ := m.Property(wire.PropReplyTo).(string)
	var sameSession, any *outbound
	for _, s := range c.sessions {
		for _, l := range s.links {
			if l.out == nil || l.closing || l.out.node.kind != in.node.kind {
				continue
			}
			if replyTo != "" && l.out.address == replyTo {
				return l.out
			}
			if any = l.out; s == in.s && l.out.node.path == in.node.path {
				sameSession = l.out
			}
		}
	}
	if sameSession != nil {
		return sameSession
	}
	return any
}

// answer is the answer to a request.
type answer struct {
	code        int32
	description string
	condition   wire.Symbol // of an error
	value       any
}

// properties gives the application properties. The status must be a 32-bit int:
// clients refuse any other width.
func (a answer) properties() wire.Map {
	m := wire.Map{
		{Key: "status-code", Value: a.code},
		{Key: "status-description", Value: a.description},
	}
	if a.condition != "" {
		m = append(m, wire.Entry{Key: "error-condition", Value: a.condition}, wire.Entry{Key: "errorCondition", Value: a.condition})
	}
	return m
}
