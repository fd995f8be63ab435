package window

import (
	"math/bits"
	"slices"
)

// Memory of an entry besides its texts and the registers of its sketches.
const (
	slotBytes   = 16 // of slots, which are three to six eighths full
	sketchBytes = 40 // of a sketch without registers
)

// sizeOf gives the memory of a new group. It is a function of the group alone, so
// that a replay evicts what was evicted; a text counts for each group that has it.
func (w *windows) sizeOf(key []uint64) int {
	size := 8*(w.words+2*(1+len(w.sums))) + slotBytes + sketchBytes*len(w.distinct)
	for i, f := range w.fields {
		if f.kind == kindName {
			size += len(w.keys[i].texts.texts[f.get(key)])
		}
	}
	return size
}

func (w *windows) maxBytes() int { return w.cfg.MaxStateMiB << 20 }

// evict folds at least half of the groups, and half of their memory, into their
// windows' overflow groups: the large windows give first, and the light groups of
// each. Each eviction pays for half a limit of new groups.
func (w *windows) evict() {
	if w.groups == 0 {
		return
	}
	// Where memory is short, so many groups of the size that they have fit.
	room := min(w.cfg.MaxGroups, int(float64(w.groups)*min(1, float64(w.maxBytes())/float64(w.bytes))))
	for limit := w.fairShare(room / 2); ; limit /= 2 {
		for _, win := range w.open {
			if win.overflow >= 0 {
				// It is being flooded: less often is cheaper.
				w.shrink(win.groups, limit/2)
			} else {
				w.shrink(win.groups, limit)
			}
		}
		// Heavy groups have large sketches.
		if limit == 0 || w.bytes <= w.maxBytes()/2 {
			return
		}
	}
}

// fairShare gives the number of groups that each window may keep, if so many may be
// kept in all: windows that have fewer leave what they do not use to the others.
func (w *windows) fairShare(room int) int {
	sizes := make([]int, 0, len(w.open))
	for _, win := range w.open {
		sizes = append(sizes, win.taken())
	}
	slices.Sort(sizes)
	for i, n := range sizes {
		share := room / (len(sizes) - i)
		if n > share {
			return share
		}
		room -= n
	}
	return w.groups
}

// shrink folds groups into the overflow group until at most limit are left, which
// are the heaviest by rows or by one of the sums.
//
// An entry's credit is, by measure, what it has, and what it may have missed before
// it was admitted, less what evictions took off everybody. An eviction takes off so
// much (the cut) that few enough groups have credit left, and folds those that have
// none by any measure. So no group lacks more than the sum of all cuts, and a key that
// has more than that has a group. More than limit/measures groups lose a cut, or a
// ninth less; with one open window the sum is at most
//
//	9/2 · measures / MaxGroups
//
// of the window's total, whatever the order of the rows. It is the batched form of
// Misra and Gries's counters. Nothing in it depends on the order of entries, on ids or
// on hashes: a restored state evicts the same groups.
//
// Source: Misra, Gries, "Finding repeated elements", Science of Computer Programming
// 2(2), 1982; Anderson, Bevin, Lang, Liberty, Rhodes, Thaler, "A high-performance
// algorithm for identifying frequent items in data streams", IMC 2017,
// arXiv:1705.07001 (batches); Agarwal, Cormode, Huang, Phillips, Wei, Yi, "Mergeable
// summaries", PODS 2012 (credit and what was missed are the same counter).
func (w *windows) shrink(g *groups, limit int) {
	if g.taken() <= limit {
		return
	}
	g.overflowEntry()
	places, last, cuts := w.weigh(g, limit)
	next := 0
	for i := range g.count {
		if i == g.overflow {
			g.overflow = next
		} else if places[i] > last {
			w.foldAway(g, i)
			continue
		}
		g.move(i, next)
		next++
	}
	g.truncate(next)
	clear(g.slots)
	for j, cut := range cuts {
		g.floor[j] = plus(g.floor[j], cut)
	}
	for i := range g.count {
		if i != g.overflow {
			place(g.slots, uint64(tagOf(g.key(i), w.secret))<<32|uint64(i+1))
			g.settle(i)
		}
	}
}

// settle: who stayed for one measure starts anew by the others.
func (g *groups) settle(i int) {
	values, missed := g.entry(i)[g.words:], g.missedOf(i)
	for j, floor := range g.floor {
		if plus(values[j], missed[j]) < floor {
			missed[j] = floor - values[j]
		}
	}
}

// foldAway adds a group to the overflow group.
func (w *windows) foldAway(g *groups, i int) {
	from, to := g.entry(i), g.entry(g.overflow)
	size := w.sizeOf(from)
	for j := g.words; j < g.stride; j++ {
		to[j] += from[j]
	}
	sketches := g.sketchesOf(i)
	for j := range sketches {
		g.sketchesOf(g.overflow)[j].Merge(&sketches[j])
		size += sketches[j].Bytes()
	}
	w.stats.OverflowRows += int64(from[g.words])
	w.groups--
	w.bytes, g.bytes = w.bytes-size, g.bytes-size
}

// weigh gives each group's place, the best that it has by any measure: so many
// groups have no less credit, to an eighth. Those up to the last place are limit at
// most; they are the groups that have more credit than the cut by some measure.
func (w *windows) weigh(g *groups, limit int) (places []uint32, last uint32, cuts []uint64) {
	noLess := w.ranking(g)
	k := len(noLess)
	places = slices.Grow(w.places[:0], g.count)[:g.count]
	var held [ranges]int // by place
	for i := range places {
		best := uint32(g.count)
		for j, r := range w.ranged[i*k : (i+1)*k] {
			best = min(best, noLess[j][r%512])
		}
		if places[i] = best; i != g.overflow {
			held[rangeOf(uint64(best))]++
		}
	}
	w.places = places
	// Each measure has its part of limit, and what the others leave.
	last = uint32(limit / k)
	for at, sum := 0, held[0]; sum <= limit; {
		last = max(last, uint32(lastOf(at)))
		at++
		sum += held[at]
	}
	for j := range noLess {
		at := ranges - 1
		for noLess[j][at] <= last {
			at--
		}
		cuts = append(cuts, lastOf(at))
	}
	return places, last, cuts
}

// ranking gives, by measure and range of credit, how many groups are in it or in a
// higher one, and leaves the ranges of each group in w.ranged.
func (w *windows) ranking(g *groups) [][512]uint32 {
	k := g.measures()
	noLess := make([][512]uint32, k)
	w.ranged = slices.Grow(w.ranged[:0], g.count*k)[:g.count*k]
	for i := range g.count {
		values, missed := g.entries[i*g.stride+g.words:(i+1)*g.stride], g.missed[i*k:(i+1)*k]
		into := w.ranged[i*k : (i+1)*k]
		for j, floor := range g.floor {
			had := plus(values[j], missed[j])
			r := uint16(rangeOf(had - min(had, floor)))
			into[j] = r
			noLess[j][r%512]++
		}
	}
	for j := range noLess {
		if g.overflow >= 0 {
			noLess[j][w.ranged[g.overflow*k+j]]--
		}
		for at := ranges - 2; at >= 0; at-- {
			noLess[j][at] += noLess[j][at+1]
		}
	}
	return noLess
}

// plus adds up to the highest number there is.
func plus(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	return sum | -carry
}

// move puts entry i where entry to, which is not behind it, was.
func (g *groups) move(i, to int) {
	if i == to {
		return
	}
	copy(g.entry(to), g.entry(i))
	copy(g.missedOf(to), g.missedOf(i))
	copy(g.sketchesOf(to), g.sketchesOf(i))
}

// truncate keeps the first n entries.
func (g *groups) truncate(n int) {
	g.count = n
	g.entries, g.missed = g.entries[:n*g.stride], g.missed[:n*len(g.floor)]
	clear(g.sketches[n*g.distinct:])
	g.sketches = g.sketches[:n*g.distinct]
}

// ranges divide the numbers: eight to each power of two, one number each below 16.
const ranges = 496

func rangeOf(v uint64) int {
	if v < 8 {
		return int(v)
	}
	shift := bits.Len64(v) - 4
	return (shift+1)*8 + int(v>>shift&7)
}

// lastOf gives the highest number of a range.
func lastOf(i int) uint64 {
	if i < 8 {
		return uint64(i)
	}
	return uint64(8+i%8+1)<<(i/8-1) - 1
}
