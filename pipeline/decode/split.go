package decode

import (
	"bytes"
	"unicode/utf8"
)

// SplitRecords finds where the last complete record in data ends. data is a
// region of the records array as Decode takes it, and it may be cut anywhere.
//
// It gives the offset behind that record, 0 when there is none. When the records
// array ends in data, closed is true and end is the offset of its bracket.
// Brackets in strings are no brackets. Whatever is not JSON is left to Decode.
func SplitRecords(data []byte) (end int, closed bool) {
	depth := 0
	for p := 0; p < len(data); p++ {
		switch data[p] {
		case '"':
			q := stringEnd(data, p)
			if q < 0 {
				return end, false
			}
			p = q - 1
		case '{', '[':
			depth++
		case '}':
			if depth--; depth <= 0 {
				depth, end = 0, p+1
			}
		case ']':
			if depth == 0 {
				return p, true
			}
			if depth--; depth == 0 {
				end = p + 1
			}
		}
	}
	return end, false
}

// stringEnd gives the offset behind the string that begins at data[p], or -1 when
// it does not end. It jumps from quote to quote: a quote is escaped when an odd
// number of backslashes stands before it.
func stringEnd(data []byte, p int) int {
	start := p + 1
	for at := start; ; {
		i := bytes.IndexByte(data[at:], '"')
		if i < 0 {
			return -1
		}
		at += i + 1
		slashes := 0
		for q := at - 2; q >= start && data[q] == '\\'; q-- {
			slashes++
		}
		if slashes%2 == 0 {
			return at
		}
	}
}

const bom = "\xef\xbb\xbf"

// space gives the offset of the first byte from p on that is no JSON whitespace.
func space(data []byte, p int) int {
	for p < len(data) && (data[p] == ' ' || data[p] == '\n' || data[p] == '\r' || data[p] == '\t') {
		p++
	}
	return p
}

// frame finds the end of the value at data[p] by brackets and quotes alone, whether
// it is JSON or not, and how deep its brackets go. ok is false when data ends first,
// or when a closing bracket stands at p.
func frame(data []byte, p int) (end, depth int, ok bool) {
	switch data[p] {
	case '}', ']':
		return p, 0, false
	case '"':
		end = stringEnd(data, p)
		return end, 0, end >= 0
	case '{', '[':
		return frameBrackets(data, p)
	}
	for p < len(data) && !delimits[data[p]] {
		p++
	}
	return p, 0, true
}

// delimits marks the bytes that end a number or a literal.
var delimits = [256]bool{' ': true, '\t': true, '\r': true, '\n': true, ',': true, '{': true, '}': true, '[': true, ']': true, '"': true}

func frameBrackets(data []byte, p int) (end, depth int, ok bool) {
	open := 0
	for ; p < len(data); p++ {
		switch data[p] {
		case '"':
			q := stringEnd(data, p)
			if q < 0 {
				return len(data), depth, false
			}
			p = q - 1
		case '{', '[':
			open++
			depth = max(depth, open)
		case '}', ']':
			if open--; open == 0 {
				return p + 1, depth, true
			}
		}
	}
	return p, depth, false
}

// excerpt gives the first 256 bytes as valid UTF-8 without NUL.
func excerpt(b []byte) string {
	b = b[:min(len(b), excerptBytes)]
	plain := true
	for _, c := range b {
		plain = plain && c != 0 && c < utf8.RuneSelf
	}
	if plain {
		return string(b)
	}
	out := make([]byte, 0, 2*len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == 0 {
			r = utf8.RuneError
		}
		out, b = utf8.AppendRune(out, r), b[n:]
	}
	return string(out)
}

const excerptBytes = 256
