package decode

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// encryptionWords are the encryption values that Microsoft documents. They have
// their places as codes in every batch; other values come behind them.
var encryptionWords = [...]string{
	"", "X", "NX", "NX_HW_NOT_SUPPORTED", "NX_SW_NOT_READY", "NX_NOT_ACCEPTED", "NX_NOT_SUPPORTED",
	"NX_LOCAL_DST", "NX_FALLBACK",
}

const (
	// secondsBelow tells seconds from milliseconds: as milliseconds it is in 1973, as
	// seconds in the year 5138.
	secondsBelow = 100_000_000_000
	// lastTime is the last millisecond of the year 9999.
	lastTime = 253402300799999
)

// times are the bounds of event time: lo <= t < hi.
type times struct {
	lo, hi int64
	// fastLo and fastSpan are the same for times that are surely milliseconds:
	// uint64(t-fastLo) < fastSpan.
	fastLo   int64
	fastSpan uint64
}

func timesOf(r Range) times {
	t := times{lo: 0, hi: lastTime + 1}
	if r.MinTime != 0 || r.MaxTime != 0 {
		t.lo, t.hi = r.MinTime, min(r.MaxTime, lastTime+1)
	}
	t.fastLo = max(t.lo, secondsBelow)
	if t.hi > t.fastLo {
		t.fastSpan = uint64(t.hi - t.fastLo)
	}
	return t
}

// tupleArray reads flowTuples, which may come once in its object.
func (d *decoder) tupleArray(seen *bool, p, depth int) int {
	if *seen {
		d.flag(faultShape, "member flowTuples comes twice")
		return skip(d.data, p, depth, d.limits.Depth)
	}
	*seen = true
	if end, ok := d.isArray(p, depth, "flowTuples"); !ok {
		return end
	}
	if depth > d.limits.Depth {
		return broken
	}
	fast := d.rec.body.format == schemas.FormatVNet4 && d.wanted == nil && d.limits.Text >= windowBytes
	p = space(d.data, p+1)
	for p < len(d.data) {
		if d.data[p] == ']' {
			return p + 1
		}
		if d.n == d.c.room {
			d.c.grow(d.b.alloc, max(d.n+1, d.b.hint))
		}
		if fast {
			if q := d.fastTuples(p); q != p {
				if p = q; p == broken {
					break
				}
				continue
			}
		}
		if p = d.anyTuple(p, depth+1); p == broken {
			break
		}
		if p = space(d.data, p); p < len(d.data) && d.data[p] == ',' {
			p = space(d.data, p+1)
		} else if p == len(d.data) || d.data[p] != ']' {
			break
		}
	}
	return broken
}

// anyTuple reads any element of flowTuples at data[p].
func (d *decoder) anyTuple(p, depth int) int {
	end := skip(d.data, p, depth, d.limits.Depth)
	if end == broken {
		return end
	}
	ordinal := d.rec.ordinal
	if int(ordinal) == d.limits.Tuples {
		d.flag(faultLimit, "too many tuples")
		return end
	}
	d.rec.ordinal++
	if d.wanted != nil && !d.wanted[ordinal] {
		return end
	}
	value, at := d.data[p:end], p
	reason, detail := pipeline.ReasonShape, "no text"
	if value[0] == '"' {
		var text []byte
		text, reason = d.textOf(value)
		value, at = value[1:len(value)-1], p+1
		if reason == "" {
			reason, detail = d.plainTuple(text)
		} else {
			detail = fmt.Sprintf("text of %d bytes", len(value))
		}
	}
	if reason == "" {
		d.c.ordinal[d.n] = ordinal
		d.n++
		return end
	}
	d.refuseTuple(reason, detail, ordinal, value, at)
	return end
}

func (d *decoder) refuseTuple(reason pipeline.Reason, detail string, ordinal uint32, text []byte, at int) {
	rec := &d.rec
	rec.refused++
	if len(rec.rejects) > d.limits.Rejects {
		return // the whole record will be refused: see room
	}
	rec.rejects = append(rec.rejects, pipeline.Reject{
		Reason: reason, Detail: detail, Scope: "tuple", Offset: d.r.Offset + int64(rec.start), Ordinal: ordinal,
		Length: int64(len(text)), Excerpt: excerpt(text),
	})
	rec.rejectAt = append(rec.rejectAt, d.r.Offset+int64(at))
}

// fieldCounts says how many fields a tuple has in each format.
var fieldCounts = [...]int{schemas.FormatVNet4: 13, schemas.FormatNSG1: 8, schemas.FormatNSG2: 13}

// plainTuple reads a tuple of any format field by field into row d.n.
func (d *decoder) plainTuple(text []byte) (pipeline.Reason, string) {
	var f [13][]byte
	count, want := 0, fieldCounts[d.rec.body.format]
	for start, i := 0, 0; i <= len(text); i++ {
		if i == len(text) || text[i] == ',' {
			if count < want {
				f[count] = text[start:i]
			}
			count++
			start = i + 1
		}
	}
	if count != want {
		return pipeline.ReasonFieldCount, fmt.Sprintf("%d fields, want %d", count, want)
	}
	c, n := d.c, d.n
	t, ok := decimal(f[0], math.MaxInt64)
	if !ok {
		return pipeline.ReasonTime, quoted("time", f[0])
	}
	if t < secondsBelow {
		t *= 1000
	}
	c.time[n] = int64(t)
	if !address(f[1], (*[16]byte)(c.src[16*n:])) {
		return pipeline.ReasonAddress, quoted("source address", f[1])
	}
	if !address(f[2], (*[16]byte)(c.dst[16*n:])) {
		return pipeline.ReasonAddress, quoted("destination address", f[2])
	}
	if reason, detail := d.plainWords(&f); reason != "" {
		return reason, detail
	}
	for i := range c.counters {
		v, ok := uint64(0), true
		if want == 13 && len(f[9+i]) > 0 {
			v, ok = decimal(f[9+i], math.MaxUint64)
		}
		if !ok {
			return pipeline.ReasonCounter, quoted("counter", f[9+i])
		}
		c.counters[i][n] = v
	}
	if t := c.time[n]; t < d.times.lo || t >= d.times.hi {
		return pipeline.ReasonTimeRange, fmt.Sprintf("time %d ms, want %d to %d", t, d.times.lo, d.times.hi-1)
	}
	return "", ""
}

func quoted(what string, field []byte) string { return fmt.Sprintf("%s %.64q", what, field) }

// plainWords reads ports, protocol, direction, state, action and encryption.
func (d *decoder) plainWords(f *[13][]byte) (pipeline.Reason, string) {
	c, n := d.c, d.n
	src, ok := decimal(f[3], math.MaxUint16)
	if !ok {
		return pipeline.ReasonPort, quoted("source port", f[3])
	}
	dst, ok := decimal(f[4], math.MaxUint16)
	if !ok {
		return pipeline.ReasonPort, quoted("destination port", f[4])
	}
	c.srcPort[n], c.dstPort[n] = uint16(src), uint16(dst)
	vnet := d.rec.body.format == schemas.FormatVNet4
	protocol, ok := transport(f[5])
	if vnet {
		protocol, ok = decimal(f[5], math.MaxUint8)
	}
	if !ok {
		return pipeline.ReasonProtocol, quoted("protocol", f[5])
	}
	c.protocol[n] = uint8(protocol)
	if c.direction[n] = one(&directionCodes, f[6]); c.direction[n] == noCode {
		return pipeline.ReasonDirection, quoted("direction", f[6])
	}
	if vnet {
		return d.vnetState(f[7], f[8])
	}
	return d.nsgState(f[7], f[8])
}

// vnetState reads state and encryption. Denied and state D are the same.
func (d *decoder) vnetState(state, encryption []byte) (pipeline.Reason, string) {
	c, n := d.c, d.n
	if c.state[n] = one(&stateCodes, state); c.state[n] == noCode {
		return pipeline.ReasonState, quoted("state", state)
	}
	c.action[n] = actionOf[c.state[n]]
	c.encryption[n] = d.b.encryptions.code(encryption)
	return "", ""
}

// nsgState reads decision and state. Version 1 has no state.
func (d *decoder) nsgState(decision, state []byte) (pipeline.Reason, string) {
	c, n := d.c, d.n
	denied := string(decision) == "D"
	if !denied && string(decision) != "A" {
		return pipeline.ReasonState, quoted("decision", decision)
	}
	c.state[n], c.action[n], c.encryption[n] = schemas.StateUnknown, schemas.ActionAllowed, 0
	if d.rec.body.format == schemas.FormatNSG2 {
		if c.state[n] = one(&stateCodes, state); c.state[n] == noCode || c.state[n] == schemas.StateDenied {
			return pipeline.ReasonState, quoted("state", state)
		}
		if denied {
			c.state[n] = schemas.StateDenied
		}
	}
	if denied {
		c.action[n] = schemas.ActionDenied
	}
	return "", ""
}

// noCode stands in the tables for letters without a meaning.
const noCode = 0xff

var (
	directionCodes = letters(map[byte]uint8{'I': schemas.DirectionInbound, 'O': schemas.DirectionOutbound})
	stateCodes     = letters(map[byte]uint8{
		'B': schemas.StateBegin, 'C': schemas.StateContinuing, 'E': schemas.StateEnd, 'D': schemas.StateDenied,
	})
	actionOf = [...]uint8{schemas.StateDenied: schemas.ActionDenied}
)

func letters(codes map[byte]uint8) (t [256]uint8) {
	for i := range t {
		t[i] = noCode
	}
	for c, code := range codes {
		t[c] = code
	}
	return t
}

func one(codes *[256]uint8, field []byte) uint8 {
	if len(field) != 1 {
		return noCode
	}
	return codes[field[0]]
}

func transport(field []byte) (uint64, bool) {
	switch string(field) {
	case "T":
		return 6, true
	case "U":
		return 17, true
	}
	return 0, false
}

// decimal reads a number of digits only, at most limit.
func decimal(s []byte, limit uint64) (v uint64, ok bool) {
	for _, c := range s {
		c -= '0'
		if c > 9 || v > math.MaxUint64/10 {
			return 0, false
		}
		if v *= 10; v+uint64(c) < v {
			return 0, false
		}
		v += uint64(c)
	}
	return v, len(s) > 0 && v <= limit
}

// address reads an IPv4 or IPv6 address without zone.
func address(s []byte, out *[16]byte) bool {
	if v4, ok := ipv4(s); ok {
		putIPv4(out, v4)
		return true
	}
	if n := ipv6(s, out); n == len(s) && n > 0 {
		return true
	}
	a, err := netip.ParseAddr(string(s))
	if err != nil || a.Zone() != "" {
		return false
	}
	*out = a.As16()
	return true
}

// putIPv4 writes the mapped address; v4 has its first octet lowest.
func putIPv4(out *[16]byte, v4 uint32) {
	binary.LittleEndian.PutUint64(out[:8], 0)
	binary.LittleEndian.PutUint64(out[8:], uint64(v4)<<32|0xffff0000)
}

// ipv4 reads four octets without leading zeros.
func ipv4(s []byte) (v4 uint32, ok bool) {
	octet, digits, dots := uint32(0), 0, 0
	for _, c := range s {
		if c == '.' {
			if digits == 0 || dots == 3 {
				return 0, false
			}
			v4 |= octet << (8 * dots)
			octet, digits = 0, 0
			dots++
			continue
		}
		if !isDigit(c) || digits > 0 && octet == 0 {
			return 0, false
		}
		octet = octet*10 + uint32(c-'0')
		if digits++; octet > 255 {
			return 0, false
		}
	}
	return v4 | octet<<24, dots == 3 && digits > 0
}

// ipv6 reads groups of hex digits up to the end or a comma and gives how many bytes
// they took, 0 for what is no address or has dots or a zone in it.
func ipv6(s []byte, out *[16]byte) int {
	n, gap, i := 0, -1, 0 // bytes of out, those before the ::, place in s
	if len(s) >= 2 && s[0] == ':' && s[1] == ':' {
		gap, i = 0, 2
	}
	for i < len(s) && s[i] != ',' {
		v, start := uint32(0), i
		for i < len(s) && hexValue[s[i]] >= 0 {
			v = v<<4 | uint32(hexValue[s[i]])
			i++
		}
		if i == start || i-start > 4 || n == len(out) {
			return 0
		}
		binary.BigEndian.PutUint16(out[n:], uint16(v))
		if n += 2; i == len(s) || s[i] == ',' {
			break
		}
		if s[i] != ':' {
			return 0
		}
		if i++; i < len(s) && s[i] == ':' {
			if gap >= 0 {
				return 0
			}
			gap = n
			i++
		} else if i == len(s) || s[i] == ',' {
			return 0
		}
	}
	if (n == len(out)) == (gap >= 0) {
		return 0
	}
	if gap >= 0 {
		behind := len(out) - (n - gap)
		copy(out[behind:], out[gap:n])
		clear(out[gap:behind])
	}
	return i
}
