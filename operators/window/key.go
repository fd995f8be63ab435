package window

import (
	"encoding/binary"
)

// field is one group column in a group's key. Keys are words of 64 bits, filled
// from the highest bit on in the order of the group columns, numbers and addresses
// as they sort: where ids of texts are replaced by their ranks, comparing the words
// compares the groups.
type field struct {
	column int // of schemas.EnrichedFlows
	kind   kind
	word   int  // first word
	shift  uint // of the value in the word
	bits   uint // 128 for an address, which takes two whole words
}

// keyLayout places the columns and gives the number of words of a key.
func keyLayout(columns []int, kinds []kind) (fields []field, words int) {
	left := uint(0) // free bits of the last word
	for i, column := range columns {
		f := field{column: column, kind: kinds[i], bits: keyBits(kinds[i])}
		if f.bits == 128 {
			f.word, left = words, 0
			words += 2
		} else {
			if left < f.bits {
				words, left = words+1, 64
			}
			left -= f.bits
			f.word, f.shift = words-1, left
		}
		fields = append(fields, f)
	}
	return fields, words
}

// bugKind: Validate lets columns of other kinds into no key.
const bugKind = "BUG: column of this kind in a key"

func keyBits(k kind) uint {
	switch k {
	case kindWord, kindUint8:
		return 8
	case kindUint16:
		return 16
	case kindName, kindUint32:
		return 32
	case kindAddress:
		return 128
	default:
		panic(bugKind)
	}
}

// keyMasks gives the bits of each key word that belong to a field.
func keyMasks(fields []field, words int) []uint64 {
	masks := make([]uint64, words)
	for _, f := range fields {
		if f.kind == kindAddress {
			masks[f.word], masks[f.word+1] = 1<<64-1, 1<<64-1
		} else {
			f.put(masks, 1<<f.bits-1)
		}
	}
	return masks
}

func (f field) isText() bool { return f.kind == kindWord || f.kind == kindName }

// get gives a field that is no address.
func (f field) get(key []uint64) uint64 { return key[f.word] >> f.shift & (1<<f.bits - 1) }

// put replaces a field that is no address.
func (f field) put(key []uint64, value uint64) {
	key[f.word] = key[f.word]&^((1<<f.bits-1)<<f.shift) | value<<f.shift
}

// fill ors the field of rows lo to hi into their keys, words apart, which start as
// zeros.
func (f field) fill(keys []uint64, words int, s *source, lo, hi int) {
	at := f.word
	switch f.kind {
	case kindWord:
		for _, code := range s.u8[lo:hi] {
			keys[at] |= uint64(s.words[code]) << f.shift
			at += words
		}
	case kindName:
		for _, code := range s.u32[lo:hi] {
			keys[at] |= uint64(s.ids[code]) << f.shift
			at += words
		}
	case kindAddress:
		for raw := s.raw[lo*16 : hi*16]; len(raw) >= 16; raw = raw[16:] {
			keys[at] = binary.BigEndian.Uint64(raw)
			keys[at+1] = binary.BigEndian.Uint64(raw[8:])
			at += words
		}
	case kindUint8:
		for _, v := range s.u8[lo:hi] {
			keys[at] |= uint64(v) << f.shift
			at += words
		}
	case kindUint16:
		for _, v := range s.u16[lo:hi] {
			keys[at] |= uint64(v) << f.shift
			at += words
		}
	case kindUint32:
		for _, v := range s.u32[lo:hi] {
			keys[at] |= uint64(v) << f.shift
			at += words
		}
	default:
		panic(bugKind)
	}
}
