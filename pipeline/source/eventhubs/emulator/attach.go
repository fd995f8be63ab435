package emulator

import (
	"math"
	"slices"
	"strings"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// node is what a link leads to.
type node struct {
	kind  nodeKind
	path  string // without scheme and host
	hub   *hub
	part  *partition // nil for a producer that leaves the choice to the hub
	group string
}

type nodeKind int

const (
	nodeCBS nodeKind = iota
	nodeManagement
	nodeProducer
	nodeConsumer
)

// pathOf cuts scheme and host off an address.
func pathOf(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		_, address, _ = strings.Cut(rest, "/")
	}
	return strings.Trim(address, "/")
}

// resolve finds the node of an address.
func (s *Server) resolve(address string, receiver bool) (node, *wire.Error) {
	n := node{path: pathOf(address)}
	seg := strings.Split(n.path, "/")
	if len(seg) == 1 && strings.EqualFold(seg[0], "$cbs") {
		n.kind = nodeCBS
		return n, nil
	}
	if strings.EqualFold(seg[len(seg)-1], "$management") && len(seg) <= 2 {
		n.kind = nodeManagement
		return n, nil
	}
	if n.hub = s.hub(seg[0]); n.hub == nil {
		return n, wire.Errorf(condNotFound, "The messaging entity '%s' could not be found.", n.path)
	}
	if receiver {
		return n.consumer(seg)
	}
	return n.producer(seg)
}

func (n node) producer(seg []string) (node, *wire.Error) {
	n.kind = nodeProducer
	if len(seg) == 1 {
		return n, nil
	}
	if len(seg) != 3 || !strings.EqualFold(seg[1], "Partitions") {
		return n, wire.Errorf(condNotFound, "The messaging entity '%s' could not be found.", n.path)
	}
	return n.withPartition(seg[2])
}

func (n node) consumer(seg []string) (node, *wire.Error) {
	n.kind = nodeConsumer
	if len(seg) != 5 || !strings.EqualFold(seg[1], "ConsumerGroups") || !strings.EqualFold(seg[3], "Partitions") {
		return n, wire.Errorf(condNotFound, "The messaging entity '%s' could not be found.", n.path)
	}
	if n.group = seg[2]; !n.hub.groups[strings.ToLower(n.group)] {
		return n, wire.Errorf(condNotFound, "The messaging entity '%s:%s' could not be found.", n.hub.name, n.group)
	}
	return n.withPartition(seg[4])
}

func (n node) withPartition(id string) (node, *wire.Error) {
	if n.part = n.hub.partition(id); n.part == nil {
		return n, n.hub.noPartition()
	}
	return n, nil
}

// noPartition is the answer to a partition that the hub does not have, on a link
// as to a request. SDKs' own tests expect the beginning of its text.
func (h *hub) noPartition() *wire.Error {
	return wire.Errorf(condOutOfRange, "The specified partition is invalid for an EventHub partition sender or receiver. It should be between 0 and %d.", len(h.partitions)-1)
}

// attach makes a link, or answers with a link without ends and detaches it, which
// is how AMQP refuses one.
func (s *session) attach(p *wire.Attach) {
	if p.Handle >= maxLinks || s.links[p.Handle] != nil {
		s.end(wire.Errorf(condHandleInUse, "The handle %d is in use or above %d.", p.Handle, maxLinks-1))
		return
	}
	l := &link{s: s, handle: p.Handle, name: p.Name}
	answer := &wire.Attach{
		Name: p.Name, Handle: p.Handle, Receiver: !p.Receiver, SndSettle: p.SndSettle, RcvSettle: p.RcvSettle,
		MaxMessageSize: uint64(s.c.s.cfg.MaxMessageSize),
	}
	var err *wire.Error
	if p.Receiver {
		answer.InitialDeliveryCount = new(uint32)
		err = s.attachOut(l, p, answer)
	} else {
		err = s.attachIn(l, p)
	}
	s.links[p.Handle] = l
	if err != nil {
		s.c.send(s.channel, answer, nil)
		l.in, l.out = nil, nil
		l.detach(err)
		return
	}
	answer.Source, answer.Target = p.Source, p.Target
	// Clients give up a link whose answer lacks an end, so an absent one is made up.
	if answer.Source == nil {
		answer.Source = &wire.Terminus{Descriptor: uint64(wire.CodeSource)}
	}
	if answer.Target == nil {
		answer.Target = wire.NewTarget("")
	}
	s.c.send(s.channel, answer, nil)
	if l.in != nil {
		l.in.grant()
	}
}

// sndUnsettled is the settle mode of a peer that wants to settle each message. A
// peer that leaves the choice to us gets settled messages, as from the service: the
// Go client never settles an event and would run out of credit.
const sndUnsettled = 0

func (s *session) attachIn(l *link, p *wire.Attach) *wire.Error {
	if p.Target == nil || p.Target.Dynamic() || p.Target.Descriptor != uint64(wire.CodeTarget) && p.Target.Descriptor != wire.Symbol("amqp:target:list") {
		return wire.Errorf(condNotImplemented, "Only links to an address are supported.")
	}
	n, err := s.c.s.resolve(p.Target.Address(), false)
	if err == nil {
		err = s.c.authorize(n)
	}
	if err == nil && n.kind == nodeCBS && s.c.hasCBS() {
		err = wire.Errorf(condNotAllowed, "There is a link to $cbs on this connection already.")
	}
	if err != nil {
		return err
	}
	l.in = &inbound{link: l, node: n}
	return nil
}

// hasCBS tells whether the peer has a link to $cbs already: the service allows one
// per connection.
func (c *conn) hasCBS() bool {
	for _, s := range c.sessions {
		for _, l := range s.links {
			if l.in != nil && !l.closing && l.in.node.kind == nodeCBS {
				return true
			}
		}
	}
	return false
}

func (s *session) attachOut(l *link, p, answer *wire.Attach) *wire.Error {
	if p.Source == nil || p.Source.Dynamic() {
		return wire.Errorf(condNotImplemented, "Only links from an address are supported.")
	}
	n, err := s.c.s.resolve(p.Source.Address(), true)
	if err == nil {
		err = s.c.authorize(n)
	}
	if err != nil {
		return err
	}
	o := &outbound{link: l, conn: s.c, node: n, address: p.Target.Address(), settled: p.SndSettle != sndUnsettled}
	if n.kind == nodeConsumer {
		if err := o.subscribe(p, answer); err != nil {
			return err
		}
	}
	l.out = o
	return nil
}

// subscribe makes the link a reader of its partition.
func (o *outbound) subscribe(p, answer *wire.Attach) *wire.Error {
	f, echo, err := findFilter(p.Source.Filter())
	if err != nil {
		return err
	}
	if o.epoch, err = epochOf(p.Properties); err != nil {
		return err
	}
	if o.name, _ = p.Properties.Get("com.microsoft:receiver-name").(string); o.name == "" {
		o.name = p.Name
	}
	if o.cursor, err = o.node.part.start(f); err != nil {
		return err
	}
	const metric = "com.microsoft:enable-receiver-runtime-metric"
	if slices.Contains(p.Desired, metric) {
		o.metrics = true
		answer.Offered = []wire.Symbol{metric}
	}
	evicted, err := o.node.part.join(o.node.group, o)
	if err != nil {
		return err
	}
	for _, other := range evicted {
		other.evict(wire.Errorf(condStolen, "Receiver '%s' with epoch %d takes the partition from receiver '%s' with epoch %d.",
			o.name, *o.epoch, other.name, other.level()))
	}
	p.Source.SetFilter(echo)
	o.node.part.watch(o.conn)
	return nil
}

// epochOf reads the owner level: a long, but any integer will do.
func epochOf(m wire.Map) (*int64, *wire.Error) {
	v := m.Get("com.microsoft:epoch")
	var n int64
	switch v := v.(type) {
	case nil:
		return nil, nil
	case int64:
		n = v
	case int32:
		n = int64(v)
	case uint32:
		n = int64(v)
	case uint64:
		n = int64(min(v, math.MaxInt64))
	default:
		return nil, wire.Errorf(condArgument, "The epoch is no number.")
	}
	if n < 0 {
		return nil, wire.Errorf(condArgument, "The epoch is %d, want 0 or more.", n)
	}
	return &n, nil
}
