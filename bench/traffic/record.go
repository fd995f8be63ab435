package traffic

import (
	"strconv"
	"time"
)

// timeLayout has seven fractional digits, as the service and Event Grid write.
const timeLayout = "2006-01-02T15:04:05.0000000Z"

// generator writes records. It owns its buffers and is for one goroutine.
type generator struct {
	estate  *Estate
	sights  [][]sight // By group of the interface at hand.
	text    []byte    // The malformed copy of a tuple.
	outside [2][]byte // Texts of the addresses of a tuple that come from pools.
	tally   tally
}

func newGenerator(e *Estate) *generator { return &generator{estate: e} }

// tuple is one tuple with everything that its text and the sums need.
type tuple struct {
	at         int64
	src, dst   []byte // Valid until the next tuple.
	srcSum     uint64
	dstSum     uint64
	srcPort    uint64
	dstPort    uint64
	protocol   uint8
	outbound   bool
	state      state
	empty      bool // Counters are left out, not zero.
	encryption string
	counters
}

// record appends the record of one window to dst and its truth to the tally.
// offset is where the record will stand in its blob, blob the name of that.
func (g *generator) record(dst []byte, n *nic, w int64, blob string, offset int64) []byte {
	g.look(n, w)
	key := place(n.key, forRecord, uint64(w))
	logged := n.windowStart(w+1) + recordMinimumMS + int64(below(key, recordJitterMS))
	dst = append(dst, `{"time":"`...)
	dst = time.UnixMilli(logged).Add(time.Duration(mix(key)%10_000)*100).UTC().AppendFormat(dst, timeLayout)
	dst = append(dst, n.opening...)
	r := &recorder{g: g, nic: n, key: key, blob: blob, offset: offset}
	if n.format == vnet4 {
		dst = r.vnet(dst)
	} else {
		dst = r.nsg(dst)
	}
	g.tally.records++
	return append(dst, "]}}"...)
}

// recorder is one record in the making.
type recorder struct {
	g       *generator
	nic     *nic
	key     uint64
	blob    string
	offset  int64
	ordinal int
}

// vnet appends the elements of "flows": an ACL each, with its groups.
func (r *recorder) vnet(dst []byte) []byte {
	entry := -1
	for i, list := range r.g.sights[:len(r.nic.groups)] {
		if len(list) == 0 {
			continue
		}
		grp := &r.nic.groups[i]
		switch {
		case grp.entry == entry:
			dst = append(dst, ',')
		case entry >= 0:
			dst = append(dst, "]},"...)
			fallthrough
		default:
			entry = grp.entry
			dst = append(dst, `{"aclID":"`...)
			dst = append(dst, grp.acl...)
			dst = append(dst, `","flowGroups":[`...)
		}
		dst = append(dst, `{"rule":"`...)
		dst = append(dst, grp.rule...)
		dst = append(dst, `","flowTuples":[`...)
		dst = r.tuples(dst, list)
		dst = append(dst, "]}"...)
	}
	if entry >= 0 {
		dst = append(dst, "]}"...)
	}
	return dst
}

// nsg appends the elements of "flows": a rule each, with its one interface.
func (r *recorder) nsg(dst []byte) []byte {
	first := true
	for i, list := range r.g.sights[:len(r.nic.groups)] {
		if len(list) == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, `{"rule":"`...)
		dst = append(dst, r.nic.groups[i].rule...)
		dst = append(dst, `","flows":[{"mac":"`...)
		dst = append(dst, r.nic.mac...)
		dst = append(dst, `","flowTuples":[`...)
		dst = r.tuples(dst, list)
		dst = append(dst, "]}]}"...)
	}
	return dst
}

// tuples appends the texts of a group. Measured: see BenchmarkRecord.
func (r *recorder) tuples(dst []byte, list []sight) []byte {
	cfg := &r.g.estate.cfg
	var t tuple
	for i := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		r.fill(&t, &list[i])
		dst = append(dst, '"')
		dst = appendTuple(dst, &t, r.nic.format)
		dst = append(dst, '"')
		r.g.tally.count(&t)
		r.ordinal++
		if cfg.Malformed > 0 {
			h := mix(r.key + uint64(r.ordinal)*golden)
			if chance(h, cfg.Malformed) {
				dst = append(dst, ',', '"')
				dst = r.malformed(dst, &t, malformedKind(mix(h))%malformedKinds)
				dst = append(dst, '"')
			}
		}
	}
	return dst
}

// fill makes a tuple of a sight.
func (r *recorder) fill(t *tuple, s *sight) {
	d := &r.nic.ends[s.end]
	l := d.link
	h := mix(s.flow + 2)
	*t = tuple{at: s.at, protocol: l.protocol, outbound: d.outbound, state: s.state}
	t.encryption = l.encryption[h>>8%uint64(len(l.encryption))]
	t.src, t.srcSum = r.side(l, l.client, h, 0)
	t.dst, t.dstSum = r.side(l, l.server, h, 1)
	switch {
	case l.ports == nil:
		t.dstPort = 1 + below(h<<24, 65535)
	default:
		t.dstPort = uint64(l.ports[h>>40%uint64(len(l.ports))])
	}
	switch {
	case l.protocol != tcp && l.protocol != udp: // No ports.
	case l.protocol == udp && t.dstPort == 123:
		t.srcPort = 123
	default:
		t.srcPort = 1024 + below(h<<16, 65536-1024)
	}
	switch {
	case s.state == continuing || s.state == finish:
		t.counters = countersOf(s, l.protocol)
	case r.nic.format == nsg2 || h&15 == 0:
		t.empty = true
	}
	r.shift(t, s)
}

// shift turns milliseconds into seconds where the format has these, and makes
// some tuples late.
func (r *recorder) shift(t *tuple, s *sight) {
	cfg := &r.g.estate.cfg
	if cfg.Late > 0 {
		h := mix(s.flow ^ r.key ^ uint64(s.state))
		if chance(h, cfg.Late) {
			t.at -= int64(below(mix(h), uint64(cfg.LateMax/time.Millisecond)))
		}
	}
	if r.nic.format != vnet4 {
		t.at = floorDiv(t.at, 1000) * 1000
	}
	if r.nic.format == nsg1 {
		t.counters = counters{}
	}
}

// side is the address at one end of a link.
func (r *recorder) side(l *link, n *nic, h uint64, which int) (text []byte, sum uint64) {
	switch {
	case n != nil && l.v6:
		return n.ip6.text, n.ip6.sum
	case n != nil:
		return n.ip4.text, n.ip4.sum
	default:
		a := l.outside.address(mix(h))
		scratch := &r.g.outside[which]
		*scratch = a.AppendTo((*scratch)[:0])
		return *scratch, addrSum(a)
	}
}

var stateLetters = [...]byte{begin: 'B', continuing: 'C', finish: 'E', denied: 'D'}

// appendTuple appends the text of a tuple in one of the formats.
func appendTuple(dst []byte, t *tuple, f format) []byte {
	if f == vnet4 {
		dst = strconv.AppendInt(dst, t.at, 10)
	} else {
		dst = strconv.AppendInt(dst, t.at/1000, 10)
	}
	dst = append(dst, ',')
	dst = append(dst, t.src...)
	dst = append(dst, ',')
	dst = append(dst, t.dst...)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, t.srcPort, 10)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, t.dstPort, 10)
	dst = append(dst, ',')
	direction := byte('I')
	if t.outbound {
		direction = 'O'
	}
	if f == vnet4 {
		dst = strconv.AppendUint(dst, uint64(t.protocol), 10)
		dst = append(dst, ',', direction, ',', stateLetters[t.state], ',')
		dst = append(dst, t.encryption...)
		return appendCounters(dst, t)
	}
	protocol := byte('T')
	if t.protocol == udp {
		protocol = 'U'
	}
	decision, letter := byte('A'), stateLetters[t.state]
	if t.state == denied {
		decision, letter = 'D', 'B'
	}
	dst = append(dst, protocol, ',', direction, ',', decision)
	if f == nsg1 {
		return dst
	}
	dst = append(dst, ',', letter)
	return appendCounters(dst, t)
}

func appendCounters(dst []byte, t *tuple) []byte {
	if t.empty {
		return append(dst, ",,,,"...)
	}
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, t.packetsSent, 10)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, t.bytesSent, 10)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, t.packetsReceived, 10)
	dst = append(dst, ',')
	return strconv.AppendUint(dst, t.bytesReceived, 10)
}

// count adds a good tuple.
func (t *tally) count(u *tuple) {
	t.tuples++
	s := &t.sums
	s.TimeMS += uint64(u.at)
	s.SrcIP += u.srcSum
	s.DstIP += u.dstSum
	s.SrcPort += u.srcPort
	s.DstPort += u.dstPort
	s.Protocol += uint64(u.protocol)
	s.PacketsSent += u.packetsSent
	s.BytesSent += u.bytesSent
	s.PacketsReceived += u.packetsReceived
	s.BytesReceived += u.bytesReceived
	s.Cross += uint64(u.at)*(65536*u.srcPort+u.dstPort) + u.bytesSent*u.bytesReceived
	m := t.at(u.at)
	m.Tuples++
	m.BytesSent += u.bytesSent
	m.BytesReceived += u.bytesReceived
}

// malformedKind says what is wrong with a malformed tuple.
type malformedKind uint64

const (
	wrongFields malformedKind = iota
	wrongAddress
	wrongPort
	wrongDirection
	malformedKinds
)

var malformedNames = [...]string{wrongFields: "fields", wrongAddress: "address", wrongPort: "port", wrongDirection: "direction"}

// malformed appends a copy of a tuple with one fault, and lists it.
func (r *recorder) malformed(dst []byte, t *tuple, kind malformedKind) []byte {
	text := appendTuple(r.g.text[:0], t, r.nic.format)
	r.g.text = text
	text = breakField(text, kind)
	r.g.tally.malformed++
	r.g.tally.bad = append(r.g.tally.bad, MalformedTuple{
		Blob: r.blob, RecordOffset: r.offset, Ordinal: r.ordinal,
		Kind: malformedNames[kind], Text: string(text),
	})
	r.ordinal++
	return append(dst, text...)
}

// breakField spoils a tuple. The first seven fields stand at the same places in
// every format.
func breakField(text []byte, kind malformedKind) []byte {
	field := [...]int{wrongFields: 6, wrongAddress: 1, wrongPort: 4, wrongDirection: 6}[kind]
	with := [...]string{wrongFields: "", wrongAddress: ",10.0.0.999", wrongPort: ",70000", wrongDirection: ",Z"}[kind]
	var commas []int
	for i, c := range text {
		if c == ',' {
			commas = append(commas, i)
		}
	}
	from, to := commas[field-1], commas[field]
	out := make([]byte, 0, len(text)+len(with))
	out = append(out, text[:from]...)
	out = append(out, with...)
	return append(out, text[to:]...)
}
