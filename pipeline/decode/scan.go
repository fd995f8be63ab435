package decode

import (
	"encoding/binary"
	"math/bits"
)

// The functions of this file walk over JSON text and check it strictly, with two
// tolerances: a comma before a closing bracket, and NUL bytes within strings, which
// are a fault only where the text is used. They give the offset behind what they
// walked over, or broken.

// broken is given instead of an offset when the text is no JSON, ends too early or
// goes too deep; frame tells which.
const broken = -1

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// zeros marks the bytes of w that are zero with their high bit. Marks above the
// lowest one may be wrong, so only the lowest counts.
func zeros(w uint64) uint64 { return (w - ones) &^ w & highs }

// str walks over the string whose opening quote stands at data[p].
func str(data []byte, p int) int {
	for p++; p+8 <= len(data); {
		w := binary.LittleEndian.Uint64(data[p:])
		control := (w - ones*0x20) &^ w & highs
		stop := zeros(w^ones*'"') | zeros(w^ones*'\\') | control
		if stop == 0 {
			p += 8
			continue
		}
		var done bool
		if p, done = strByte(data, p+bits.TrailingZeros64(stop)/8); done {
			return p
		}
	}
	for p < len(data) {
		var done bool
		if p, done = strByte(data, p); done {
			return p
		}
	}
	return broken
}

// strByte walks over one byte of a string, or over one escape.
func strByte(data []byte, p int) (next int, done bool) {
	switch c := data[p]; {
	case c == '"':
		return p + 1, true
	case c == '\\':
		p = escape(data, p)
		return p, p == broken
	case c < ' ' && c != 0:
		return broken, true
	}
	return p + 1, false
}

// escape walks over the escape whose backslash stands at data[p].
func escape(data []byte, p int) int {
	if p+1 >= len(data) {
		return broken
	}
	switch data[p+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return p + 2
	case 'u':
		if _, ok := hex4(data[p+2:]); ok {
			return p + 6
		}
	}
	return broken
}

// hex4 reads four hex digits.
func hex4(b []byte) (v rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		h := hexValue[c]
		if h < 0 {
			return 0, false
		}
		v = v<<4 | rune(h)
	}
	return v, true
}

// hexValue gives the value of a hex digit, -1 for other bytes.
var hexValue = func() (v [256]int8) {
	for i := range v {
		v[i] = -1
	}
	for i := range 10 {
		v['0'+i] = int8(i)
	}
	for i := range 6 {
		v['a'+i], v['A'+i] = int8(10+i), int8(10+i)
	}
	return v
}()

func isDigit(c byte) bool { return c-'0' < 10 }

// digits walks over digits and gives p itself when there are none.
func digits(data []byte, p int) int {
	for p < len(data) && isDigit(data[p]) {
		p++
	}
	return p
}

func number(data []byte, p int) int {
	if data[p] == '-' {
		p++
	}
	q := digits(data, p)
	if q == p || data[p] == '0' && q > p+1 {
		return broken
	}
	if p = q; p < len(data) && data[p] == '.' {
		if q = digits(data, p+1); q == p+1 {
			return broken
		}
		p = q
	}
	if p < len(data) && data[p]|0x20 == 'e' {
		if p++; p < len(data) && (data[p] == '+' || data[p] == '-') {
			p++
		}
		if q = digits(data, p); q == p {
			return broken
		}
		p = q
	}
	return p
}

func literal(data []byte, p int, word string) int {
	if len(data)-p < len(word) || string(data[p:p+len(word)]) != word {
		return broken
	}
	return p + len(word)
}

// skip walks over any value. depth is that of a bracket at data[p].
func skip(data []byte, p, depth, maxDepth int) int {
	if p >= len(data) {
		return broken
	}
	switch data[p] {
	case '"':
		return str(data, p)
	case '{':
		p, _ = walkObject(data, p, depth, maxDepth, func(_ []byte, p int) int { return skip(data, p, depth+1, maxDepth) })
		return p
	case '[':
		return walkArray(data, p, depth, maxDepth, func(p int) int { return skip(data, p, depth+1, maxDepth) })
	case 't':
		return literal(data, p, "true")
	case 'f':
		return literal(data, p, "false")
	case 'n':
		return literal(data, p, "null")
	}
	return number(data, p)
}

// walkObject walks over the object at data[p] and calls f for each member with its key
// as it stands between the quotes and the offset of its value; f walks over the
// value.
func walkObject(data []byte, p, depth, maxDepth int, f func(key []byte, p int) int) (end, members int) {
	if depth > maxDepth {
		return broken, 0
	}
	p = space(data, p+1)
	for p < len(data) {
		if data[p] == '}' {
			return p + 1, members
		}
		if data[p] != '"' {
			break
		}
		q := str(data, p)
		if q == broken {
			break
		}
		key := data[p+1 : q-1]
		if p = space(data, q); p == len(data) || data[p] != ':' {
			break
		}
		members++
		if p = f(key, space(data, p+1)); p == broken {
			break
		}
		if p = space(data, p); p < len(data) && data[p] == ',' {
			p = space(data, p+1)
		} else if p == len(data) || data[p] != '}' {
			break
		}
	}
	return broken, members
}

// walkArray walks over the array at data[p] and calls f for each element with its
// offset; f walks over it.
func walkArray(data []byte, p, depth, maxDepth int, f func(p int) int) int {
	if depth > maxDepth {
		return broken
	}
	p = space(data, p+1)
	for p < len(data) {
		if data[p] == ']' {
			return p + 1
		}
		if p = f(p); p == broken {
			break
		}
		if p = space(data, p); p < len(data) && data[p] == ',' {
			p = space(data, p+1)
		} else if p == len(data) || data[p] != ']' {
			break
		}
	}
	return broken
}
