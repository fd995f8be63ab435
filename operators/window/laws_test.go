package window

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
)

var midnight = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).UnixMilli()

// lawWindows cover every kind of column, none at all, and a lateness.
func lawWindows() []Config {
	return append(DefaultWindows(),
		Config{Name: "total_1s", Size: time.Second},
		Config{Name: "late_30s", Size: 30 * time.Second, Lateness: 20 * time.Second, GroupBy: []string{"rule", "src_ip", "mac"}, Sums: []string{"bytes_sent"}, Distinct: []string{"dst_port", "rule", "action", "protocol"}},
		Config{Name: "day", Size: 24 * time.Hour, GroupBy: []string{"dst_port", "direction"}, Distinct: []string{"src_ip"}},
	)
}

// step is one batch of a run.
type step struct {
	flows     [][]flow
	watermark pipeline.Watermark
}

// play runs the steps and gives all rows. Before each step for which restart says
// so, the operator is replaced by one restored from its snapshot.
func play(t testing.TB, cfg []Config, steps []step, restart func(i int) bool) []row {
	t.Helper()
	alloc := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer alloc.AssertSize(t, 0)
	o, err := New(cfg, alloc)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for i, s := range steps {
		if restart(i) {
			o = restored(t, o, cfg, alloc)
		}
		in, release := input(t, alloc, uint64(i), s.watermark, s.flows...)
		rows = append(rows, apply(t, o, in)...)
		release()
		for _, w := range o.windows {
			if w.groups > w.cfg.MaxGroups {
				t.Fatalf("%d groups in %s, at most %d", w.groups, w.cfg.Name, w.cfg.MaxGroups)
			}
			checkBytes(t, w)
		}
	}
	if s := o.Stats(); s.OpenWindows != 0 || s.Groups != 0 {
		t.Fatalf("%+v left at the end of the input", s)
	}
	o.Release()
	return rows
}

// restored gives an operator with the state of another and asserts that nothing of
// the state is lost.
func restored(t testing.TB, o *Operator, cfg []Config, alloc memory.Allocator) *Operator {
	t.Helper()
	snapshot, err := o.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := New(cfg, alloc)
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	again, err := fresh.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshot, again) {
		t.Fatal("a restored state gives another snapshot")
	}
	o.Release()
	return fresh
}

// cut makes batches of flows and gives each a watermark slack ms behind the
// highest time so far, which never goes back.
func cut(rng *rand.Rand, flows []flow, batches int, slack int64) []step {
	var steps []step
	high := int64(0)
	for at, i := 0, 0; i < batches; i++ {
		end := len(flows)
		if i < batches-1 {
			end = at + rng.IntN(len(flows)-at+1)/(batches-i)*2
			end = min(end, len(flows))
		}
		s := step{}
		for at < end {
			n := 1 + rng.IntN(end-at)
			s.flows = append(s.flows, flows[at:at+n])
			for _, f := range flows[at : at+n] {
				high = max(high, f.time)
			}
			at += n
		}
		s.watermark = pipeline.Watermark(max(0, high-slack))
		steps = append(steps, s)
	}
	return append(steps, step{watermark: pipeline.EndOfInput})
}

func never(int) bool { return false }

// Whatever the batches, their order, late rows, restarts and the number of shards,
// the merged tables are those of the oracle.
func TestMergedTablesAreAFunctionOfTheRows(t *testing.T) {
	for seed := range uint64(15) {
		rng := rand.New(rand.NewPCG(seed, 1))
		// Over midnight, so that pieces of two days come up.
		flows := randomFlows(rng, 1+rng.IntN(3000), midnight-300_000, 600_000)
		if rng.IntN(2) == 0 {
			slices.SortFunc(flows, func(a, b flow) int { return cmp.Compare(a.time, b.time) })
		}
		want := merged(recount(lawWindows(), flows))
		shards := make([][]flow, 1+rng.IntN(3))
		for _, f := range flows {
			i := int(f.dst.As16()[15]) % len(shards)
			shards[i] = append(shards[i], f)
		}
		var got []row
		for _, shard := range shards {
			steps := cut(rng, shard, 1+rng.IntN(12), rng.Int64N(120_000))
			got = append(got, play(t, lawWindows(), steps, func(int) bool { return rng.IntN(3) == 0 })...)
		}
		if diff := gocmp.Diff(want, merged(got)); diff != "" {
			t.Fatalf("seed %d: merged tables (-want +got):\n%s", seed, diff)
		}
	}
}

// Where no row is late, nothing is a correction and each group comes once.
func TestOrderWithinTheWatermarkChangesNothing(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 2))
		flows := randomFlows(rng, 2000, midnight, 300_000)
		want := merged(recount(lawWindows(), flows))
		got := play(t, lawWindows(), cut(rng, flows, 8, 300_000), never)
		if diff := gocmp.Diff(want, merged(got)); diff != "" {
			t.Fatalf("seed %d: merged tables (-want +got):\n%s", seed, diff)
		}
		if len(got) != len(want) {
			t.Errorf("seed %d: %d rows for %d groups", seed, len(got), len(want))
		}
		for _, r := range got {
			if r.correction != 0 {
				t.Errorf("seed %d: a correction without a late row: %v", seed, r)
			}
		}
	}
}

// Killing and resuming gives the same rows batch by batch, overflow included.
func TestResumedRunIsBitEqual(t *testing.T) {
	cfg := lawWindows()
	for i := range cfg {
		cfg[i].MaxGroups = 40
	}
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 3))
		flows := randomFlows(rng, 600, midnight-200_000, 400_000)
		steps := cut(rng, flows, 10, 100_000)
		want := play(t, cfg, steps, never)
		for kill := range steps {
			got := play(t, cfg, steps, func(i int) bool { return i == kill })
			if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(row{})); diff != "" {
				t.Fatalf("seed %d, resumed before batch %d (-uninterrupted +resumed):\n%s", seed, kill, diff)
			}
		}
	}
}

// Past MaxGroups totals stay exact, and no window has more groups than allowed.
func TestOverflowKeepsTotals(t *testing.T) {
	cfg := lawWindows()
	for i := range cfg {
		cfg[i].MaxGroups = 7
	}
	overflown := 0
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 4))
		flows := randomFlows(rng, 2000, midnight-200_000, 400_000)
		got := play(t, cfg, cut(rng, flows, 6, 50_000), never)
		if diff := gocmp.Diff(totals(recount(cfg, flows)), totals(got)); diff != "" {
			t.Fatalf("seed %d: totals by table (-want +got):\n%s", seed, diff)
		}
		for _, r := range got {
			overflown += int(r.overflow)
		}
	}
	if overflown == 0 {
		t.Error("no group overflowed: the test tests nothing")
	}
}
