package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
)

// Limits of cardinality.
const (
	maxRSSMiB     = 1024
	minRecall     = 0.99
	minThroughput = 0.5
)

// cardinalityResult holds, of the orders in which keys come, the worst.
type cardinalityResult struct {
	Keys       int     `json:"keys"` // distinct, in each order at least
	Rows       int64   `json:"rows"`
	RSSMiB     float64 `json:"rss_mib"`
	Totals     bool    `json:"totals_exact"`
	Recall     float64 `json:"top100_recall"`
	BytesTop   float64 `json:"top100_bytes_recall"`
	Overflow   int64   `json:"overflow_rows"` // flow rows in overflow groups
	Flagged    bool    `json:"flagged"`
	Throughput float64 `json:"throughput_ratio"` // against ordinary rows
	Normal     float64 `json:"normal_mrows_per_cpu_second"`
	Seconds    float64 `json:"seconds"`
}

func (r cardinalityResult) missed() (faults []string) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	check(r.RSSMiB <= maxRSSMiB, "rss_mib %.0f, want at most %d", r.RSSMiB, maxRSSMiB)
	check(r.Totals, "totals are not exact")
	check(r.Recall >= minRecall, "top100_recall %.2f, want at least %.2f", r.Recall, minRecall)
	check(r.BytesTop >= minRecall, "top100_bytes_recall %.2f, want at least %.2f", r.BytesTop, minRecall)
	check(r.Flagged, "the overflow is not flagged")
	check(r.Throughput >= minThroughput, "throughput_ratio %.2f, want at least %.2f", r.Throughput, minThroughput)
	return faults
}

// cardinality floods a window of the default tables with distinct keys, in three
// orders. The table that has a group for each key is services_1m.
func cardinality(ctx context.Context, keys int, progress io.Writer) (cardinalityResult, error) {
	began := time.Now()
	r := cardinalityResult{Keys: keys, Totals: true, Recall: 1, BytesTop: 1, Flagged: true, Throughput: 1}
	heavy := func(rng *rand.Rand) []row { return heavyRows(rng, keys, keys/500) }
	for _, order := range []struct {
		name   string
		stream func(rng *rand.Rand) stream
	}{
		{ordinaryOrder, func(rng *rand.Rand) stream { return ordinary(rng, ordinaryKeys, keys+keys/5) }},
		{"late", func(rng *rand.Rand) stream { return scattered(rng, keys, heavy(rng), 0.8) }},
		{"uniform", func(rng *rand.Rand) stream { return scattered(rng, keys, heavy(rng), 0) }},
		{"zipf", func(rng *rand.Rand) stream { return zipf(rng, keys) }},
	} {
		minutes := 1 << 30 // rows of a minute
		if order.name == ordinaryOrder {
			minutes = ordinaryRows
		}
		f, err := flood(ctx, order.stream(rand.New(rand.NewPCG(1, 90))), keys, minutes)
		if err != nil {
			return r, fmt.Errorf("keys in the order %q: %w", order.name, err)
		}
		fmt.Fprintf(progress, "%-8s %8d keys, %8d rows, %5.2f million a second of a core", order.name, f.keys, f.rows, f.speed)
		r.Rows += f.rows
		r.Totals = r.Totals && f.exact
		if order.name == ordinaryOrder {
			r.Normal = f.speed
			r.Flagged = !f.flagged && f.overflow == 0
			fmt.Fprintln(progress)
			continue
		}
		fmt.Fprintf(progress, ", top 100 by rows %.2f, by bytes %.2f, %d rows in overflow\n", f.recall, f.bytesRecall, f.overflow)
		r.Keys = f.keys
		r.Recall, r.BytesTop = min(r.Recall, f.recall), min(r.BytesTop, f.bytesRecall)
		r.Overflow += f.overflow
		r.Flagged = r.Flagged && f.flagged
		r.Throughput = min(r.Throughput, f.speed/r.Normal)
	}
	var err error
	r.RSSMiB, err = peakMiB()
	r.Seconds = time.Since(began).Seconds()
	return r, err
}

// Ordinary rows are what throughput is compared with: a window closes every so many
// rows, and has so many keys, for which services_1m has room while two are open.
const (
	ordinaryOrder = "ordinary"
	ordinaryRows  = 4 * batchRows
	ordinaryKeys  = 50_000
)

// found is what one order of keys came to.
type found struct {
	keys                int
	rows, overflow      int64
	speed               float64 // million rows a second of processor time
	exact, flagged      bool
	recall, bytesRecall float64

	sums   map[string][3]uint64 // by table: rows, packets, bytes
	groups []group              // of the flooded table
}

// truth counts what the operator is given, key by key.
type truth struct {
	rows                   []uint32
	bytes                  []uint64
	sumPackets, sumOfBytes uint64
}

// windowStart is a minute of a day in 2026.
const windowStart = 1_795_392_000_000

// flood gives the rows of a stream to an operator, so many a minute, and compares its
// windows.
func flood(ctx context.Context, next stream, keys, minute int) (found, error) {
	o, err := window.New(window.DefaultWindows(), memory.DefaultAllocator)
	if err != nil {
		return found{}, err
	}
	defer o.Release()
	f := found{sums: map[string][3]uint64{}}
	t := &truth{rows: make([]uint32, max(keys, ordinaryKeys)+2*heavies), bytes: make([]uint64, max(keys, ordinaryKeys)+2*heavies)}
	batch := newFlows()
	spent := time.Duration(0)
	apply := func(seq int, n int, w pipeline.Watermark) ([]pipeline.Piece, error) {
		rec := batch.record(n)
		defer rec.Release()
		before := cpuTime()
		pieces, err := o.Apply(pipeline.OperatorInput{Batch: pipeline.NewBatchID(1, 0, uint64(seq)), Flows: []arrow.Record{rec}, Watermark: w})
		spent += cpuTime() - before
		return pieces, err
	}
	for seq := 1; ; seq++ {
		start := windowStart + f.rows/int64(minute)*60_000
		n := t.fill(batch, next, start)
		f.rows += int64(n)
		w := pipeline.Watermark(start)
		if n < batchRows {
			w = pipeline.EndOfInput
		}
		pieces, err := apply(seq, n, w)
		if err != nil || ctx.Err() != nil {
			return found{}, cmp.Or(err, ctx.Err())
		}
		f.take(pieces)
		if n < batchRows {
			f.overflow = o.Stats().OverflowRows
			f.speed = float64(f.rows) / spent.Seconds() / 1e6
			f.compare(t)
			return f, nil
		}
	}
}

// fill takes the rows of one batch out of the stream.
func (t *truth) fill(batch *flows, next stream, start int64) (n int) {
	for ; n < batchRows; n++ {
		r, ok := next()
		if !ok {
			break
		}
		batch.set(n, start+int64(n)%60_000, r.key, r.packets, r.bytes)
		t.rows[r.key]++
		t.bytes[r.key] += r.bytes
		t.sumPackets += r.packets
		t.sumOfBytes += r.bytes
	}
	return n
}

// group is a row of the window table.
type group struct {
	key         uint32
	rows, bytes uint64
}

// take reads the rows of window tables, and releases the pieces.
func (f *found) take(pieces []pipeline.Piece) {
	for _, p := range pieces {
		sums := f.sums[p.Table]
		each(p.Record, func(g group, packets uint64, overflow bool) {
			sums[0], sums[1], sums[2] = sums[0]+g.rows, sums[1]+packets, sums[2]+g.bytes
			switch {
			case overflow:
				f.flagged = true
			case p.Table == flooded:
				f.groups = append(f.groups, g)
			}
		})
		f.sums[p.Table] = sums
		p.Record.Release()
	}
}

// compare holds the window tables against the truth.
func (f *found) compare(t *truth) {
	f.exact = len(f.sums) == len(window.DefaultWindows())
	for _, sums := range f.sums {
		f.exact = f.exact && sums == [3]uint64{uint64(f.rows), t.sumPackets, t.sumOfBytes}
	}
	real := make([]group, 0, len(t.rows))
	for key, n := range t.rows {
		if n > 0 {
			real = append(real, group{uint32(key), uint64(n), t.bytes[key]})
		}
	}
	f.keys = len(real)
	f.recall = recall(real, f.groups, func(g group) uint64 { return g.rows })
	f.bytesRecall = recall(real, f.groups, func(g group) uint64 { return g.bytes })
}

const flooded = "windows_services_1m"

// each gives the rows of a window table.
func each(rec arrow.Record, visit func(g group, packets uint64, overflow bool)) {
	column := func(name string) arrow.Array { return rec.Column(rec.Schema().FieldIndices(name)[0]) }
	values := func(name string) []uint64 { return column(name).(*array.Uint64).Uint64Values() }
	rows, packets, bytes := values("rows"), values("packets_sent"), values("bytes_sent")
	overflow := column("overflow").(*array.Uint8)
	for i := range rows {
		g := group{rows: rows[i], bytes: bytes[i]}
		if rec.Schema().HasField("dst_ip") {
			g.key = binary.BigEndian.Uint32(column("dst_ip").(*array.FixedSizeBinary).Value(i)[12:])
		}
		visit(g, packets[i], overflow.Value(i) == 1)
	}
}

// recall says how many of the hundred heaviest keys are among the hundred heaviest
// groups.
func recall(real, groups []group, weight func(group) uint64) float64 {
	heaviest := func(all []group) []group {
		slices.SortFunc(all, func(a, b group) int {
			return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a.key, b.key))
		})
		return all[:min(100, len(all))]
	}
	top := map[uint32]bool{}
	for _, g := range heaviest(groups) {
		top[g.key] = true
	}
	hit, want := 0, heaviest(real)
	for _, g := range want {
		if top[g.key] {
			hit++
		}
	}
	return float64(hit) / float64(len(want))
}
