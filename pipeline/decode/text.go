package decode

import (
	"unicode/utf8"

	"github.com/millrace/millrace/pipeline"
)

// unescape gives the text that stands between the quotes of a valid JSON string.
// Plain text is given back as it is; else it is written over buf.
//
// ok is false for text that must not be stored: invalid UTF-8, NUL, or half of a
// surrogate pair.
func unescape(raw []byte, buf *[]byte) (text []byte, ok bool) {
	i := 0
	for i < len(raw) && raw[i] < utf8.RuneSelf && raw[i] != '\\' && raw[i] != 0 {
		i++
	}
	if i == len(raw) {
		return raw, true
	}
	text = append((*buf)[:0], raw[:i]...)
	for raw = raw[i:]; len(raw) > 0; {
		r, n := utf8.DecodeRune(raw)
		if r == utf8.RuneError && n == 1 {
			return nil, false
		}
		if r == '\\' {
			if r, n = unescapeOne(raw); n == 0 {
				return nil, false
			}
		}
		if r == 0 {
			return nil, false
		}
		text, raw = utf8.AppendRune(text, r), raw[n:]
	}
	*buf = text
	return text, true
}

// unescapeOne reads one valid escape, or two that are a surrogate pair; n is 0 for
// half a pair.
func unescapeOne(raw []byte) (r rune, n int) {
	switch c := raw[1]; c {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return rune(c), 2
	}
	r, _ = hex4(raw[2:])
	if r < 0xd800 || r > 0xdfff {
		return r, 6
	}
	if r > 0xdbff || len(raw) < 12 || raw[6] != '\\' || raw[7] != 'u' {
		return 0, 0
	}
	low, _ := hex4(raw[8:])
	if low < 0xdc00 || low > 0xdfff {
		return 0, 0
	}
	return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), 12
}

// textOf gives the text of a value: null is "".
func (d *decoder) textOf(value []byte) ([]byte, pipeline.Reason) {
	if value[0] != '"' {
		if string(value) == "null" {
			return nil, ""
		}
		return nil, pipeline.ReasonShape
	}
	raw := value[1 : len(value)-1]
	if len(raw) > d.limits.Text {
		return nil, pipeline.ReasonLimit
	}
	text, ok := unescape(raw, &d.scratch)
	if !ok {
		return nil, pipeline.ReasonEncoding
	}
	return text, ""
}

// macText gives 12 upper-case hex digits, or nothing for nothing.
func macText(text []byte, out *[12]byte) (mac []byte, ok bool) {
	n := 0
	for _, c := range text {
		if c == ':' || c == '-' || c == '.' {
			continue
		}
		if hexValue[c] < 0 || n == len(out) {
			return nil, false
		}
		if c >= 'a' {
			c -= 'a' - 'A'
		}
		out[n] = c
		n++
	}
	return out[:n], n == 0 || n == len(out)
}
