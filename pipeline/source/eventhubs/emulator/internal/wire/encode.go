package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Append writes the value: scalars in their shortest form, compounds always in
// their wide one, since their size is known only afterwards. A Go type that stands
// for no AMQP type is a broken invariant.
func Append(dst []byte, v any) []byte {
	if d, ok := v.(Described); ok {
		dst = Append(append(dst, codeDescribed), d.Descriptor)
		return Append(dst, d.Value)
	}
	code := shortest(v)
	return appendBody(append(dst, code), code, v)
}

// shortest picks the constructor of the value.
func shortest(v any) byte {
	switch v := v.(type) {
	case nil:
		return codeNull
	case bool:
		if v {
			return codeTrue
		}
		return codeFalse
	case string:
		return sized(len(v), codeStr8, codeStr32)
	case Symbol:
		return sized(len(v), codeSym8, codeSym32)
	case []byte:
		return sized(len(v), codeVbin8, codeVbin32)
	case Timestamp:
		return codeTimestamp
	case UUID:
		return codeUUID
	case Char:
		return codeChar
	case Decimal:
		return v.Code
	case float32:
		return codeFloat
	case float64:
		return codeDouble
	case List:
		if len(v) == 0 {
			return codeList0
		}
		return codeList32
	case Map:
		return codeMap32
	case Array:
		return codeArray32
	}
	return shortestInteger(v)
}

func shortestInteger(v any) byte {
	switch v := v.(type) {
	case uint8:
		return codeUbyte
	case uint16:
		return codeUshort
	case uint32:
		return unsigned(uint64(v), codeUint0, codeSmallUint, codeUint)
	case uint64:
		return unsigned(v, codeUlong0, codeSmallUlong, codeUlong)
	case int8:
		return codeByte
	case int16:
		return codeShort
	case int32:
		return signed(int64(v), codeSmallInt, codeInt)
	case int64:
		return signed(v, codeSmallLong, codeLong)
	}
	panic(fmt.Sprintf("BUG: wire: %T is no AMQP type", v))
}

func sized(n int, small, wide byte) byte {
	if n <= math.MaxUint8 {
		return small
	}
	return wide
}

func unsigned(v uint64, zero, small, wide byte) byte {
	switch {
	case v == 0:
		return zero
	case v <= math.MaxUint8:
		return small
	}
	return wide
}

func signed(v int64, small, wide byte) byte {
	if v >= math.MinInt8 && v <= math.MaxInt8 {
		return small
	}
	return wide
}

// appendBody writes what follows the constructor.
func appendBody(dst []byte, code byte, v any) []byte {
	be := binary.BigEndian
	switch v := v.(type) {
	case nil:
		return dst
	case bool:
		if code == codeBoolean {
			return append(dst, boolByte(v))
		}
		return dst
	case uint8:
		return append(dst, v)
	case int8:
		return append(dst, byte(v))
	case uint16:
		return be.AppendUint16(dst, v)
	case int16:
		return be.AppendUint16(dst, uint16(v))
	case uint32:
		return appendInteger(dst, code, uint64(v))
	case int32:
		return appendInteger(dst, code, uint64(v))
	case uint64:
		return appendInteger(dst, code, v)
	case int64:
		return appendInteger(dst, code, uint64(v))
	case float32:
		return be.AppendUint32(dst, math.Float32bits(v))
	case float64:
		return be.AppendUint64(dst, math.Float64bits(v))
	case Char:
		return be.AppendUint32(dst, uint32(v))
	case Timestamp:
		return be.AppendUint64(dst, uint64(v))
	case UUID:
		return append(dst, v[:]...)
	case Decimal:
		return append(dst, v.Bits...)
	case string:
		return append(appendLength(dst, code, len(v)), v...)
	case Symbol:
		return append(appendLength(dst, code, len(v)), v...)
	case []byte:
		return append(appendLength(dst, code, len(v)), v...)
	}
	return appendCompound(dst, code, v)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// appendInteger writes the low bytes of v that the constructor asks for; the high
// nibble of a constructor tells its width.
func appendInteger(dst []byte, code byte, v uint64) []byte {
	switch code >> 4 {
	case 4:
		return dst
	case 5:
		return append(dst, byte(v))
	case 7:
		return binary.BigEndian.AppendUint32(dst, uint32(v))
	}
	return binary.BigEndian.AppendUint64(dst, v)
}

func appendLength(dst []byte, code byte, n int) []byte {
	if code>>4 == 0xa {
		return append(dst, byte(n))
	}
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

func appendCompound(dst []byte, code byte, v any) []byte {
	if code == codeList0 {
		return dst
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	var count int
	switch v := v.(type) {
	case List:
		count = len(v)
		for _, item := range v {
			dst = Append(dst, item)
		}
	case Map:
		count = 2 * len(v)
		for _, e := range v {
			dst = Append(Append(dst, e.Key), e.Value)
		}
	case Array:
		count = len(v.Items)
		dst = appendItems(dst, v)
	default:
		panic(fmt.Sprintf("BUG: wire: %T is no AMQP type", v))
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	binary.BigEndian.PutUint32(dst[start+4:], uint32(count))
	return dst
}

func appendItems(dst []byte, a Array) []byte {
	if a.Descriptor != nil {
		dst = Append(append(dst, codeDescribed), a.Descriptor)
	}
	dst = append(dst, a.Code)
	for _, item := range a.Items {
		dst = appendBody(dst, a.Code, item)
	}
	return dst
}
