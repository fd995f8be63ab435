package wire

// AMQP types that have no Go type of their own. The others map so: null is nil;
// boolean is bool; ubyte, ushort, uint, ulong are uint8 to uint64; byte, short,
// int, long are int8 to int64; float and double are float32 and float64; binary
// is []byte; string is string.
type (
	// Symbol is a string of ASCII characters out of a limited vocabulary.
	Symbol string
	// Timestamp counts milliseconds since the Unix epoch, UTC.
	Timestamp int64
	// UUID is 16 bytes in network order.
	UUID [16]byte
	// Char is one Unicode character.
	Char uint32
	// List holds values of any type.
	List []any
	// Map holds entries in the order of the wire.
	Map []Entry
)

// Entry is one key and its value in a Map.
type Entry struct{ Key, Value any }

// Decimal is an IEEE 754 decimal that nobody here computes with.
type Decimal struct {
	Code byte   // decimal32, decimal64 or decimal128
	Bits string // 4, 8 or 16 bytes
}

// Array holds values of one type.
type Array struct {
	Code       byte // constructor of the items, in its widest form
	Descriptor any  // nil unless the items are described
	Items      []any
}

// Described is a value with a descriptor in front: a symbol or an ulong.
type Described struct{ Descriptor, Value any }

// Get gives the value of the first entry whose key is the text, as a symbol or a
// string; nil when there is none.
func (m Map) Get(key string) any {
	for _, e := range m {
		switch k := e.Key.(type) {
		case Symbol:
			if string(k) == key {
				return e.Value
			}
		case string:
			if k == key {
				return e.Value
			}
		}
	}
	return nil
}

// Strings makes an array of string.
func Strings(values ...string) Array {
	a := Array{Code: codeStr32, Items: make([]any, len(values))}
	for i, v := range values {
		a.Items[i] = v
	}
	return a
}

// Symbols makes an array of symbol.
func Symbols(values ...Symbol) Array {
	a := Array{Code: codeSym32, Items: make([]any, len(values))}
	for i, v := range values {
		a.Items[i] = v
	}
	return a
}

// Constructors, as AMQP 1.0 part 1, section 1.6 lists them.
const (
	codeDescribed  = 0x00
	codeNull       = 0x40
	codeTrue       = 0x41
	codeFalse      = 0x42
	codeUint0      = 0x43
	codeUlong0     = 0x44
	codeList0      = 0x45
	codeUbyte      = 0x50
	codeByte       = 0x51
	codeSmallUint  = 0x52
	codeSmallUlong = 0x53
	codeSmallInt   = 0x54
	codeSmallLong  = 0x55
	codeBoolean    = 0x56
	codeUshort     = 0x60
	codeShort      = 0x61
	codeUint       = 0x70
	codeInt        = 0x71
	codeFloat      = 0x72
	codeChar       = 0x73
	codeDecimal32  = 0x74
	codeUlong      = 0x80
	codeLong       = 0x81
	codeDouble     = 0x82
	codeTimestamp  = 0x83
	codeDecimal64  = 0x84
	codeDecimal128 = 0x94
	codeUUID       = 0x98
	codeVbin8      = 0xa0
	codeStr8       = 0xa1
	codeSym8       = 0xa3
	codeVbin32     = 0xb0
	codeStr32      = 0xb1
	codeSym32      = 0xb3
	codeList8      = 0xc0
	codeMap8       = 0xc1
	codeList32     = 0xd0
	codeMap32      = 0xd1
	codeArray8     = 0xe0
	codeArray32    = 0xf0
)

// widest gives the constructor that can hold every value of the type that code
// stands for; arrays are written with it.
func widest(code byte) byte {
	switch code {
	case codeTrue, codeFalse:
		return codeBoolean
	case codeUint0, codeSmallUint:
		return codeUint
	case codeUlong0, codeSmallUlong:
		return codeUlong
	case codeSmallInt:
		return codeInt
	case codeSmallLong:
		return codeLong
	case codeList0, codeList8:
		return codeList32
	case codeVbin8:
		return codeVbin32
	case codeStr8:
		return codeStr32
	case codeSym8:
		return codeSym32
	case codeMap8:
		return codeMap32
	case codeArray8:
		return codeArray32
	}
	return code
}
