package filter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// row is what filters look at.
type row struct {
	src, dst                 string
	srcPort, dstPort         uint16
	protocol                 uint8
	direction, state, action string
	mac, rule                string
}

// record makes a record batch; the caller releases it.
func record(alloc memory.Allocator, rs []row) arrow.Record {
	b := array.NewRecordBuilder(alloc, schemas.Flows.ArrowSchema())
	defer b.Release()
	for i, r := range rs {
		for at, c := range schemas.Flows.Columns {
			appendValue(b.Field(at), c.Name, r, i)
		}
	}
	return b.NewRecord()
}

func appendValue(b array.Builder, column string, r row, i int) {
	switch b := b.(type) {
	case *array.BinaryDictionaryBuilder:
		text := map[string]string{"direction": r.direction, "state": r.state, "action": r.action, "mac": r.mac, "rule": r.rule}[column]
		if err := b.AppendString(text); err != nil {
			panic(err)
		}
	case *array.FixedSizeBinaryBuilder:
		a := netip.MustParseAddr(map[string]string{"src_ip": r.src, "dst_ip": r.dst}[column]).As16()
		b.Append(a[:])
	case *array.Uint16Builder:
		b.Append(map[string]uint16{"src_port": r.srcPort, "dst_port": r.dstPort}[column])
	case *array.Uint8Builder:
		b.Append(r.protocol)
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(i))
	case *array.Uint32Builder:
		b.Append(uint32(i))
	case *array.Uint64Builder:
		b.Append(uint64(i))
	}
}

func yes() *bool { v := true; return &v }
func no() *bool  { v := false; return &v }

var base = row{
	src: "10.0.0.4", dst: "203.0.113.7", srcPort: 50000, dstPort: 443, protocol: 6,
	direction: "outbound", state: "begin", action: "allowed", mac: "000D3A926A7C", rule: "DefaultRule_AllowInternetOutBound",
}

func with(change func(*row)) row {
	r := base
	change(&r)
	return r
}

func TestConditions(t *testing.T) {
	for _, c := range []struct {
		name   string
		filter Config
		fit    []row
		not    []row
	}{
		{"nothing", Config{}, []row{base}, nil},
		{"src", Config{Src: []string{"10.0.0.0/8", "2001:db8::/32"}}, []row{base, with(func(r *row) { r.src = "2001:db8::1" })}, []row{with(func(r *row) { r.src = "11.0.0.4" }), with(func(r *row) { r.src, r.dst = r.dst, r.src })}},
		{"dst", Config{Dst: []string{"203.0.113.7"}}, []row{base}, []row{with(func(r *row) { r.dst = "203.0.113.8" })}},
		{"either", Config{Either: []string{"203.0.113.0/24"}}, []row{base, with(func(r *row) { r.src, r.dst = r.dst, r.src })}, []row{with(func(r *row) { r.dst = "198.51.100.1" })}},
		{"mapped prefix", Config{Src: []string{"::ffff:10.0.0.0/104"}}, []row{base}, []row{with(func(r *row) { r.src = "11.0.0.4" })}},
		{"all of IPv4", Config{Src: []string{"0.0.0.0/0"}}, []row{base}, []row{with(func(r *row) { r.src = "2001:db8::1" })}},
		{"file", Config{DstFile: "list"}, []row{base}, []row{with(func(r *row) { r.dst = "203.0.113.8" })}},
		{"empty file", Config{SrcFile: "empty"}, nil, []row{base}},
		{"src_port", Config{SrcPort: []string{"50000"}}, []row{base}, []row{with(func(r *row) { r.srcPort = 50001 })}},
		{"dst_port", Config{DstPort: []string{"80", "440-443"}}, []row{base, with(func(r *row) { r.dstPort = 440 })}, []row{with(func(r *row) { r.dstPort = 444 })}},
		{"either_port", Config{EitherPort: []string{"443"}}, []row{base, with(func(r *row) { r.srcPort, r.dstPort = 443, 1 })}, []row{with(func(r *row) { r.dstPort = 65535 })}},
		{"all ports", Config{DstPort: []string{"0-65535"}}, []row{base, with(func(r *row) { r.dstPort = 0 })}, nil},
		{"protocol", Config{Protocol: []string{"TCP", "47"}}, []row{base, with(func(r *row) { r.protocol = 47 })}, []row{with(func(r *row) { r.protocol = 17 })}},
		{"direction", Config{Direction: []string{"outbound"}}, []row{base}, []row{with(func(r *row) { r.direction = "inbound" })}},
		{"state", Config{State: []string{"begin", "denied"}}, []row{base}, []row{with(func(r *row) { r.state = "continuing" })}},
		{"action", Config{Action: []string{"allowed"}}, []row{base}, []row{with(func(r *row) { r.action = "denied" })}},
		{"mac", Config{MAC: []string{"00-0d-3a-92-6a-7c"}}, []row{base}, []row{with(func(r *row) { r.mac = "000D3A926A7D" })}},
		{"rule", Config{Rule: []string{"DefaultRule_*", "x"}}, []row{base, with(func(r *row) { r.rule = "x" })}, []row{with(func(r *row) { r.rule = "xy" })}},
		{"all at once", Config{Src: []string{"10.0.0.0/8"}, DstPort: []string{"443"}, State: []string{"begin"}}, []row{base}, []row{with(func(r *row) { r.dstPort = 80 }), with(func(r *row) { r.state = "end" })}},
	} {
		t.Run(c.name, func(t *testing.T) {
			alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
			defer alloc.AssertSize(t, 0)
			c.filter.Name, c.filter.Drop = "it", yes()
			f, err := New([]Config{c.filter}, map[string][]byte{"list": []byte("\uFEFF# ours\n\n203.0.113.7 # web\r\n2001:db8::/48\n"), "empty": []byte("# nothing\n")})
			if err != nil {
				t.Fatal(err)
			}
			rec := record(alloc, slices.Concat(c.not, c.fit, c.not))
			defer rec.Release()
			for _, f := range []*Filters{f, restored(t, f)} {
				got, err := f.Apply(alloc, rec)
				if err != nil {
					t.Fatal(err)
				}
				defer got.Flows.Release()
				var want []pipeline.Dropped
				if len(c.fit) > 0 {
					want = []pipeline.Dropped{{Name: "it", Rows: int64(len(c.fit))}}
				}
				if diff := cmp.Diff(want, got.Dropped); diff != "" || got.Flows.NumRows() != int64(2*len(c.not)) {
					t.Errorf("%d rows left (-want +got):\n%s", got.Flows.NumRows(), diff)
				}
			}
		})
	}
}

func restored(t *testing.T, f *Filters) *Filters {
	t.Helper()
	again, err := Restore(f.Recipe())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestFirstMatchDecides(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	f, err := New([]Config{
		{Name: "dns", Drop: no(), DstPort: []string{"53"}},
		{Name: "internal", Drop: yes(), Dst: []string{"10.0.0.0/8"}},
		{Name: "web", Drop: no(), DstPort: []string{"443"}},
		{Name: "rest", Drop: yes()},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := record(alloc, []row{
		base, // web
		with(func(r *row) { r.dst, r.dstPort = "10.1.1.1", 53 }), // dns, though internal
		with(func(r *row) { r.dst = "10.1.1.1" }),                // internal, though web
		with(func(r *row) { r.dstPort = 25 }),                    // rest
		with(func(r *row) { r.dst, r.dstPort = "10.1.1.1", 25 }), // internal
		with(func(r *row) { r.dst, r.dstPort = "198.51.100.1", 443 }),
	})
	defer rec.Release()
	got, err := f.Apply(alloc, rec)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Flows.Release()
	if diff := cmp.Diff([]pipeline.Dropped{{Name: "internal", Rows: 2}, {Name: "rest", Rows: 1}}, got.Dropped); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int32{0, 1, 5}, got.Kept); diff != "" {
		t.Error(diff)
	}
	ordinals := got.Flows.Column(schemas.Flows.Index("ordinal")).(*array.Uint32).Uint32Values()
	if diff := cmp.Diff([]uint32{0, 1, 5}, ordinals); diff != "" {
		t.Error(diff)
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	err := Validate([]Config{
		{Name: "Bad Name"},
		{Name: "a", Drop: yes(), Src: []string{"10.0.0.1/8", "nonsense"}, Dst: []string{"fe80::1%eth0"}, SrcPort: []string{"70000"}, DstPort: []string{"9-1", "x", "80"}},
		{Name: "a", Drop: no(), Protocol: []string{"sctp", "256", "132"}, Direction: []string{"in"}, State: []string{"began"}, Action: []string{"accept"}, MAC: []string{"00:0D"}, Rule: []string{"a*b", ""}},
		{Name: "all", Drop: yes()},
		{Name: "behind", Drop: yes()},
	})
	if err == nil {
		t.Fatal("no faults found")
	}
	want := []string{
		`filters[0].name: "Bad Name", want 1 to 48 of a-z, 0-9 and _, a letter first`,
		`filters[0].drop: missing: true leaves rows that fit out, false keeps them`,
		`filters[1]: no row comes here: every row fits filters[0], which has no conditions`,
		`filters[1].src[0]: "10.0.0.1/8" has bits behind the prefix, want 10.0.0.0/8`,
		`filters[1].src[1]: "nonsense" is no address or CIDR prefix such as 10.1.0.0/16`,
		`filters[1].dst[0]: "fe80::1%eth0" has a zone, want an address without one`,
		`filters[1].src_port[0]: "70000", want a port from 0 to 65535, or a range such as 8000-8999`,
		`filters[1].dst_port[0]: "9-1", want a port from 0 to 65535, or a range such as 8000-8999`,
		`filters[1].dst_port[1]: "x", want a port from 0 to 65535, or a range such as 8000-8999`,
		`filters[2].name: "a" is already the name of filters[1]`,
		`filters[2]: no row comes here: every row fits filters[0], which has no conditions`,
		`filters[2].protocol[0]: "sctp", want tcp, udp, icmp, icmpv6, or a number from 0 to 255`,
		`filters[2].protocol[1]: "256", want tcp, udp, icmp, icmpv6, or a number from 0 to 255`,
		`filters[2].direction[0]: "in", want one of inbound, outbound`,
		`filters[2].state[0]: "began", want one of begin, continuing, end, denied, unknown`,
		`filters[2].action[0]: "accept", want one of allowed, denied`,
		`filters[2].mac[0]: want a MAC address such as 00:0D:3A:92:6A:7C`,
		`filters[2].rule[0]: "a*b", want a name, with a * at its end at most`,
		`filters[2].rule[1]: "", want a name, with a * at its end at most`,
		`filters[3]: no row comes here: every row fits filters[0], which has no conditions`,
		`filters[4]: no row comes here: every row fits filters[3], which has no conditions`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if err := Validate([]Config{{Name: "rest", Drop: yes()}}); err != nil {
		t.Error(err)
	}
}

func TestFilesAreReportedByLine(t *testing.T) {
	cfg := []Config{{Name: "a", Drop: yes(), SrcFile: "bad.txt", EitherFile: "bad.txt", Dst: []string{"10.0.0.0/8"}, DstFile: "good.txt"}}
	if diff := cmp.Diff([]string{"bad.txt", "good.txt"}, Files(cfg)); diff != "" {
		t.Error(diff)
	}
	_, err := New(cfg, map[string][]byte{"bad.txt": []byte("10.0.0.0/8\n\nfoo\n10.0.0.1/24 # x\n" + strings.Repeat("x\n", 30)), "good.txt": []byte("::1")})
	for _, want := range []string{
		`filters[0].src_file: file "bad.txt": line 3: "foo" is no address`,
		`line 4: "10.0.0.1/24" has bits behind the prefix, want 10.0.0.0/24`,
		`filters[0].either_file: file "bad.txt": 12 more lines with faults`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestRecipe(t *testing.T) {
	make := func(list string) *Filters {
		f, err := New([]Config{{Name: "a", Drop: yes(), SrcFile: "list"}}, map[string][]byte{"list": []byte(list)})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one, same, other := make("10.0.0.0/8\n::1"), make("::1 # comment\n10.0.0.0/8\n10.0.0.0/8\n"), make("10.0.0.0/8\n::2")
	if pipeline.Hash(one.Recipe()) != pipeline.Hash(same.Recipe()) || pipeline.Hash(one.Recipe()) == pipeline.Hash(other.Recipe()) {
		t.Errorf("recipes\n%s\n%s\n%s", one.Recipe(), same.Recipe(), other.Recipe())
	}
	if _, err := Restore([]byte(`{"format":2}`)); err == nil || !strings.Contains(err.Error(), "format 2, this program knows 1") {
		t.Errorf("another format gives %v", err)
	}
}

// Law: what is kept agrees with a row-by-row reading of the configuration.
func TestApplyAgreesWithReference(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	rng := rand.New(rand.NewPCG(7, 7))
	rs := randomRows(rng, 5000)
	rec := record(alloc, rs)
	defer rec.Release()
	for round := range 60 {
		var cfg []Config
		for i := range 1 + rng.IntN(5) {
			cfg = append(cfg, randomFilter(rng, fmt.Sprintf("f%d", i)))
		}
		f, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Apply(alloc, rec)
		if err != nil {
			t.Fatal(err)
		}
		var want []int32
		for i, r := range rs {
			if !reference(cfg, r) {
				want = append(want, int32(i))
			}
		}
		if got.Kept == nil {
			got.Kept = allRows(len(rs))
		}
		if !slices.Equal(want, got.Kept) || got.Flows.NumRows() != int64(len(want)) {
			t.Fatalf("round %d: %d of %d rows kept for %+v", round, len(got.Kept), len(want), cfg)
		}
		got.Flows.Release()
	}
}

func allRows(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

func randomRows(rng *rand.Rand, n int) []row {
	rs := make([]row, n)
	for i := range rs {
		rs[i] = row{
			src: fmt.Sprintf("10.%d.%d.%d", rng.IntN(4), rng.IntN(4), rng.IntN(256)), dst: fmt.Sprintf("203.0.%d.%d", rng.IntN(4), rng.IntN(256)),
			srcPort: uint16(rng.IntN(65536)), dstPort: uint16(rng.IntN(1000)), protocol: uint8(1 + rng.IntN(20)),
			direction: schemas.Directions[rng.IntN(2)], state: schemas.States[rng.IntN(5)], action: schemas.Actions[rng.IntN(2)],
			mac: fmt.Sprintf("%012X", rng.IntN(20)), rule: fmt.Sprintf("rule%d", rng.IntN(30)),
		}
		if rng.IntN(10) == 0 {
			rs[i].src = fmt.Sprintf("2001:db8::%x", rng.IntN(1000))
		}
	}
	return rs
}

func randomFilter(rng *rand.Rand, name string) Config {
	drop := rng.IntN(2) == 0
	c := Config{Name: name, Drop: &drop, DstPort: []string{fmt.Sprintf("%d-%d", rng.IntN(500), 500+rng.IntN(500))}}
	maybe := func(set func()) {
		if rng.IntN(3) == 0 {
			set()
		}
	}
	maybe(func() { c.Src = []string{fmt.Sprintf("10.%d.0.0/16", rng.IntN(4)), "2001:db8::/120"} })
	maybe(func() {
		c.Either = []string{fmt.Sprintf("203.0.%d.0/25", rng.IntN(4)), fmt.Sprintf("10.%d.0.0/18", rng.IntN(4))}
	})
	maybe(func() { c.Protocol = []string{"tcp", "udp", "3"} })
	maybe(func() { c.State = []string{"begin", "denied"} })
	maybe(func() { c.Direction = []string{"inbound"} })
	maybe(func() { c.MAC = []string{"000000000001", "00000000000F"} })
	maybe(func() { c.Rule = []string{"rule1*", "rule7"} })
	return c
}

// reference says whether the row is dropped, in the plainest way.
func reference(cfg []Config, r row) bool {
	in := func(list []string, addrs ...string) bool {
		return list == nil || slices.ContainsFunc(list, func(p string) bool {
			return slices.ContainsFunc(addrs, func(a string) bool { return netip.MustParsePrefix(p).Contains(netip.MustParseAddr(a)) })
		})
	}
	oneOf := func(list []string, v string) bool { return list == nil || slices.Contains(list, v) }
	for _, c := range cfg {
		var lo, hi uint16
		if _, err := fmt.Sscanf(c.DstPort[0], "%d-%d", &lo, &hi); err != nil {
			panic(err)
		}
		fits := r.dstPort >= lo && r.dstPort <= hi && in(c.Src, r.src) && in(c.Either, r.src, r.dst) &&
			(c.Protocol == nil || r.protocol == 6 || r.protocol == 17 || r.protocol == 3) &&
			oneOf(c.State, r.state) && oneOf(c.Direction, r.direction) && oneOf(c.MAC, r.mac) &&
			(c.Rule == nil || strings.HasPrefix(r.rule, "rule1") || r.rule == "rule7")
		if fits {
			return *c.Drop
		}
	}
	return false
}

// BenchmarkApply filters 100,000 rows.
func BenchmarkApply(b *testing.B) {
	alloc := memory.NewGoAllocator()
	rec := record(alloc, randomRows(rand.New(rand.NewPCG(1, 1)), 100_000))
	defer rec.Release()
	many := make([]string, 2000)
	for i := range many {
		many[i] = fmt.Sprintf("203.%d.%d.0/24", i/256, i%256)
	}
	for _, c := range []struct {
		name string
		cfg  []Config
	}{
		{"state", []Config{{Name: "a", Drop: yes(), State: []string{"continuing"}}}},
		{"ports", []Config{{Name: "a", Drop: yes(), EitherPort: []string{"53", "123"}}}},
		{"src", []Config{{Name: "a", Drop: yes(), Src: []string{"10.1.0.0/16"}}}},
		{"either of 2000", []Config{{Name: "a", Drop: yes(), Either: many}}},
		{"five filters", []Config{
			{Name: "a", Drop: no(), State: []string{"denied"}},
			{Name: "b", Drop: yes(), EitherPort: []string{"53"}, Protocol: []string{"udp"}},
			{Name: "c", Drop: yes(), Src: []string{"10.1.0.0/16"}, Dst: []string{"203.0.1.0/24"}},
			{Name: "d", Drop: yes(), Rule: []string{"rule1*"}},
			{Name: "e", Drop: yes(), Dst: []string{"203.0.2.0/24"}},
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, err := New(c.cfg, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				got, err := f.Apply(alloc, rec)
				if err != nil {
					b.Fatal(err)
				}
				got.Flows.Release()
			}
			b.ReportMetric(float64(rec.NumRows())*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrow/s")
		})
	}
}
