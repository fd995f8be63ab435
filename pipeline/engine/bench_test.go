package engine_test

import (
	"context"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline/engine"
)

// BenchmarkEngine is the way of 200 blobs with 40 records each into a target in
// memory, without telemetry: what tracing costs a pipeline that nobody watches shows
// here, compared with the commit before.
func BenchmarkEngine(b *testing.B) {
	e := newEstate(8, 200)
	for range 40 {
		e.grow()
	}
	bytes := 0
	for id := range e.regions {
		bytes += len(e.regions[id])
	}
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		b.StopTimer()
		s := newTarget()
		s.steady = true
		eng, stop := startWith(b, b.TempDir()+"/ledger", e, s, memory.DefaultAllocator, func(c *engine.Config) { c.Shard.MaxBatchAge *= 5 })
		b.StartTimer()
		eng.Drain(true) // at once: the sweep finds all blobs
		if err := eng.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		stop()
		if rows += len(s.addresses); len(s.addresses) != e.written {
			b.Fatalf("%d of %d tuples landed", len(s.addresses), e.written)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
