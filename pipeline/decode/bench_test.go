//go:build unix

package decode

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"golang.org/x/sys/unix"
)

func BenchmarkDecode(b *testing.B) {
	vnet := estate(60)
	nsg, _ := region(b, sample(b, "nsg-connector-v1-large.json"))
	for _, c := range []struct {
		name string
		data []byte
	}{{"vnet", vnet}, {"nsg", nsg}} {
		b.Run(c.name, func(b *testing.B) {
			batch := NewBatch(memory.NewGoAllocator())
			rows := batch.Decode(Range{Blob: "blob"}, c.data).Rows // the room is there from now on
			b.SetBytes(int64(len(c.data)))
			b.ReportAllocs()
			cpu := cpuTime()
			for b.Loop() {
				batch.n = 0
				if res := batch.Decode(Range{Blob: "blob"}, c.data); res.Rows != rows {
					b.Fatalf("%d rows, want %d", res.Rows, rows)
				}
			}
			reportCPU(b, cpu, len(c.data))
			batch.Release()
		})
	}
}

// BenchmarkReader adds reading in chunks and making record batches.
func BenchmarkReader(b *testing.B) {
	data := append(append([]byte(`{"records":[`), estate(60)...), `]}`...)
	batch := NewBatch(NewRecycler(memory.NewGoAllocator(), 64<<20))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	cpu := cpuTime()
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(data), Range{Blob: "blob"})
		for err == nil {
			_, err = r.Next(batch)
			if rec := batch.Take(0); rec != nil {
				rec.Release()
			}
		}
		if err != io.EOF { //nolint:errorlint // the contract.
			b.Fatal(err)
		}
	}
	reportCPU(b, cpu, len(data))
}

// reportCPU gives the rate by processor time: on a busy machine the clock on the
// wall says little.
func reportCPU(b *testing.B, since time.Duration, size int) {
	if used := cpuTime() - since; used > 0 {
		b.ReportMetric(float64(size)*float64(b.N)/used.Seconds()/1e6, "cpu-MB/s")
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkSplitRecords(b *testing.B) {
	data := estate(20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if end, _ := SplitRecords(data); end != len(data) {
			b.Fatalf("end %d, want %d", end, len(data))
		}
	}
}
