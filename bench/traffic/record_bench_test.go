package traffic

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func BenchmarkRecord(b *testing.B) {
	e, err := NewEstate(DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	g := newGenerator(e)
	var buf []byte
	var bytes, tuples uint64
	w, i := noon.UnixMilli()/minuteMS, 0
	b.ReportAllocs()
	for b.Loop() {
		buf = g.record(buf[:0], e.nics[i%len(e.nics)], w, "", 0)
		bytes += uint64(len(buf))
		tuples += g.tally.tuples
		g.tally.reset()
		if i++; i%len(e.nics) == 0 {
			w++
		}
	}
	b.SetBytes(int64(bytes / uint64(b.N)))
	b.ReportMetric(float64(tuples)/b.Elapsed().Seconds(), "tuples/s")
	b.ReportMetric(float64(tuples)/float64(b.N), "tuples/record")
}
