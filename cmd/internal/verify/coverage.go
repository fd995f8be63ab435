package verify

import (
	"cmp"
	"slices"
)

// stretch is a run of bytes of a blob: what a commit read, or a hole between two.
type stretch struct {
	unit      // of a hole: offset and length alone
	hole bool //
}

// widestHeader is how many bytes may stand before the first record of a blob. It is
// {"records":[ with white space, which nobody writes so far.
const widestHeader = 64

// cover sorts the units of a place by where they are: those that follow each other
// with the holes between them, those that lie within others as replays do, and those
// that overlap.
func cover(units []unit, replays func(unit) bool) (stretches []stretch, nested, overlaps []unit) {
	sorted := slices.Clone(units)
	slices.SortFunc(sorted, func(a, b unit) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(b.length, a.length), cmp.Compare(a.batch, b.batch))
	})
	end := int64(0)
	for _, u := range sorted {
		switch {
		case u.offset < end && replays(u):
			nested = append(nested, u)
			continue
		case u.offset < end:
			overlaps = append(overlaps, u)
			continue
		case u.offset > end && (end > 0 || u.offset > widestHeader):
			if replays(u) {
				nested = append(nested, u) // of a record in the hole
				continue
			}
			stretches = append(stretches, stretch{unit{offset: end, length: u.offset - end}, true})
		}
		stretches = append(stretches, stretch{u, false})
		end = u.end()
	}
	return stretches, nested, overlaps
}

// endOf is where the commits of a place end.
func endOf(stretches []stretch) int64 {
	if len(stretches) == 0 {
		return 0
	}
	return stretches[len(stretches)-1].end()
}
