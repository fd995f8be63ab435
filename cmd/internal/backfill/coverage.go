package backfill

import (
	"cmp"
	"slices"

	"github.com/millrace/millrace/pipeline"
)

// Span is a range of a blob that some ledger has landed.
type Span struct {
	Generation     uint32
	Offset, Length int64
	Hash           string // xxh3-128 of the bytes, hex
}

// End is the offset behind the last byte.
func (s Span) End() int64 { return s.Offset + s.Length }

// coverage is what of a blob has landed: one run of bytes of its newest generation.
type coverage struct {
	generation uint32
	start, end int64
	last       Span // ends at end
	// hole says that more has landed behind end, and something in between has not, as
	// far as is known.
	hole bool
}

// cover gathers spans, in any order. A span inside another one is the replay of an
// entry in quarantine, and adds nothing.
func cover(spans []Span) coverage {
	slices.SortFunc(spans, func(a, b Span) int {
		return cmp.Or(cmp.Compare(b.Generation, a.Generation), cmp.Compare(a.Offset, b.Offset), cmp.Compare(b.Length, a.Length))
	})
	var c coverage
	for i, s := range spans {
		switch {
		case i == 0:
			c = coverage{generation: s.Generation, start: s.Offset, end: s.End(), last: s}
		case s.Generation != c.generation:
			return c
		case s.Offset > c.end:
			c.hole = true
			return c
		case s.End() > c.end:
			c.end, c.last = s.End(), s
		}
	}
	return c
}

// Last is the highest address that a table has of a blob.
type Last struct {
	Generation uint32
	Offset     int64 // of the record
}

// beyond says whether the address is not in what is covered. Rows of older
// generations are those of a blob that was rewritten.
func (c coverage) beyond(l Last) bool {
	return l.Generation > c.generation || l.Generation == c.generation && l.Offset >= c.end
}

// unitsOf gives the spans of manifests by blob.
func unitsOf(manifests []pipeline.Manifest, into map[string][]Span) {
	for _, m := range manifests {
		for _, u := range m.Units {
			name := u.Blob.String()
			into[name] = append(into[name], Span{u.Generation, u.Offset, u.Length, u.Hash})
		}
	}
}
