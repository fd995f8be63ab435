package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// Limits of what Parse accepts.
const (
	// MaxDepth bounds the nesting of lists, maps, arrays and descriptors.
	MaxDepth = 32
	// maxEmptyItems bounds arrays whose items take no bytes at all.
	maxEmptyItems = 256
)

var errShort = errors.New("value ends early")

// Parse reads one value and gives the bytes behind it. Binary values alias b.
//
// Errors: bytes that are no AMQP value, or one that is deeper than MaxDepth.
func Parse(b []byte) (v any, rest []byte, err error) {
	d := decoder{b: b}
	v, err = d.value(0)
	return v, d.b, err
}

type decoder struct{ b []byte }

func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.b) {
		return nil, errShort
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p, nil
}

func (d *decoder) byte() (byte, error) {
	p, err := d.take(1)
	if err != nil {
		return 0, err
	}
	return p[0], nil
}

func (d *decoder) value(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("value is nested deeper than %d", MaxDepth)
	}
	code, err := d.byte()
	if err != nil {
		return nil, err
	}
	if code != codeDescribed {
		return d.body(code, depth)
	}
	descriptor, err := d.value(depth + 1)
	if err != nil {
		return nil, err
	}
	v, err := d.value(depth + 1)
	return Described{descriptor, v}, err
}

// body reads what follows a constructor. The high nibble tells the shape: nothing,
// fixed width, variable width, compound or array.
func (d *decoder) body(code byte, depth int) (any, error) {
	switch code >> 4 {
	case 0x4:
		return empty(code)
	case 0x5, 0x6, 0x7, 0x8, 0x9:
		return d.fixed(code)
	case 0xa, 0xb:
		return d.variable(code)
	case 0xc, 0xd:
		return d.compound(code, depth)
	case 0xe, 0xf:
		return d.array(code, depth)
	}
	return nil, unknown(code)
}

func unknown(code byte) error { return fmt.Errorf("unknown constructor 0x%02x", code) }

func empty(code byte) (any, error) {
	switch code {
	case codeNull:
		return nil, nil
	case codeTrue:
		return true, nil
	case codeFalse:
		return false, nil
	case codeUint0:
		return uint32(0), nil
	case codeUlong0:
		return uint64(0), nil
	case codeList0:
		return List{}, nil
	}
	return nil, unknown(code)
}

func (d *decoder) fixed(code byte) (any, error) {
	width := 1 << (code>>4 - 5)
	p, err := d.take(width)
	if err != nil {
		return nil, err
	}
	switch width {
	case 1:
		return fixed1(code, p[0])
	case 2:
		return fixed2(code, binary.BigEndian.Uint16(p))
	case 4:
		return fixed4(code, binary.BigEndian.Uint32(p), p)
	case 8:
		return fixed8(code, binary.BigEndian.Uint64(p), p)
	}
	switch code {
	case codeUUID:
		return UUID(p), nil
	case codeDecimal128:
		return Decimal{code, string(p)}, nil
	}
	return nil, unknown(code)
}

func fixed1(code, b byte) (any, error) {
	switch code {
	case codeUbyte:
		return b, nil
	case codeByte:
		return int8(b), nil
	case codeSmallUint:
		return uint32(b), nil
	case codeSmallUlong:
		return uint64(b), nil
	case codeSmallInt:
		return int32(int8(b)), nil
	case codeSmallLong:
		return int64(int8(b)), nil
	case codeBoolean:
		if b > 1 {
			return nil, fmt.Errorf("boolean is %d", b)
		}
		return b == 1, nil
	}
	return nil, unknown(code)
}

func fixed2(code byte, v uint16) (any, error) {
	switch code {
	case codeUshort:
		return v, nil
	case codeShort:
		return int16(v), nil
	}
	return nil, unknown(code)
}

func fixed4(code byte, v uint32, raw []byte) (any, error) {
	switch code {
	case codeUint:
		return v, nil
	case codeInt:
		return int32(v), nil
	case codeFloat:
		return math.Float32frombits(v), nil
	case codeChar:
		return Char(v), nil
	case codeDecimal32:
		return Decimal{code, string(raw)}, nil
	}
	return nil, unknown(code)
}

func fixed8(code byte, v uint64, raw []byte) (any, error) {
	switch code {
	case codeUlong:
		return v, nil
	case codeLong:
		return int64(v), nil
	case codeDouble:
		return math.Float64frombits(v), nil
	case codeTimestamp:
		return Timestamp(v), nil
	case codeDecimal64:
		return Decimal{code, string(raw)}, nil
	}
	return nil, unknown(code)
}

// size reads a length of one byte (small constructors) or four.
func (d *decoder) size(small bool) (int, error) {
	if small {
		b, err := d.byte()
		return int(b), err
	}
	p, err := d.take(4)
	if err != nil {
		return 0, err
	}
	return int(binary.BigEndian.Uint32(p)), nil
}

func (d *decoder) variable(code byte) (any, error) {
	n, err := d.size(code>>4 == 0xa)
	if err != nil {
		return nil, err
	}
	p, err := d.take(n)
	if err != nil {
		return nil, err
	}
	switch code {
	case codeVbin8, codeVbin32:
		return p, nil
	case codeStr8, codeStr32:
		if !utf8.Valid(p) {
			return nil, errors.New("string is not UTF-8")
		}
		return string(p), nil
	case codeSym8, codeSym32:
		return Symbol(p), nil
	}
	return nil, unknown(code)
}

// inner cuts the compound's bytes out, so that its items cannot reach beyond it,
// and reads their count.
func (d *decoder) inner(small bool) (decoder, int, error) {
	n, err := d.size(small)
	if err != nil {
		return decoder{}, 0, err
	}
	p, err := d.take(n)
	if err != nil {
		return decoder{}, 0, err
	}
	in := decoder{b: p}
	count, err := in.size(small)
	return in, count, err
}

func (d *decoder) compound(code byte, depth int) (any, error) {
	in, count, err := d.inner(code>>4 == 0xc)
	if err != nil {
		return nil, err
	}
	if count > len(in.b) { // every item takes at least its constructor
		return nil, fmt.Errorf("%d items in %d bytes", count, len(in.b))
	}
	var v any
	switch code {
	case codeList8, codeList32:
		v, err = in.list(count, depth)
	case codeMap8, codeMap32:
		v, err = in.pairs(count, depth)
	default:
		return nil, unknown(code)
	}
	if err == nil && len(in.b) > 0 {
		err = fmt.Errorf("%d bytes behind the last item", len(in.b))
	}
	return v, err
}

func (d *decoder) list(count, depth int) (List, error) {
	l := make(List, count)
	for i := range l {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		l[i] = v
	}
	return l, nil
}

func (d *decoder) pairs(count, depth int) (Map, error) {
	if count%2 != 0 {
		return nil, fmt.Errorf("map of %d items", count)
	}
	m := make(Map, count/2)
	for i := range m {
		k, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		m[i] = Entry{k, v}
	}
	return m, nil
}

func (d *decoder) array(code byte, depth int) (any, error) {
	if code != codeArray8 && code != codeArray32 {
		return nil, unknown(code)
	}
	if depth >= MaxDepth {
		return nil, fmt.Errorf("value is nested deeper than %d", MaxDepth)
	}
	in, count, err := d.inner(code == codeArray8)
	if err != nil {
		return nil, err
	}
	var a Array
	item, err := in.byte()
	if err == nil && item == codeDescribed {
		if a.Descriptor, err = in.value(depth + 1); err == nil {
			item, err = in.byte()
		}
	}
	if err != nil {
		return nil, err
	}
	if count > max(len(in.b), maxEmptyItems) {
		return nil, fmt.Errorf("%d items in %d bytes", count, len(in.b))
	}
	a.Code, a.Items = widest(item), make([]any, count)
	for i := range a.Items {
		if a.Items[i], err = in.body(item, depth+1); err != nil {
			return nil, err
		}
	}
	if len(in.b) > 0 {
		return nil, fmt.Errorf("%d bytes behind the last item", len(in.b))
	}
	if _, err := empty(item); count == 0 && item>>4 == 4 && err != nil {
		return nil, err
	}
	return a, nil
}
