package decode

import (
	"bytes"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode/internal/reference"
)

// tight are limits that small inputs can reach.
var tight = Limits{Depth: 9, Text: 300, Tuples: 4, Members: 12, Rejects: 3}

// agree decodes with both decoders and compares everything but the details.
func agree(t testing.TB, r Range, limits Limits, data []byte) {
	t.Helper()
	want := reference.Decode(reference.Input{
		Offset: r.Offset, MinTime: r.MinTime, MaxTime: r.MaxTime, Ordinals: r.Ordinals, Limits: reference.Limits(limits),
	}, data)
	alloc := &balance{GoAllocator: memory.NewGoAllocator()}
	b := NewBatchWithLimits(alloc, limits)
	defer func() {
		b.Release()
		if alloc.bytes != 0 {
			t.Errorf("%d bytes were not given back", alloc.bytes)
		}
	}()
	res := b.Decode(r, data)
	rows := plain(takeRows(t, b))
	var rejects []reference.Reject
	for i, rej := range res.Rejects {
		if rej.Detail == "" {
			t.Errorf("reject %d has no detail: %+v", i, rej)
		}
		rej.Detail = ""
		rejects = append(rejects, reference.Reject{Reject: rej, At: res.RejectAt[i]})
	}
	if !slices.Equal(want.Rows, rows) {
		t.Errorf("rows (-reference +decode):\n%s", cmp.Diff(want.Rows, rows))
	}
	if !slices.Equal(want.Rejects, rejects) {
		t.Errorf("rejects (-reference +decode):\n%s", cmp.Diff(want.Rejects, rejects))
	}
	for _, r := range rows {
		if wrong := storable(r); wrong != "" {
			t.Errorf("what must not be stored: %s", wrong)
		}
	}
	if want.Records != res.Records {
		t.Errorf("%d records, reference has %d", res.Records, want.Records)
	}
	checkTimes(t, res, rows)
}

// balance counts the bytes that are out: a checked allocator that is cheap enough
// for hundreds of thousands of small batches.
type balance struct {
	*memory.GoAllocator
	bytes int
}

func (a *balance) Allocate(n int) []byte {
	a.bytes += n
	return a.GoAllocator.Allocate(n)
}

func (a *balance) Reallocate(n int, b []byte) []byte {
	a.bytes += n - len(b)
	return a.GoAllocator.Reallocate(n, b)
}

func (a *balance) Free(b []byte) { a.bytes -= len(b) }

func checkTimes(t testing.TB, res Result, rows []reference.Row) {
	t.Helper()
	if len(rows) != res.Rows {
		t.Errorf("result says %d rows, the batch has %d", res.Rows, len(rows))
	}
	var lo, hi int64
	for i, r := range rows {
		if i == 0 {
			lo, hi = r.Time, r.Time
		}
		lo, hi = min(lo, r.Time), max(hi, r.Time)
	}
	if lo != res.MinTime || hi != res.MaxTime {
		t.Errorf("times %d..%d, rows have %d..%d", res.MinTime, res.MaxTime, lo, hi)
	}
}

// fuzzRange turns three numbers into a range and limits.
func fuzzRange(offset uint32, bounds, ordinals uint8) (Range, Limits) {
	r := Range{Blob: "blob", Offset: int64(offset)}
	if bounds&1 != 0 {
		r.MinTime, r.MaxTime = 1663142400000, 1663153200000 // 2022-09-14 08:00 to 11:00
	}
	for o := range uint32(8) {
		if ordinals>>o&1 != 0 {
			r.Ordinals = append(r.Ordinals, o)
		}
	}
	if bounds&2 != 0 {
		return r, tight
	}
	return r, DefaultLimits()
}

func FuzzDecode(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add([]byte(s), uint32(12), uint8(0), uint8(0))
		f.Add([]byte(s), uint32(0), uint8(3), uint8(0))
	}
	f.Add([]byte(vnetSeed), uint32(1<<31), uint8(1), uint8(5))
	f.Fuzz(func(t *testing.T, data []byte, offset uint32, bounds, ordinals uint8) {
		r, limits := fuzzRange(offset, bounds, ordinals)
		agree(t, r, limits, data)
	})
}

func TestSeedsAgree(t *testing.T) {
	for _, s := range seeds(t) {
		for _, c := range []struct{ bounds, ordinals uint8 }{{0, 0}, {1, 6}, {2, 0}, {3, 1}} {
			r, limits := fuzzRange(12, c.bounds, c.ordinals)
			agree(t, r, limits, []byte(s))
		}
		if t.Failed() {
			t.Fatalf("seed %.300s", s)
		}
	}
}

// Every prefix of a region agrees: cut at each byte, and at each byte replaced.
func TestPrefixesAndFlipsAgree(t *testing.T) {
	others := []byte("\"\\{}[],:0 \x00\xff")
	if testing.Short() {
		others = []byte("\"},")
	}
	for _, s := range []string{vnetSeed, nsgSeed} {
		for i := range len(s) {
			agree(t, Range{}, DefaultLimits(), []byte(s[:i]))
			for _, c := range others {
				flipped := bytes.Clone([]byte(s))
				flipped[i] = c
				agree(t, Range{}, DefaultLimits(), flipped)
			}
			if t.Failed() {
				t.Fatalf("at byte %d of %s", i, s)
			}
		}
	}
}

func TestRandomRegionsAgree(t *testing.T) {
	rounds := uint64(3000)
	if testing.Short() {
		rounds = 300
	}
	for seed := range rounds {
		g := newGenerator(seed)
		data := g.region()
		r, limits := fuzzRange(uint32(seed), uint8(seed)&3, uint8(seed>>2)&uint8(seed>>4)&uint8(seed>>6))
		agree(t, r, limits, data)
		if t.Failed() {
			t.Fatalf("seed %d: %q", seed, data)
		}
	}
}

// FuzzSplit: a valid region cut anywhere gives the same rows as the whole.
func FuzzSplit(f *testing.F) {
	f.Add(uint64(1), uint16(3), false)
	f.Add(uint64(2), uint16(100), true)
	f.Fuzz(func(t *testing.T, seed uint64, step uint16, closed bool) { cutAgrees(t, seed, int(step), closed) })
}

func TestCutRegionsAgree(t *testing.T) {
	for seed := range uint64(200) {
		for _, step := range []int{1, 7, 64, 500, 5000} {
			cutAgrees(t, seed, step, seed%2 == 0)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func cutAgrees(t testing.TB, seed uint64, step int, closed bool) {
	g := newGenerator(seed)
	g.faults = false
	data := g.region()
	want, wantRes := decodeAll(t, Range{Offset: 12}, data)
	end := len(data)
	if closed {
		data = append(data, `]}`...)
	}
	b := checkedBatch(t)
	var rejects []pipeline.Reject
	start, have, isEnd := 0, 0, false
	for have < len(data) && !isEnd {
		have = min(have+step+1, len(data))
		var n int
		n, isEnd = SplitRecords(data[start:have])
		res := b.Decode(Range{Offset: 12 + int64(start)}, data[start:start+n])
		rejects = append(rejects, res.Rejects...)
		start += n
	}
	if isEnd != closed || isEnd && start != end {
		t.Errorf("closed %v at %d, want %v at %d", isEnd, start, closed, end)
	}
	rest := b.Decode(Range{Offset: 12 + int64(start)}, data[start:end])
	rejects = append(rejects, rest.Rejects...)
	if diff := cmp.Diff(want, takeRows(t, b), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("rows (-whole +cut):\n%s", diff)
	}
	if diff := cmp.Diff(wantRes.Rejects, rejects, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("rejects (-whole +cut):\n%s", diff)
	}
}
