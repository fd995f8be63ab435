package window

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/pipeline"
)

// trafficFlows makes rows as decoders hand them over: NIC after NIC, each in the
// order of time, here five minutes of it.
func trafficFlows(rng *rand.Rand, n, hosts int) []flow {
	zipf := rand.NewZipf(rng, 1.1, 4, uint64(hosts-1))
	ports := []uint16{22, 53, 80, 123, 443, 445, 1433, 3306, 3389, 5432, 6379, 8080, 8443, 9090, 9200, 27017, 11211, 25}
	const nics = 20
	flows := make([]flow, n)
	for i := range flows {
		nic := i * nics / n
		within := i - nic*n/nics
		var src, dst [16]byte
		src[10], src[11], src[12] = 255, 255, 10
		dst[10], dst[11], dst[12] = 255, 255, 20
		binary.BigEndian.PutUint16(src[14:], uint16(zipf.Uint64()))
		binary.BigEndian.PutUint32(dst[12:], 20<<24|uint32(zipf.Uint64()))
		flows[i] = flow{
			time: midnight + int64(within)*300_000*nics/int64(n), mac: string(rune('A'+nic)) + "00D3A1B2C3D",
			src: netip.AddrFrom16(src), dst: netip.AddrFrom16(dst),
			srcPort: uint16(rng.Uint32()), dstPort: ports[rng.IntN(len(ports))], protocol: []uint8{6, 17}[rng.IntN(2)],
			direction: uint8(rng.IntN(2)), action: uint8(min(rng.IntN(10), 1)),
			acl: string(rune('a' + nic%3)), rule: string(rune('a' + rng.IntN(10))),
			packets: rng.Uint64N(1000), bytes: rng.Uint64N(100_000), packetsIn: rng.Uint64N(1000), bytesIn: rng.Uint64N(100_000),
		}
	}
	return flows
}

var counters = []string{"packets_sent", "bytes_sent", "packets_received", "bytes_received"}

// BenchmarkApply folds batches of 64 Ki rows; each round closes the windows of the
// batch before, so emission is in the figure.
func BenchmarkApply(b *testing.B) {
	services := Config{Name: "services", Size: time.Minute, GroupBy: []string{"dst_ip", "dst_port", "protocol"}, Sums: counters, MaxGroups: maxMaxGroups}
	for _, c := range []struct {
		name  string
		cfg   []Config
		hosts int
	}{
		{"dst_port_protocol/4k_hosts", []Config{services}, 4000},
		{"dst_port_protocol/100_hosts", []Config{services}, 100},
		{"dst_port_protocol/1M_hosts", []Config{services}, 1 << 20},
		{"dst_port_protocol/1M_hosts_overflow", []Config{{Name: "few", Size: time.Minute, GroupBy: services.GroupBy, Sums: counters, MaxGroups: 1000}}, 1 << 20},
		{"traffic_1m", DefaultWindows()[:1], 4000},
		{"rules_5m", DefaultWindows()[2:], 4000},
		{"default", DefaultWindows(), 4000},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkApply(b, c.cfg, c.hosts) })
	}
}

func benchmarkApply(b *testing.B, cfg []Config, hosts int) {
	const rows, batches = 1 << 16, 4
	rng := rand.New(rand.NewPCG(1, 20))
	var records []arrow.Record
	for range batches {
		records = append(records, record(memory.DefaultAllocator, trafficFlows(rng, rows, hosts)))
	}
	o, err := New(cfg, memory.DefaultAllocator)
	if err != nil {
		b.Fatal(err)
	}
	out := int64(0)
	b.ReportAllocs()
	n, before := 0, cpuTime()
	for b.Loop() {
		// Event time goes on by letting the watermark stand: the same five minutes fill,
		// and close once in four batches as if late.
		in := pipeline.OperatorInput{Batch: pipeline.BatchID(n), Flows: records[n%batches : n%batches+1]}
		if n%batches == batches-1 {
			in.Watermark = pipeline.EndOfInput
		}
		pieces, err := o.Apply(in)
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range pieces {
			out += p.Rows
			p.Record.Release()
		}
		o.watermark = 0
		n++
	}
	b.ReportMetric(float64(rows)*float64(n)/b.Elapsed().Seconds()/1e6, "Mrow/s")
	// What a core does, also when others use it.
	b.ReportMetric(float64(rows)*float64(n)/(cpuTime()-before).Seconds()/1e6, "Mrow/cpu-s")
	b.ReportMetric(float64(out)/float64(n)*batches, "groups/close")
}

// BenchmarkFlood folds rows of keys that come once, into a table at its limit.
func BenchmarkFlood(b *testing.B) {
	const rows = 1 << 16
	cfg := DefaultWindows()[1]
	rng := rand.New(rand.NewPCG(1, 23))
	var records []arrow.Record
	for i := range 4 {
		flows := make([]flow, rows)
		for j := range flows {
			flows[j] = flow{time: midnight, src: address(0), dst: address(uint32(i*rows + j)), packets: rng.Uint64N(20), bytes: rng.Uint64N(1500)}
		}
		records = append(records, record(memory.DefaultAllocator, flows))
	}
	o := newOperator(b, []Config{cfg}, memory.DefaultAllocator)
	b.ReportAllocs()
	n, before := 0, cpuTime()
	for b.Loop() {
		in := pipeline.OperatorInput{Batch: pipeline.BatchID(n), Flows: records[n%4 : n%4+1]}
		if _, err := o.Apply(in); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(rows)*float64(n)/(cpuTime()-before).Seconds()/1e6, "Mrow/cpu-s")
}

// BenchmarkSnapshot writes and reads the state of the default windows after 256 Ki
// rows.
func BenchmarkSnapshot(b *testing.B) {
	o, err := New(DefaultWindows(), memory.DefaultAllocator)
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 22))
	in, release := input(b, memory.DefaultAllocator, 1, 0, trafficFlows(rng, 1<<18, 4000))
	defer release()
	if _, err := o.Apply(in); err != nil {
		b.Fatal(err)
	}
	snapshot, err := o.Snapshot()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(snapshot)))
		b.ReportMetric(float64(o.Stats().Groups), "groups")
		for b.Loop() {
			if _, err := o.Snapshot(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(snapshot)))
		for b.Loop() {
			if err := o.Restore(snapshot); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSortPairs compares the two ways of sorting a window's groups.
func BenchmarkSortPairs(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 21))
	pairs := make([]pair, 20_000)
	for i := range pairs {
		pairs[i] = pair{rng.Uint64() >> 24, uint32(i)}
	}
	scratch := make([]pair, len(pairs))
	b.Run("digits", func(b *testing.B) {
		for b.Loop() {
			copy(scratch, pairs)
			sortPairs(scratch)
		}
	})
	b.Run("compare", func(b *testing.B) {
		for b.Loop() {
			copy(scratch, pairs)
			slices.SortFunc(scratch, comparePairs)
		}
	})
}

// cpuTime is what the process has used of its cores, collection of garbage included.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
