package decode

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// The common form of a VNet tuple is read eight bytes at a time, from the scan
// straight into the columns: a bitmap tells which bytes are no digits, so every
// field's end is known at once, and each number is one load that ends where the
// field does. Whatever is not of that form gives 0 and is left to plainTuple, which
// also finds the reason when it is wrong. 10 times as fast as plainTuple alone
// (BenchmarkDecode/vnet). Delete it when plain Go over slices comes within 20 %.

// windowBytes is what fastTuple may look at from a tuple's first byte on. Loads of
// the window go without bounds checks, so this is the argument that they stay in it:
//
//	110  time and comma (14) and two addresses with their commas (2 x 48)
//	182  + 64, the highest place that a bitmap gives, + a load of 8
//	263  110 + 64 + 5 for direction and state + 19 for the longest encryption value
//	     and a comma (199) + a bitmap of 64 bytes
//
// No load begins before the window: numbers end behind the time, which takes 14 bytes.
const windowBytes = 288

type window [windowBytes]byte

// u64 loads eight bytes at 0 <= i <= windowBytes-8: see there.
func (w *window) u64(i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(w), i))[:])
}

func (w *window) u32(i int) uint32 {
	return binary.LittleEndian.Uint32((*[4]byte)(unsafe.Add(unsafe.Pointer(w), i))[:])
}

func (w *window) u8(i int) uint8 { return *(*uint8)(unsafe.Add(unsafe.Pointer(w), i)) }

// tail is a copy of the last bytes of data with zeros behind, so that the last
// tuples have a window too. A zero is neither digit nor delimiter.
type tail struct {
	at  int // offset of buf in data
	buf [2 * windowBytes]byte
}

func (t *tail) start(data []byte) {
	t.at = max(0, len(data)-windowBytes)
	n := copy(t.buf[:], data[t.at:])
	clear(t.buf[n:])
}

// window gives the bytes from data[p] on; p < len(data).
func (d *decoder) window(p int) *window {
	if p+windowBytes <= len(d.data) {
		return (*window)(d.data[p:])
	}
	return (*window)(d.tail.buf[p-d.tail.at:])
}

// fastTuples reads tuples of the common form from data[p] on. It gives where the
// first element of another form stands, or the closing bracket.
func (d *decoder) fastTuples(p int) int {
	data := d.data
	n, room := d.n, min(d.c.room, d.n+d.limits.Tuples-int(d.rec.ordinal))
	ordinal := d.rec.ordinal
	for n < room && data[p] == '"' && p+1 < len(data) {
		q := d.fastTuple(d.window(p+1), n)
		if q == 0 {
			break
		}
		d.c.ordinal[n] = ordinal
		n++
		ordinal++
		// The quote that ends the tuple was seen, so p stays within data.
		if p += 1 + q; p+1 < len(data) && data[p] == ',' && data[p+1] == '"' {
			p++
			continue
		}
		if p = d.nextElement(p); p == broken || data[p] == ']' {
			break
		}
	}
	d.n, d.rec.ordinal = n, ordinal
	return p
}

// nextElement walks from behind an element to the next one or to the bracket.
func (d *decoder) nextElement(p int) int {
	if p = space(d.data, p); p < len(d.data) && d.data[p] == ',' {
		p = space(d.data, p+1)
	} else if p < len(d.data) && d.data[p] != ']' {
		return broken
	}
	if p >= len(d.data) {
		return broken
	}
	return p
}

const (
	digitZeros = 0x3030303030303030
	pastNine   = 0x7676767676767676 // 0x7f - 9
)

// nonDigits marks the bytes that are no ASCII digits with their high bit.
func nonDigits(w uint64) uint64 {
	w ^= digitZeros
	return (w&^highs + pastNine | w) & highs
}

// gather moves the eight high bits of marks to the low byte.
func gather(marks uint64) uint64 { return marks * 0x0002040810204081 >> 56 }

func (w *window) nonDigits32(i int) uint64 {
	return gather(nonDigits(w.u64(i))) | gather(nonDigits(w.u64(i+8)))<<8 |
		gather(nonDigits(w.u64(i+16)))<<16 | gather(nonDigits(w.u64(i+24)))<<24
}

// eight gives the number that eight digit values make, the first one lowest in v.
func eight(v uint64) uint64 {
	v = v*10 + v>>8
	return (v&0x000000ff000000ff*0x000f424000000064 + v>>16&0x000000ff000000ff*0x0000271000000001) >> 32
}

// number gives the number of n digits, 1 to 8, that ends before offset end.
func (w *window) number(end, n int) uint64 {
	return eight((w.u64(end-8) ^ digitZeros) & (^uint64(0) << ((64 - 8*uint(n)) & 63)))
}

// octet gives the number of n digits, 1 to 3, that ends before offset end. The high
// bit of bad is set when it is over 255 or has a leading zero.
func (w *window) octet(end, n int) (v, bad uint32) {
	b := (w.u32(end-4) ^ 0x30303030) & (^uint32(0) << ((32 - 8*uint32(n)) & 31))
	v = b>>8&0xff*100 + b>>16&0xff*10 + b>>24
	least := uint32(0x640a0000) >> (8 * uint32(n)) & 0xff // 0, 10, 100
	return v, (v - least) | (255 - v)
}

// fastTuple reads the tuple that begins at w[0] into row n and gives the offset
// behind its closing quote, or 0 when the tuple is not of the common form: the row
// may then hold rubbish.
func (d *decoder) fastTuple(w *window, n int) int {
	c := d.c
	hi, lo := w.u64(0), w.u64(5)
	if hi != d.timeText {
		if nonDigits(hi) != 0 {
			return 0
		}
		d.timeText, d.timeBase = hi, int64(eight((hi^digitZeros)<<24))*100_000_000
	}
	if nonDigits(lo) != 0 || w.u8(13) != ',' {
		return 0
	}
	t := d.timeBase + int64(eight(lo^digitZeros))
	if uint64(t-d.times.fastLo) >= d.times.fastSpan {
		return 0
	}
	o := w.addresses((*[16]byte)(c.src[16*n:]), (*[16]byte)(c.dst[16*n:]))
	if o == 0 {
		return 0
	}
	c.time[n] = t
	return d.fastRest(w, o, n)
}

// addresses reads both addresses and gives the offset behind the second comma.
func (w *window) addresses(src, dst *[16]byte) int {
	const at = 14
	m := w.nonDigits32(at)
	touching := m & (m >> 1) // delimiters with nothing between them
	e0 := bits.TrailingZeros64(m)
	if uint(e0-1) > 2 || w.u8(at+e0) != '.' {
		return w.addressesOdd(src, dst)
	}
	m &= m - 1
	e1 := bits.TrailingZeros64(m)
	m &= m - 1
	e2 := bits.TrailingZeros64(m)
	m &= m - 1
	e3 := bits.TrailingZeros64(m)
	m &= m - 1
	e4 := bits.TrailingZeros64(m)
	m &= m - 1
	e5 := bits.TrailingZeros64(m)
	m &= m - 1
	e6 := bits.TrailingZeros64(m)
	m &= m - 1
	if m == 0 {
		return w.addressesOdd(src, dst)
	}
	e7 := bits.TrailingZeros64(m)
	delims := (w.u8(at+e1) ^ '.') | (w.u8(at+e2) ^ '.') | (w.u8(at+e3) ^ ',') | (w.u8(at+e4) ^ '.') |
		(w.u8(at+e5) ^ '.') | (w.u8(at+e6) ^ '.') | (w.u8(at+e7) ^ ',')
	l1, l2, l3, l4, l5, l6, l7 := e1-e0-1, e2-e1-1, e3-e2-1, e4-e3-1, e5-e4-1, e6-e5-1, e7-e6-1
	if delims != 0 || l1|l2|l3|l4|l5|l6|l7 > 3 || touching&(1<<uint(e7&63)-1) != 0 {
		return w.addressesOdd(src, dst)
	}
	a0, b0 := w.octet(at+e0, e0)
	a1, b1 := w.octet(at+e1, l1)
	a2, b2 := w.octet(at+e2, l2)
	a3, b3 := w.octet(at+e3, l3)
	a4, b4 := w.octet(at+e4, l4)
	a5, b5 := w.octet(at+e5, l5)
	a6, b6 := w.octet(at+e6, l6)
	a7, b7 := w.octet(at+e7, l7)
	if int32(b0|b1|b2|b3|b4|b5|b6|b7) < 0 {
		return 0
	}
	putIPv4(src, a0|a1<<8|a2<<16|a3<<24)
	putIPv4(dst, a4|a5<<8|a6<<16|a7<<24)
	return at + e7 + 1
}

// longestAddress is that of an IPv6 address as text, with its comma.
const longestAddress = 47

// addressesOdd is addresses for all but two IPv4 addresses.
func (w *window) addressesOdd(src, dst *[16]byte) int {
	const at = 14
	n := ipv6(w[at:at+longestAddress], src)
	if n == 0 || w[at+n] != ',' {
		return 0
	}
	m := ipv6(w[at+n+1:at+n+1+longestAddress], dst)
	if m == 0 || w[at+n+1+m] != ',' {
		return 0
	}
	return at + n + 1 + m + 1
}

// fastRest reads the fields behind the addresses, from w[o] on.
func (d *decoder) fastRest(w *window, o, n int) int {
	m := w.nonDigits32(o) | gather(nonDigits(w.u64(o+32)))<<32
	c0 := bits.TrailingZeros64(m)
	m &= m - 1
	c1 := bits.TrailingZeros64(m)
	m &= m - 1
	c2 := bits.TrailingZeros64(m)
	// Behind the protocol stand a comma, the direction, a comma, the state, a comma.
	words := w.u64(o + c2)
	if words&0x000000ff00ff00ff != 0x0000002c002c002c {
		return 0
	}
	enc, l := uint32(1), 1
	switch {
	case uint16(words>>40) == 'X'|','<<8:
	case words>>40 == 'N'|'X'<<8|','<<16:
		enc, l = 2, 2
	default:
		if enc, l = w.encryption(o + c2 + 5); l == 0 {
			return 0
		}
	}
	e := c2 + 5 + l
	m >>= uint(e+1) & 63
	at := o + e + 1
	f0 := bits.TrailingZeros64(m)
	m &= m - 1
	f1 := bits.TrailingZeros64(m)
	m &= m - 1
	f2 := bits.TrailingZeros64(m)
	m &= m - 1
	if m == 0 || e > 39 {
		m = w.nonDigits32(at) | w.nonDigits32(at+32)<<32
		f0 = bits.TrailingZeros64(m)
		m &= m - 1
		f1 = bits.TrailingZeros64(m)
		m &= m - 1
		f2 = bits.TrailingZeros64(m)
		m &= m - 1
		if m == 0 {
			return 0
		}
	}
	f3 := bits.TrailingZeros64(m)
	delims := (w.u8(o+c0) ^ ',') | (w.u8(o+c1) ^ ',') | (w.u8(at+f0) ^ ',') | (w.u8(at+f1) ^ ',') |
		(w.u8(at+f2) ^ ',') | (w.u8(at+f3) ^ '"')
	p0, p1, p2 := c0, c1-c0-1, c2-c1-1
	n0, n1, n2, n3 := f0, f1-f0-1, f2-f1-1, f3-f2-1
	// Each number has 1 to 8 digits.
	if delims != 0 || uint(p0-1)|uint(p1-1)|uint(p2-1)|uint(n0-1)|uint(n1-1)|uint(n2-1)|uint(n3-1) > 7 {
		return 0
	}
	src, dst, protocol := w.number(o+c0, p0), w.number(o+c1, p1), w.number(o+c2, p2)
	direction, state := directionCodes[uint8(words>>8)], stateCodes[uint8(words>>24)]
	if src|dst > 0xffff || protocol > 0xff || direction|state == noCode {
		return 0
	}
	c := d.c
	c.srcPort[n], c.dstPort[n], c.protocol[n] = uint16(src), uint16(dst), uint8(protocol)
	c.direction[n], c.state[n], c.action[n], c.encryption[n] = direction, state, actionOf[state&3], enc
	c.counters[0][n] = w.number(at+f0, n0)
	c.counters[1][n] = w.number(at+f1, n1)
	c.counters[2][n] = w.number(at+f2, n2)
	c.counters[3][n] = w.number(at+f3, n3)
	return at + f3 + 1
}

// encryption reads one of the longer documented values at w[i] and gives its code
// and its length, 0 for any other.
func (w *window) encryption(i int) (code uint32, n int) {
	for code, word := range encryptionWords[3:] {
		if n := len(word); string(w[i:i+n]) == word && w[i+n] == ',' {
			return uint32(code + 3), n
		}
	}
	return 0, 0
}
