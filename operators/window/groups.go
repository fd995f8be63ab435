package window

import (
	"math/bits"
	"slices"

	"github.com/millrace/millrace/operators/sketch"
)

// groups holds the groups of one window: an open-addressing table over entries
// that lie side by side, key words first, then the row count and the sums, so that
// most groups are one cache line.
//
// The order of entries is that of their first rows since they were admitted. It
// depends on no hash, and nothing that depends on the hash's seed leaves the table.
type groups struct {
	words    int // of a key
	stride   int // of an entry: words + 1 + sums
	distinct int // sketches of an entry

	slots    []uint64 // tag<<32 | entry+1, 0 is free; a power of two long
	entries  []uint64
	sketches []sketch.HyperLogLog
	count    int // entries
	overflow int // the entry of keys without room, -1 when there is none; in no slot
	bytes    int // memory of the entries, overflow not counted

	// With an overflow entry: how much evictions have taken off each measure, and how
	// much of it each entry may have missed. See shrink.
	floor  []uint64 // by measure
	missed []uint64 // by entry and measure
}

// measures of a group are what it is judged by: its rows and each of its sums.
func (g *groups) measures() int { return g.stride - g.words }

const minSlots = 16

func newGroups(words, sums, distinct int) *groups {
	return &groups{words: words, stride: words + 1 + sums, distinct: distinct, slots: make([]uint64, minSlots), overflow: -1}
}

// reset empties the table and keeps its memory.
func (g *groups) reset() {
	clear(g.slots)
	clear(g.sketches)
	g.entries, g.sketches, g.count, g.overflow = g.entries[:0], g.sketches[:0], 0, -1
	g.floor, g.missed, g.bytes = nil, nil, 0
}

func (g *groups) entry(i int) []uint64 { return g.entries[i*g.stride : (i+1)*g.stride] }
func (g *groups) key(i int) []uint64   { return g.entries[i*g.stride : i*g.stride+g.words] }
func (g *groups) sketchesOf(i int) []sketch.HyperLogLog {
	return g.sketches[i*g.distinct : (i+1)*g.distinct]
}

// missedOf is empty without an overflow entry.
func (g *groups) missedOf(i int) []uint64 {
	return g.missed[i*len(g.floor) : (i+1)*len(g.floor)]
}

// find gives the entry of the key, or -1.
func (g *groups) find(tag uint32, key []uint64) int {
	mask := uint32(len(g.slots) - 1)
	for at := tag & mask; ; at = (at + 1) & mask {
		slot := g.slots[at]
		if slot == 0 {
			return -1
		}
		if uint32(slot>>32) == tag {
			i := int(uint32(slot)) - 1
			if equalKeys(g.entries[i*g.stride:], key) {
				return i
			}
		}
	}
}

func equalKeys(entry, key []uint64) bool {
	for i, w := range key {
		if entry[i] != w {
			return false
		}
	}
	return true
}

// add makes an entry for a key that is not there.
func (g *groups) add(tag uint32, key []uint64) int {
	i := g.append(key)
	if (i+1)*4 > len(g.slots)*3 {
		g.grow()
	}
	place(g.slots, uint64(tag)<<32|uint64(i+1))
	return i
}

// overflowEntry gives the entry of keys without room, and makes it if need be.
func (g *groups) overflowEntry() int {
	if g.overflow < 0 {
		if g.floor == nil {
			g.floor = make([]uint64, g.measures())
			g.missed = make([]uint64, g.count*g.measures())
		}
		g.overflow = g.append(make([]uint64, g.words))
	}
	return g.overflow
}

func (g *groups) append(key []uint64) int {
	i := g.count
	g.count++
	// Growth may leave old values behind; the key and zeros go over them.
	g.entries = slices.Grow(g.entries, g.stride)[:len(g.entries)+g.stride]
	entry := g.entry(i)
	clear(entry[copy(entry, key):])
	for range g.distinct {
		g.sketches = append(g.sketches, sketch.HyperLogLog{})
	}
	g.missed = append(g.missed, g.floor...)
	return i
}

func (g *groups) grow() {
	old := g.slots
	g.slots = make([]uint64, len(old)*2)
	for _, slot := range old {
		if slot != 0 {
			place(g.slots, slot)
		}
	}
}

func place(slots []uint64, slot uint64) {
	mask := uint32(len(slots) - 1)
	at := uint32(slot>>32) & mask
	for slots[at] != 0 {
		at = (at + 1) & mask
	}
	slots[at] = slot
}

// secret keys the hash of group keys. It is drawn for each process, so that nobody
// can choose keys that collide.
type secret struct{ add, mul uint64 }

// newSecret spreads a seed over both numbers.
//
// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014 (SplitMix64).
func newSecret(seed uint64) secret {
	next := func() uint64 {
		seed += 0x9e3779b97f4a7c15
		z := (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
	return secret{add: next(), mul: next() | 1}
}

// tagOf hashes a key.
func tagOf(key []uint64, s secret) uint32 {
	h := s.add
	for _, w := range key {
		hi, lo := bits.Mul64(h^w, s.mul)
		h = hi ^ lo ^ s.add
	}
	hi, lo := bits.Mul64(h, 0xd6e8feb86659fd93)
	return uint32((hi ^ lo) >> 32)
}
