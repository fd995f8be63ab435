package window

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
)

// Keys with few or many varying bits, below and above 64, few and many of them:
// always the order that comparing whole keys gives, equal keys by entry.
func TestSortedIsTheOrderOfWholeKeys(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 40))
		words := rng.IntN(4)
		n := 1 + rng.IntN([]int{10, 3 * radixRows}[rng.IntN(2)])
		mask, base := make([]uint64, words), make([]uint64, words)
		for i := range words {
			mask[i] = rng.Uint64() & rng.Uint64() >> rng.IntN(64)
			if rng.IntN(3) == 0 {
				mask[i] = ^uint64(0)
			}
			base[i] = rng.Uint64()
		}
		w := &windows{words: words}
		g := newGroups(words, 0, 0)
		for range n {
			key := make([]uint64, words)
			for i := range key {
				key[i] = base[i]&^mask[i] | rng.Uint64()&mask[i]
			}
			// Often the first words are equal, so that late bits decide.
			if words > 1 && rng.IntN(2) == 0 {
				copy(key, base[:words-1])
			}
			g.append(key)
		}
		want := make([]uint32, n)
		for i := range want {
			want[i] = uint32(i)
		}
		slices.SortStableFunc(want, func(a, b uint32) int { return slices.Compare(g.key(int(a)), g.key(int(b))) })
		if diff := cmp.Diff(want, w.sorted(g, nil).order); diff != "" {
			t.Fatalf("seed %d, %d keys of %d words (-want +got):\n%s", seed, n, words, diff)
		}
	}
}

// A table finds what was added and nothing else, whatever collides.
func TestGroupsFindWhatWasAdded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 41))
	g := newGroups(2, 1, 0)
	entries := map[[2]uint64]int{}
	for range 5000 {
		key := [2]uint64{rng.Uint64N(40), rng.Uint64N(40)}
		// Eight tags for all keys: long runs of collisions.
		tag := uint32(key[0]+key[1]) % 8
		at := g.find(tag, key[:])
		want, ok := entries[key]
		if !ok {
			want = -1
		}
		if at != want {
			t.Fatalf("key %v is entry %d, want %d", key, at, want)
		}
		if !ok {
			entries[key] = g.add(tag, key[:])
		}
		if len(entries) == 900 {
			g.reset()
			clear(entries)
		}
	}
}

// Names that are no longer in use are forgotten, and rows stay right meanwhile.
func TestNamesAreForgotten(t *testing.T) {
	cfg := []Config{{Name: "rules", Size: DefaultWindows()[2].Size, GroupBy: []string{"rule"}, Sums: []string{"bytes_sent"}}}
	o, err := New(cfg, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	var all []flow
	var got []row
	most := 0
	for batch := range 12 {
		flows := make([]flow, 3000)
		for i := range flows {
			flows[i] = flow{
				time: midnight + int64(batch)*300_000, rule: fmt.Sprintf("rule-%d-%d", batch/2, i), bytes: uint64(i),
				src: netip.IPv4Unspecified(), dst: netip.IPv4Unspecified(),
			}
		}
		watermark := o.watermark
		if batch%3 == 2 {
			watermark = pipeline.Watermark(flows[0].time)
		}
		in, release := input(t, memory.DefaultAllocator, uint64(batch), watermark, flows)
		got = append(got, apply(t, o, in)...)
		release()
		all = append(all, flows...)
		most = max(most, len(o.names.texts))
	}
	got = append(got, apply(t, o, pipeline.OperatorInput{Watermark: pipeline.EndOfInput})...)
	if diff := cmp.Diff(merged(recount(cfg, all)), merged(got)); diff != "" {
		t.Errorf("merged tables (-want +got):\n%s", diff)
	}
	if most >= 18_001 {
		t.Errorf("%d names were held at once, all that ever came", most)
	}
}
