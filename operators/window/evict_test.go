package window

import (
	"bytes"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
)

// checkBytes counts the memory of a table's groups again.
func checkBytes(t testing.TB, w *windows) {
	t.Helper()
	sum := 0
	for _, win := range w.open {
		have := 0
		for i := range win.count {
			if i == win.overflow {
				continue
			}
			have += w.sizeOf(win.key(i))
			for _, s := range win.sketchesOf(i) {
				have += s.Bytes()
			}
		}
		if have != win.bytes {
			t.Fatalf("the window of %d ms in %s counts %d bytes, its groups have %d", win.start, w.cfg.Name, win.bytes, have)
		}
		sum += have
	}
	if sum != w.bytes || sum > w.maxBytes() {
		t.Fatalf("%s counts %d bytes, its groups have %d, at most %d", w.cfg.Name, w.bytes, sum, w.maxBytes())
	}
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom16([16]byte{10: 255, 11: 255, 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
}

// skewed makes flows of one minute: many keys with one row each, some heavy ones by
// rows or by bytes, in an order of its own.
func skewed(rng *rand.Rand, light, heavy int) []flow {
	var flows []flow
	add := func(key uint32, rows int, bytes uint64) {
		for range rows {
			flows = append(flows, flow{time: midnight + rng.Int64N(60_000), src: address(0), dst: address(key), bytes: rng.Uint64N(bytes + 1), packets: 1})
		}
	}
	for i := range light {
		add(uint32(i), 1, 100)
	}
	for i := range heavy {
		add(uint32(1<<24+i), 1+rng.IntN(4*light/heavy), uint64(1)<<rng.IntN(200))
	}
	rng.Shuffle(len(flows), func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
	if rng.IntN(2) == 0 {
		// The worst order: what is light first, so that it has the room.
		light := func(f flow) bool { return f.dst.As16()[12] == 0 }
		at := 0
		for i, f := range flows {
			if light(f) {
				flows[at], flows[i] = f, flows[at]
				at++
			}
		}
	}
	return flows
}

// Whatever the order of rows, no group lacks more than evictions took off, a key with
// more than that has a group, and what was taken off is within the promise.
func TestEvictionKeepsItsPromise(t *testing.T) {
	cfg := Config{Name: "w", Size: time.Minute, GroupBy: []string{"dst_ip"}, Sums: []string{"bytes_sent"}, MaxGroups: 200}
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 70))
		flows := skewed(rng, 3000, 50)
		o := newOperator(t, []Config{cfg}, memory.DefaultAllocator)
		in, release := input(t, memory.DefaultAllocator, 1, 0, flows)
		apply(t, o, in)
		release()
		truth, total := map[netip.Addr][2]uint64{}, [2]uint64{}
		for _, f := range flows {
			v := truth[f.dst]
			truth[f.dst] = [2]uint64{v[0] + 1, v[1] + f.bytes}
			total[0], total[1] = total[0]+1, total[1]+f.bytes
		}
		w := o.windows[0]
		g := w.open[midnight].groups
		for j, lost := range g.floor {
			if limit := total[j] * 9 / 2 * 2 / uint64(cfg.MaxGroups); lost > limit {
				t.Errorf("seed %d: measure %d: %d was taken off, want at most %d", seed, j, lost, limit)
			}
		}
		for dst, want := range truth {
			key := dst.As16()
			words := []uint64{be64(key[:8]), be64(key[8:])}
			at := g.find(tagOf(words, w.secret), words)
			for j, lost := range g.floor {
				switch {
				case at < 0 && want[j] > lost:
					t.Errorf("seed %d: measure %d: no group for %v with %d, more than %d", seed, j, dst, want[j], lost)
				case at >= 0 && (g.entry(at)[2+j] > want[j] || g.entry(at)[2+j]+g.missedOf(at)[j] < want[j] || g.missedOf(at)[j] > lost):
					t.Errorf("seed %d: measure %d: %v has %d and missed %d at most (of %d), want %d", seed, j, dst, g.entry(at)[2+j], g.missedOf(at)[j], lost, want[j])
				}
			}
		}
		o.Release()
	}
}

func be64(b []byte) (v uint64) {
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}

// Long texts and sketches reach the limit of memory before that of groups. Totals
// stay exact, and a run that is interrupted gives the same rows.
func TestMemoryOfGroupsIsBounded(t *testing.T) {
	cfg := []Config{
		{Name: "texts", Size: time.Minute, GroupBy: []string{"rule", "dst_ip"}, Sums: []string{"bytes_sent"}, MaxStateMiB: 1},
		{Name: "sketches", Size: 24 * time.Hour, GroupBy: []string{"dst_port"}, Distinct: []string{"src_ip", "src_port"}, MaxStateMiB: 1},
	}
	rng := rand.New(rand.NewPCG(1, 71))
	flows := randomFlows(rng, 40_000, midnight, 120_000)
	for i := range flows {
		flows[i].rule = strings.Repeat("r", 64<<10>>(4+rng.IntN(12))) + fmt.Sprint(rng.IntN(200))
		flows[i].dstPort = uint16(rng.IntN(280))
		flows[i].src = address(rng.Uint32())
	}
	steps := cut(rng, flows, 8, 120_000)
	got := play(t, cfg, steps, never)
	if diff := cmp.Diff(totals(recount(cfg, flows)), totals(got)); diff != "" {
		t.Fatalf("totals by table (-want +got):\n%s", diff)
	}
	flagged := map[string]int{}
	for _, r := range got {
		flagged[r.table] += int(r.overflow)
	}
	if flagged["windows_texts"] == 0 || flagged["windows_sketches"] == 0 {
		t.Errorf("overflow rows by table: %v, want some of both", flagged)
	}
	again := play(t, cfg, steps, func(i int) bool { return i%2 == 1 })
	if diff := cmp.Diff(got, again, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("interrupted run (-uninterrupted +resumed):\n%s", diff)
	}
}

// Texts that no group has any more are let go of, be they few and long.
func TestLongTextsAreForgotten(t *testing.T) {
	o := newOperator(t, []Config{{Name: "w", Size: time.Minute, GroupBy: []string{"rule"}, MaxStateMiB: 1}}, memory.DefaultAllocator)
	for seq := range 30 {
		flows := make([]flow, 20)
		for i := range flows {
			flows[i] = flow{time: midnight, src: address(0), dst: address(0), rule: fmt.Sprint(seq, i, strings.Repeat("r", 64<<10))}
		}
		in, release := input(t, memory.DefaultAllocator, uint64(seq), 0, flows)
		apply(t, o, in)
		release()
		if limit := 2*(1<<20) + sweepBytes; o.names.bytes > limit {
			t.Fatalf("%d bytes of texts, want at most %d", o.names.bytes, limit)
		}
	}
}

// The seed of the hash tables shows in nothing, evictions included.
func TestSeedShowsInNoResult(t *testing.T) {
	cfg := lawWindows()
	for i := range cfg {
		cfg[i].MaxGroups = 30
	}
	flows := skewed(rand.New(rand.NewPCG(1, 72)), 2000, 20)
	var rows []row
	var state []byte
	for seed := range uint64(3) {
		o := newSeeded(cfg, memory.DefaultAllocator, seed)
		in, release := input(t, memory.DefaultAllocator, 1, 0, flows[:1500])
		apply(t, o, in)
		snapshot, err := o.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		release()
		in, release = input(t, memory.DefaultAllocator, 2, pipeline.EndOfInput, flows[1500:])
		got := apply(t, o, in)
		release()
		if seed == 0 {
			rows, state = got, snapshot
		}
		if diff := cmp.Diff(rows, got, cmp.AllowUnexported(row{})); diff != "" || !bytes.Equal(state, snapshot) {
			t.Fatalf("seed %d gives other rows, or another snapshot (-seed 0 +seed %d):\n%s", seed, seed, diff)
		}
	}
}

// probes gives the mean number of slots that a search for a key of the table looks at.
func probes(g *groups, s secret) float64 {
	sum := 0
	for i := range g.count {
		tag := tagOf(g.key(i), s)
		mask := uint32(len(g.slots) - 1)
		for at := tag & mask; ; at = (at + 1) & mask {
			sum++
			if int(uint32(g.slots[at]))-1 == i {
				break
			}
		}
	}
	return float64(sum) / float64(g.count)
}

// Keys that collide under one seed do not under another, and nobody knows the one
// that a process draws.
func TestCraftedCollisionsNeedTheSeed(t *testing.T) {
	known, other := newSecret(1), newSecret(2)
	crafted, honest := newGroups(2, 0, 0), newGroups(2, 0, 0)
	const keys = 2000
	for n := uint64(0); crafted.count < keys; n++ {
		key := []uint64{0xffff, n}
		// The low bits of the tag choose the slot.
		if tag := tagOf(key, known); tag&(1<<12-1) == 7 {
			crafted.add(tag, key)
			honest.add(tagOf(key, other), key)
		}
	}
	if got := probes(crafted, known); got < keys/8 {
		t.Errorf("%.1f probes for keys that were made to collide: the test tests nothing", got)
	}
	if got := probes(honest, other); got > 4 {
		t.Errorf("%.1f probes under another seed, want at most 4", got)
	}
	a, b := newOperator(t, lawWindows(), nil), newOperator(t, lawWindows(), nil)
	if a.seed == b.seed {
		t.Error("two operators have one seed")
	}
}

// Keys with a pattern spread as well as others do, whatever the seed.
func TestPatternsDoNotCollide(t *testing.T) {
	for name, key := range map[string]func(i uint64) []uint64{
		"low bits":   func(i uint64) []uint64 { return []uint64{0xffff, i} },
		"high bits":  func(i uint64) []uint64 { return []uint64{i << 48, 0xffff} },
		"both words": func(i uint64) []uint64 { return []uint64{i << 32, i} },
		"strides":    func(i uint64) []uint64 { return []uint64{i * 0x9e3779b97f4a7c15, 0} },
		"last word":  func(i uint64) []uint64 { return []uint64{1, 2, 3, i << 40} },
	} {
		for seed := range uint64(10) {
			s := newSecret(seed)
			g := newGroups(len(key(0)), 0, 0)
			for i := range uint64(10_000) {
				g.add(tagOf(key(i), s), key(i))
			}
			if got := probes(g, s); got > 4 {
				t.Errorf("%s, seed %d: %.1f probes, want at most 4", name, seed, got)
			}
		}
	}
}

//go:embed testdata/snapshot-1
var snapshot1 []byte

// A state that the release before evictions wrote goes on: its rows are all there.
func TestRestoreOfVersion1(t *testing.T) {
	o := newOperator(t, overflowing(), memory.DefaultAllocator)
	if err := o.Restore(snapshot1); err != nil {
		t.Fatal(err)
	}
	got := apply(t, o, pipeline.OperatorInput{Watermark: pipeline.EndOfInput})
	want := recount(overflowing(), randomFlows(rand.New(rand.NewPCG(2, 9)), 40, midnight, 90_000))
	if diff := cmp.Diff(totals(want), totals(got)); diff != "" {
		t.Errorf("totals by table (-want +got):\n%s", diff)
	}
}
