package window

import (
	"fmt"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/schemas"
)

// source is one column of the record batch that is being folded, as plain slices.
type source struct {
	column   int // of schemas.EnrichedFlows, which begins with those of schemas.Flows
	kind     kind
	texts    *texts // of a text column
	isKey    bool
	isCount  bool     // some window counts its distinct values
	distinct []uint64 // hashes of the chunk's values, when isCount

	u8     []uint8 // numbers, or codes of words
	u16    []uint16
	u32    []uint32 // numbers, or codes of names
	u64    []uint64
	raw    []byte      // addresses, 16 bytes each
	words  *[256]uint8 // word code -> id
	ids    []uint32    // name code -> id
	hashes []uint64    // text code -> hash, when isCount
}

// bind points the source at a column. What it holds is borrowed until unbind.
func (s *source) bind(arr arrow.Array) error {
	if arr.NullN() != 0 {
		return fmt.Errorf("%d nulls, want none", arr.NullN())
	}
	data := arr.Data()
	switch s.kind {
	case kindWord, kindName:
		return s.bindText(arr.(*array.Dictionary))
	case kindAddress:
		if arr.Len() > 0 {
			s.raw = data.Buffers()[1].Bytes()[data.Offset()*16 : (data.Offset()+arr.Len())*16]
		}
	case kindUint8:
		s.u8 = arr.(*array.Uint8).Uint8Values()
	case kindUint16:
		s.u16 = arr.(*array.Uint16).Uint16Values()
	case kindUint32:
		s.u32 = arr.(*array.Uint32).Uint32Values()
	case kindUint64:
		s.u64 = arr.(*array.Uint64).Uint64Values()
	default:
		panic("BUG: column of a kind that no window reads")
	}
	return nil
}

// bindText looks up every text of the dictionary once, so that rows cost an index.
func (s *source) bindText(arr *array.Dictionary) error {
	dict := arr.Dictionary().(*array.String)
	s.hashes = s.hashes[:0]
	if s.isCount {
		for i := range dict.Len() {
			s.hashes = append(s.hashes, sketch.HashString(dict.Value(i)))
		}
	}
	if s.kind == kindName {
		s.u32, s.ids = arr.Indices().(*array.Uint32).Uint32Values(), s.ids[:0]
		for i := range dict.Len() {
			if s.isKey {
				s.ids = append(s.ids, s.texts.id(dict.Value(i)))
			}
		}
		return nil
	}
	s.u8 = arr.Indices().(*array.Uint8).Uint8Values()
	for i := range min(dict.Len(), 256) {
		id := s.texts.id(dict.Value(i))
		if id > 255 {
			return fmt.Errorf("text %q is the 256th of a closed list", dict.Value(i))
		}
		s.words[i] = uint8(id)
	}
	return nil
}

// unbind drops what is borrowed.
func (s *source) unbind() { s.u8, s.u16, s.u32, s.u64, s.raw = nil, nil, nil, nil, nil }

// hash computes the hashes of rows lo to hi.
func (s *source) hash(lo, hi int) {
	out := s.distinct[:hi-lo]
	switch s.kind {
	case kindWord:
		for i, code := range s.u8[lo:hi] {
			out[i] = s.hashes[code]
		}
	case kindName:
		for i, code := range s.u32[lo:hi] {
			out[i] = s.hashes[code]
		}
	case kindAddress:
		for i := range out {
			out[i] = sketch.Hash(s.raw[(lo+i)*16 : (lo+i)*16+16])
		}
	case kindUint8:
		for i, v := range s.u8[lo:hi] {
			out[i] = sketch.HashUint64(uint64(v))
		}
	case kindUint16:
		for i, v := range s.u16[lo:hi] {
			out[i] = sketch.HashUint64(uint64(v))
		}
	case kindUint32:
		for i, v := range s.u32[lo:hi] {
			out[i] = sketch.HashUint64(uint64(v))
		}
	default:
		panic("BUG: distinct values of a counter")
	}
}

var (
	flowsSchema    = schemas.Flows.ArrowSchema()
	enrichedSchema = schemas.EnrichedFlows.ArrowSchema()
	timeColumn     = schemas.Flows.Index(schemas.Flows.TimeColumn)
)
