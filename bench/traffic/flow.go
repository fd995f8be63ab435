package traffic

import (
	"cmp"
	"math/bits"
	"slices"
)

// Flow model. Times are Unix milliseconds.
const (
	maxShortMS      = minuteMS - 1
	minLongMS       = minuteMS
	maxLongMS       = 31 * minuteMS
	continuationMS  = 5 * minuteMS // An open flow reports this often.
	longLookback    = maxLongMS/minuteMS + 1
	shortLookback   = 1
	recordDelayMS   = 3000 // From the end of a window to its append.
	recordJitterMS  = 2500 // The record's own time lies this much within it.
	recordMinimumMS = 300
)

// state is what a tuple says about its flow.
type state uint8

const (
	begin state = iota
	continuing
	finish
	denied
)

// sight is one tuple before it has a text.
type sight struct {
	at    int64  // Time of the tuple.
	flow  uint64 // What all random choices of its flow come from.
	end   uint16 // Index into the interface's ends.
	state state
	n     uint8 // Which continuation, from 1; of an end: how many came before, plus 1.
}

// count is the number of flows that a link begins in a calendar minute: rate
// times load times a factor from 0.75 to 1.25, rounded by chance.
func (e *Estate) count(rate uint64, key uint64, minute int64) uint64 {
	x := rate * e.load[((minute%1440)+1440)%1440] >> 10
	x = x * (768 + key&511) >> 10
	n := x >> 16
	if key>>20&0xFFFF < x&0xFFFF {
		n++
	}
	return n
}

// look collects what an interface sees in one of its windows, by group and, in
// a group, by time.
func (g *generator) look(n *nic, w int64) {
	from := n.windowStart(w)
	to := from + minuteMS
	for i := range g.sights {
		g.sights[i] = g.sights[i][:0]
	}
	for len(g.sights) < len(n.groups) {
		g.sights = append(g.sights, nil)
	}
	minute := floorDiv(from, minuteMS)
	last := floorDiv(to-1, minuteMS)
	for i := range n.ends {
		d := &n.ends[i]
		list := g.sights[d.group]
		for m := minute - shortLookback; m <= last; m++ {
			list = g.lookShort(list, d.link, uint16(i), m, from, to)
		}
		if d.link.long > 0 {
			for m := minute - longLookback; m <= last; m++ {
				list = g.lookLong(list, d.link, uint16(i), m, from, to)
			}
		}
		g.sights[d.group] = list
	}
	for _, list := range g.sights[:len(n.groups)] {
		slices.SortFunc(list, func(a, b sight) int {
			if a.at != b.at {
				return cmp.Compare(a.at, b.at)
			}
			if a.flow != b.flow {
				return cmp.Compare(a.flow, b.flow)
			}
			return cmp.Compare(a.state, b.state)
		})
	}
}

// lookShort appends what lies in [from, to) of the short flows, under a minute
// long, that a link began in a calendar minute.
func (g *generator) lookShort(list []sight, l *link, end uint16, minute, from, to int64) []sight {
	key := place(l.key, forShort, uint64(minute))
	n := g.estate.count(l.short, key, minute)
	for i := range n {
		h := mix(key + (i+1)*golden)
		at := minute*minuteMS + int64(below(h, minuteMS))
		if l.denied {
			if at >= from && at < to {
				list = append(list, sight{at: at, flow: h, end: end, state: denied})
			}
			continue
		}
		// Most flows are much shorter than the longest.
		till := at + int64((h&0xFFFF)*maxShortMS>>16>>(h>>16&7))
		if at >= from && at < to {
			list = append(list, sight{at: at, flow: h, end: end, state: begin})
		}
		if till >= from && till < to {
			list = append(list, sight{at: till, flow: h, end: end, state: finish, n: 1})
		}
	}
	return list
}

// lookLong appends what lies in [from, to) of the long flows, 1 to 31 minutes,
// that a link began in a calendar minute.
func (g *generator) lookLong(list []sight, l *link, end uint16, minute, from, to int64) []sight {
	key := place(l.key, forLong, uint64(minute))
	n := g.estate.count(l.long, key, minute)
	for i := range n {
		h := mix(key + (i+1)*golden)
		at := minute*minuteMS + int64(below(h, minuteMS))
		till := at + minLongMS + int64(below(mix(h+1), maxLongMS-minLongMS))
		if at >= to || till < from {
			continue
		}
		if at >= from {
			list = append(list, sight{at: at, flow: h, end: end, state: begin})
		}
		parts := (till - at - 1) / continuationMS // Continuations before the end.
		for c := max(1, (from-at+continuationMS-1)/continuationMS); c <= parts && at+c*continuationMS < to; c++ {
			list = append(list, sight{at: at + c*continuationMS, flow: h, end: end, state: continuing, n: uint8(c)})
		}
		if till < to {
			list = append(list, sight{at: till, flow: h, end: end, state: finish, n: uint8(parts + 1)})
		}
	}
	return list
}

// counters are the deltas of a tuple.
type counters struct {
	packetsSent, bytesSent, packetsReceived, bytesReceived uint64
}

// countersOf draws what a flow moved since its previous tuple: packets doubling
// with halving probability, sizes from 40 to 1,499 bytes, one side heavier. Both
// ends of the flow draw the same.
func countersOf(s *sight, protocol uint8) counters {
	h := mix(s.flow ^ uint64(s.n)*golden)
	scale := uint64(1)
	if protocol == tcp || protocol == esp {
		scale <<= bits.TrailingZeros64(h>>32 | 1<<12)
		if s.state == continuing {
			scale <<= 3
		}
	}
	small := (1 + h&7) * scale
	large := small + h>>3&15*scale
	smallBytes := small * (40 + h>>8&127)
	largeBytes := large * (200 + below(h<<17, 1300))
	if s.flow&3 == 0 { // An upload.
		return counters{large, largeBytes, small, smallBytes}
	}
	return counters{small, smallBytes, large, largeBytes}
}
