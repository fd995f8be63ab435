package emulator

import (
	"encoding/binary"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// outbound is a link on which we send: events of a partition, or answers.
type outbound struct {
	*link
	conn    *conn // readable by others, unlike the link
	node    node
	address string // the peer's name for its end
	settled bool   // send settled

	credit        int64
	deliveryCount uint32
	drain         bool
	sending       *delivery // begun, waiting for the session's window

	replies [][]byte // answers that wait

	epoch   *int64
	name    string // of the receiver, for error texts; shadows link.name
	cursor  int64  // next sequence number
	metrics bool   // tell the end of the partition with each event
	gone    atomic.Bool
}

// delivery is a message on its way.
type delivery struct {
	id      uint32
	rest    []byte
	started bool
}

func (o *outbound) level() int64 {
	if o.epoch == nil {
		return -1
	}
	return *o.epoch
}

// evict ends the link from any goroutine. No event is written once it returns to
// the owner of the connection.
func (o *outbound) evict(e *wire.Error) {
	o.gone.Store(true)
	if e.Condition == condStolen {
		o.conn.s.stats.stolen.Add(1)
	}
	o.conn.post(func() { o.detach(e) })
}

func (o *outbound) release() {
	if o.node.kind != nodeConsumer || o.node.part == nil {
		return
	}
	o.node.part.leave(o.node.group, o)
	o.node.part.unwatch(o.conn)
	o.node.part = nil
}

// flow takes the peer's credit over.
func (o *outbound) flow(p *wire.Flow) {
	if p.LinkCredit != nil {
		seen := uint32(0) // as our attach frame said
		if p.DeliveryCount != nil {
			seen = *p.DeliveryCount
		}
		o.credit = max(0, int64(*p.LinkCredit)-int64(o.deliveryCount-seen))
	}
	o.drain = p.Drain
	if p.Echo && !p.Drain { // the end of draining tells as much
		o.tell()
	}
}

// tell sends the state of the link.
func (o *outbound) tell() {
	f := o.s.state()
	handle, count, credit := o.handle, o.deliveryCount, uint32(o.credit)
	f.Handle, f.DeliveryCount, f.LinkCredit, f.Drain = &handle, &count, &credit, o.drain
	o.s.c.send(o.s.channel, f, nil)
}

// pump sends what there is while the peer gives credit. more is true when only its
// share of the turn was used up.
func (o *outbound) pump() (more bool) {
	if o.gone.Load() || (o.sending != nil && !o.push()) {
		return false
	}
	for range pumpEvents {
		if o.credit == 0 {
			break
		}
		payload, ok := o.next()
		if !ok {
			break
		}
		o.credit--
		o.deliveryCount++
		o.sending = &delivery{id: o.s.nextDelivery, rest: payload}
		o.s.nextDelivery++
		if !o.push() {
			return false
		}
		more = o.credit > 0
	}
	if more {
		return true
	}
	if o.drain {
		o.deliveryCount += uint32(o.credit)
		o.credit = 0
		o.tell()
		o.drain = false
	}
	return false
}

// next gives the next message.
func (o *outbound) next() ([]byte, bool) {
	if o.node.kind != nodeConsumer {
		if len(o.replies) == 0 {
			return nil, false
		}
		payload := o.replies[0]
		o.replies = o.replies[1:]
		return payload, true
	}
	srv := o.s.c.s
	delay := time.Duration(srv.faults.delay.Load())
	e, at, due, ok := o.node.part.read(o.cursor, srv.cfg.Now().Add(-delay).UnixMilli())
	if !ok {
		if due > 0 {
			o.s.c.dueAt(time.UnixMilli(due).Add(delay))
		}
		return nil, false
	}
	o.cursor = at + 1
	payload := o.encode(e, at)
	srv.stats.eventsOut.Add(1)
	srv.stats.bytesOut.Add(int64(len(payload)))
	return payload, true
}

// dueAt remembers when there is something to do without a frame or mail.
func (c *conn) dueAt(t time.Time) {
	if c.due.IsZero() || t.Before(c.due) {
		c.due = t
	}
}

// encode writes an event with the annotations that the service adds.
func (o *outbound) encode(e event, seq int64) []byte {
	dst := make([]byte, 0, len(e.header)+len(e.bare)+256)
	dst = append(dst, e.header...)
	if o.metrics {
		dst = wire.AppendSection(dst, wire.SectionDeliveryAnnotations, o.lastEnqueued())
	}
	notes := wire.Map{
		{Key: wire.Symbol("x-opt-sequence-number"), Value: seq},
		{Key: wire.Symbol("x-opt-offset"), Value: strconv.FormatInt(e.offset, 10)},
		{Key: wire.Symbol("x-opt-enqueued-time"), Value: wire.Timestamp(e.enqueued)},
		{Key: wire.Symbol("x-opt-sequence-number-epoch"), Value: int32(-1)}, // no replication
	}
	if e.key != nil {
		notes = append(notes, wire.Entry{Key: wire.Symbol("x-opt-partition-key"), Value: *e.key})
	}
	dst = wire.AppendSection(dst, wire.SectionMessageAnnotations, append(notes, e.notes...))
	return append(dst, e.bare...)
}

func (o *outbound) lastEnqueued() wire.Map {
	_, last, _ := o.node.part.state()
	return wire.Map{
		{Key: wire.Symbol("last_enqueued_sequence_number"), Value: last.sequence},
		{Key: wire.Symbol("last_enqueued_offset"), Value: strconv.FormatInt(last.offset, 10)},
		{Key: wire.Symbol("last_enqueued_time_utc"), Value: wire.Timestamp(last.enqueued)},
		{Key: wire.Symbol("runtime_info_retrieval_time_utc"), Value: wire.Timestamp(o.s.c.s.cfg.Now().UnixMilli())},
	}
}

// transferOverhead is more than a transfer frame takes besides its payload.
const transferOverhead = 64

// push writes frames of the delivery until it is done or the session's window is
// closed.
func (o *outbound) push() (done bool) {
	d, s := o.sending, o.s
	for s.peerWindow > 0 {
		t := &wire.Transfer{Handle: o.handle}
		if !d.started {
			t.DeliveryID, t.DeliveryTag = &d.id, binary.BigEndian.AppendUint32(nil, d.id)
			t.MessageFormat, t.Settled = new(uint32), &o.settled
		}
		n := min(len(d.rest), int(min(s.c.peerFrame, 1<<20))-transferOverhead)
		t.More = n < len(d.rest)
		s.c.send(s.channel, t, d.rest[:n])
		d.rest, d.started = d.rest[n:], true
		s.nextOutgoing++
		s.peerWindow--
		if !t.More {
			o.sending = nil
			return true
		}
	}
	return false
}

// reply queues an answer.
func (o *outbound) reply(payload []byte) {
	if len(o.replies) >= maxReplies {
		o.detach(wire.Errorf(condResourceLimit, "More than %d answers wait for credit.", maxReplies))
		return
	}
	o.replies = append(o.replies, payload)
}
