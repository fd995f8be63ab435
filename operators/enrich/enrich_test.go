package enrich

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/schemas"
)

const target = "/subscriptions/5A/resourceGroups/Web-RG/providers/Microsoft.Network/virtualNetworks/hub/subnets/front"

// flows decodes tuples "source,destination,I or O" of one network interface; the
// caller releases the record.
func flows(alloc memory.Allocator, mac, target string, tuples ...string) arrow.Record {
	b := decode.NewBatch(alloc)
	var text []string
	for i, tuple := range tuples {
		f := strings.Split(tuple, ",")
		text = append(text, fmt.Sprintf(`"%d,%s,%s,%d,443,6,%s,E,NX,1,2,3,4"`, 1795392000000+i, f[0], f[1], i%65536, f[2]))
	}
	result := b.Decode(decode.Range{Blob: "a/c/p"}, fmt.Appendf(nil, `{"category":"FlowLogFlowEvent","flowLogVersion":4,"macAddress":%q,"targetResourceID":%q,"flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"r","flowTuples":[%s]}]}]}}`,
		mac, target, strings.Join(text, ",")))
	if result.Rows != len(tuples) {
		panic(fmt.Sprintf("%d of %d tuples: %+v", result.Rows, len(tuples), result.Rejects))
	}
	return b.Take(1)
}

// column gives the texts of a column of an enriched record.
func column(rec arrow.Record, name string) []string {
	c := rec.Column(schemas.EnrichedFlows.Index(name))
	var out []string
	for i := range c.Len() {
		out = append(out, c.ValueStr(i))
	}
	return out
}

func want(t *testing.T, rec arrow.Record, name string, values ...string) {
	t.Helper()
	if diff := cmp.Diff(values, column(rec, name), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func apply(t *testing.T, e *Enricher, alloc memory.Allocator, rec arrow.Record) arrow.Record {
	t.Helper()
	got, err := e.Apply(alloc, rec)
	if err != nil {
		t.Fatal(err)
	}
	if got.Kept != nil || got.Dropped != nil || !got.Flows.Schema().Equal(schemas.EnrichedFlows.ArrowSchema()) {
		t.Errorf("transformed: %+v", got)
	}
	for i, c := range rec.Columns() {
		if !array.Equal(c, got.Flows.Column(i)) {
			t.Errorf("column %q changed", rec.ColumnName(i))
		}
	}
	return got.Flows
}

func TestWithoutFiles(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	e, err := New(Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := flows(alloc, "000D3A926A7C", target, "10.0.0.4,8.8.8.8,O", "168.63.129.16,10.0.0.4,I")
	defer rec.Release()
	got := apply(t, e, alloc, rec)
	defer got.Release()
	want(t, got, "subscription", "5A", "5A")
	want(t, got, "resource_group", "Web-RG", "Web-RG")
	want(t, got, "vnet", "hub", "hub")
	want(t, got, "subnet", "front", "front")
	want(t, got, "nic", "", "")
	want(t, got, "src_class", "private", "azure_platform")
	want(t, got, "dst_class", "public", "private")
	for _, c := range schemas.Enrichment[7:] {
		empty := ""
		if c.Arrow.ID() == arrow.UINT32 {
			empty = "0"
		}
		want(t, got, c.Name, empty, empty)
	}
}

func TestNames(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	file := "\uFEFFcidr,MAC , name,vnet,subnet,owner,tags\r\n" +
		"10.0.0.0/8,,everything,,,network,\n" +
		"10.1.0.0/16,,,hub,,,\"env=prod, tier=0\"\n" +
		"\n10.1.2.0/24,,,,web,shop,\n" +
		"10.1.2.3,,vip,,,,\n" +
		"2001:db8::/32,,doc,,,,\n" +
		",00-0d-3a-92-6a-7c,vm1,,,Müller,\n"
	cfg := Config{NamesFile: "names.csv"}
	e, err := New(cfg, map[string][]byte{"names.csv": []byte(file)})
	if err != nil {
		t.Fatal(err)
	}
	rec := flows(alloc, "000D3A926A7C", "", "10.1.2.3,10.1.2.4,O", "10.9.9.9,10.1.9.9,I", "2001:db8::1,192.0.2.1,I")
	defer rec.Release()
	again, err := Restore(e.Recipe(), func(hash string) ([]byte, error) { return e.Data()[hash], nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Enricher{e, again} {
		got := apply(t, e, alloc, rec)
		defer got.Release()
		// Outbound: the MAC's network interface is the source; inbound, the destination.
		want(t, got, "src_name", "vm1", "everything", "doc")
		want(t, got, "dst_name", "everything", "vm1", "vm1")
		want(t, got, "src_vnet", "hub", "", "")
		want(t, got, "dst_vnet", "hub", "hub", "")
		want(t, got, "src_subnet", "web", "", "")
		want(t, got, "dst_subnet", "web", "", "")
		want(t, got, "src_owner", "Müller", "network", "")
		want(t, got, "dst_owner", "shop", "Müller", "Müller")
		want(t, got, "src_tags", "env=prod, tier=0", "", "")
		want(t, got, "dst_tags", "env=prod, tier=0", "env=prod, tier=0", "")
		want(t, got, "subscription", "", "", "")
	}
	// A part of a record batch, and one without rows.
	for _, bounds := range [][2]int64{{1, 3}, {3, 3}} {
		slice := rec.NewSlice(bounds[0], bounds[1])
		defer slice.Release()
		got := apply(t, e, alloc, slice)
		defer got.Release()
		want(t, got, "dst_name", []string{"everything", "vm1", "vm1"}[bounds[0]:bounds[1]]...)
		want(t, got, "src_class", []string{"private", "private", "documentation"}[bounds[0]:bounds[1]]...)
	}
	if string(e.Recipe()) != string(again.Recipe()) {
		t.Errorf("recipe %s became %s", e.Recipe(), again.Recipe())
	}
	lost := errors.New("lost")
	if _, err := Restore(e.Recipe(), func(string) ([]byte, error) { return nil, lost }); !errors.Is(err, lost) {
		t.Errorf("without data: %v", err)
	}
	if _, err := Restore([]byte(`{"format":7}`), nil); err == nil || !strings.Contains(err.Error(), "format 7, this program knows 1") {
		t.Errorf("another format: %v", err)
	}
}

func TestNamesFaults(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"empty", "", []string{"line 1: no header row: want cidr or mac, and some of name, vnet, subnet, owner, tags"}},
		{"header", "cidr,cidr,nam\n", []string{`line 1: column "cidr" is there twice`, `line 1: unknown column "nam": want cidr, mac, name, vnet, subnet, owner, tags`}},
		{"no key", "name,owner\na,b\n", []string{"line 1: no column cidr or mac: the first line names the columns"}},
		{"rows", "cidr,mac,name\n10.0.0.1/8,,a\n10.0.0.0/8\n\n,,b\n10.0.0.0/8,00:0D:3A:92:6A:7C,c\nx,,d\n,zz,e\n10.0.0.0/8,,f\n10.0.0.0/8,,\"two\nlines\"\n::1,,\xff\n::2,," + strings.Repeat("x", 1025) + "\n", []string{
			`line 2: "10.0.0.1/8" has bits behind the prefix, want 10.0.0.0/8`,
			"line 3: 1 fields, the header has 3",
			"line 5: want either a cidr or a mac",
			"line 6: want either a cidr or a mac",
			`line 7: "x" is no address or CIDR prefix such as 10.1.0.0/16`,
			"line 8: want a MAC address such as 00:0D:3A:92:6A:7C",
			"line 10: 10.0.0.0/8 stands in line 9 already",
			"line 12: field 3 is no UTF-8",
			"line 13: field 3 has 1025 bytes, at most 1024",
		}},
		{"quote", "cidr,name\n10.0.0.0/8,\"a\n10.0.1.0/24,b\n", []string{"line 2: extraneous or missing \" in quoted-field"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(Config{NamesFile: "n.csv"}, map[string][]byte{"n.csv": []byte(c.file)})
			if err == nil {
				t.Fatal("no fault found")
			}
			var got []string
			for _, line := range strings.Split(err.Error(), "\n") {
				got = append(got, strings.TrimPrefix(line, `enrich.names_file: file "n.csv": `))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
	_, err := parseNames([]byte("cidr\n" + strings.Repeat("x\n", 100)))
	if err == nil || strings.Count(err.Error(), "\n") != 20 || !strings.HasSuffix(err.Error(), "80 more faults") {
		t.Errorf("100 faults give %v", err)
	}
}

func TestClass(t *testing.T) {
	for address, want := range map[string]string{
		"8.8.8.8": "public", "10.0.0.1": "private", "172.31.255.255": "private", "172.32.0.0": "public", "192.168.1.1": "private",
		"100.64.0.1": "cgnat", "100.128.0.1": "public", "127.0.0.1": "loopback", "169.254.169.254": "link_local", "224.0.0.251": "multicast",
		"255.255.255.255": "broadcast", "240.0.0.1": "reserved", "0.0.0.0": "unspecified", "0.0.0.1": "reserved",
		"168.63.129.16": "azure_platform", "168.63.129.17": "public", "203.0.113.9": "documentation", "198.18.0.1": "reserved",
		"2603:1030::1": "public", "fd00::1": "private", "fe80::1": "link_local", "::1": "loopback", "::": "unspecified", "ff02::1": "multicast",
		"2001:db8::1": "documentation", "64:ff9b::8.8.8.8": "public", "4000::1": "reserved",
	} {
		if got := schemas.AddressClasses[Class(netip.MustParseAddr(address))]; got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
}

func TestParseResource(t *testing.T) {
	for id, want := range map[string]resource{
		target: {"5A", "Web-RG", "hub", "front", ""},
		"/SUBSCRIPTIONS/5A/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/WEB": {subscription: "5A", group: "RG"},
		"/subscriptions/5a/resourcegroups/rg/providers/microsoft.network/networkinterfaces/vm1-nic": {subscription: "5a", group: "rg", nic: "vm1-nic"},
		"/subscriptions/5a/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v":         {subscription: "5a", group: "rg", vnet: "v"},
		"": {}, "/": {}, "subscriptions/5a": {}, "/subscriptions": {}, "/T": {},
	} {
		if got := parseResource(id); got != want {
			t.Errorf("%q gives %+v, want %+v", id, got, want)
		}
	}
}

// What the memo answers is what asking anew would, whatever came before.
func TestMemoAgreesWithAsking(t *testing.T) {
	e, err := New(Config{NamesFile: "n"}, map[string][]byte{"n": []byte("cidr,name\n10.0.0.0/9,a\n10.128.0.0/9,b\n")})
	if err != nil {
		t.Fatal(err)
	}
	m, rng := newMemo(), rand.New(rand.NewPCG(1, 2))
	for range 300_000 {
		raw := netip.AddrFrom4([4]byte{10, byte(rng.IntN(256)), byte(rng.IntN(4)), byte(rng.IntN(256))}).As16()
		if got, want := m.facts(e, raw), e.ask(raw); got != want {
			t.Fatalf("%v gives %+v, want %+v", raw, got, want)
		}
	}
}

func TestManyGoroutines(t *testing.T) {
	e, err := New(Config{NamesFile: "n"}, map[string][]byte{"n": []byte("cidr,name\n10.0.0.0/9,a\n10.128.0.0/9,b\n")})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			rec := flows(memory.DefaultAllocator, "000D3A926A7C", target, "10.0.0.4,10.200.0.1,O", "10.200.0.1,10.0.0.4,I")
			for range 200 {
				got, err := e.Apply(memory.DefaultAllocator, rec)
				if err != nil || column(got.Flows, "src_name")[1] != "b" {
					t.Error(err, column(got.Flows, "src_name"))
				}
				got.Flows.Release()
			}
		})
	}
	group.Wait()
}

func countryFile(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(pipelinetest.RequirePart(t, localtest.EnvCountries))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Windows may group by what enrichment adds.
func TestCountriesAndWindows(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	e, err := New(Config{CountryFile: "c"}, map[string][]byte{"c": countryFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	rec := flows(alloc, "000D3A926A7C", target, "10.0.0.4,8.8.8.8,O", "10.0.0.4,193.0.6.139,O", "2001:67c:2e8:22::c100:68b,10.0.0.4,I", "10.0.0.4,8.8.4.4,O")
	defer rec.Release()
	got := apply(t, e, alloc, rec)
	defer got.Release()
	want(t, got, "dst_country", "US", "NL", "", "US")
	want(t, got, "src_country", "", "", "NL", "")

	op, err := window.New([]window.Config{{Name: "countries", Size: time.Minute, GroupBy: []string{"dst_country", "dst_asn", "dst_class", "subnet"}, Sums: []string{"bytes_sent"}}}, alloc)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Release()
	if _, err := op.Apply(pipeline.OperatorInput{Batch: 1, Flows: []arrow.Record{rec}}); err == nil || !strings.Contains(err.Error(), `column "dst_country" is not there: it comes with enrichment`) {
		t.Errorf("rows without enrichment: %v", err)
	}
	pieces, err := op.Apply(pipeline.OperatorInput{Batch: 2, Flows: []arrow.Record{got}, Watermark: pipeline.EndOfInput})
	if err != nil {
		t.Fatal(err)
	}
	defer pieces[0].Record.Release()
	var lines []string
	for i := range int(pieces[0].Rows) {
		var line []string
		for _, c := range pieces[0].Record.Columns()[2:8] {
			line = append(line, c.ValueStr(i))
		}
		lines = append(lines, strings.Join(line, " "))
	}
	if diff := cmp.Diff([]string{" 0 private front 1 2", "NL 0 public front 1 2", "US 0 public front 2 4"}, lines); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
	}
}

func TestBrokenDatabases(t *testing.T) {
	good := countryFile(t)
	for name, data := range map[string][]byte{
		"no MaxMind DB file": []byte("cidr,name\n"), "damaged": append(make([]byte, 1<<20), good[1<<20:]...), "empty": {}, "cut": good[:len(good)/2],
	} {
		if _, err := New(Config{CountryFile: "c.mmdb"}, map[string][]byte{"c.mmdb": data}); err == nil || !strings.HasPrefix(err.Error(), `enrich.country_file: file "c.mmdb": `) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := New(Config{ASNFile: "c.mmdb"}, map[string][]byte{"c.mmdb": good})
	if err == nil || err.Error() != `enrich.asn_file: file "c.mmdb": its records (type "country ipvAll") hold no autonomous system (autonomous_system_number and autonomous_system_organization)` {
		t.Errorf("countries as autonomous systems: %v", err)
	}
}

// BenchmarkApply enriches 100,000 rows of 5,000 addresses, and of 100,000: more
// than the memo holds.
func BenchmarkApply(b *testing.B) {
	names := "cidr,name,vnet,subnet,owner,tags\n"
	for i := range 1000 {
		names += fmt.Sprintf("10.%d.%d.0/24,n%d,v%d,s%d,o%d,t\n", i/256, i%256, i, i%10, i%100, i%7)
	}
	alloc := memory.NewGoAllocator()
	for _, addresses := range []int{5000, 100_000} {
		rng := rand.New(rand.NewPCG(1, 1))
		tuples := make([]string, 100_000)
		for i := range tuples {
			n := rng.IntN(addresses)
			tuples[i] = fmt.Sprintf("10.%d.%d.%d,%d.%d.%d.%d,O", n>>16, n>>8&255, n&255, 20+n%50, n>>16, n>>8&255, n&255)
		}
		rec := flows(alloc, "000D3A926A7C", target, tuples...)
		for _, c := range []struct {
			name  string
			cfg   Config
			files map[string][]byte
		}{
			{"no files", Config{}, nil},
			{"names", Config{NamesFile: "n"}, map[string][]byte{"n": []byte(names)}},
			{"names and countries", Config{NamesFile: "n", CountryFile: "c"}, map[string][]byte{"n": []byte(names), "c": countryFile(b)}},
		} {
			b.Run(fmt.Sprintf("%s/%d addresses", c.name, addresses), func(b *testing.B) {
				e, err := New(c.cfg, c.files)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					got, err := e.Apply(alloc, rec)
					if err != nil {
						b.Fatal(err)
					}
					got.Flows.Release()
				}
				b.ReportMetric(float64(rec.NumRows())*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrow/s")
			})
		}
		rec.Release()
	}
}

// FuzzNames: no panic; what is accepted answers for the addresses that it names.
func FuzzNames(f *testing.F) {
	for _, text := range []string{
		"", "cidr\n", "cidr,name\n10.0.0.0/8,a\n10.1.0.0/16,\n", "mac,owner\n00:0D:3A:92:6A:7C,x\n", "\uFEFFcidr;name\n", "cidr,\"na\nme\"\n::/0,\"a\"\"b\"\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNames(data)
		if err != nil {
			if err.Error() == "" {
				t.Error("a fault without words")
			}
			return
		}
		for prefix, entry := range n.prefixes.All() {
			found, ok := n.prefixes.Lookup(prefix.Addr())
			if !ok || int(entry) >= len(n.fields[0].of) || int(found) >= len(n.fields[0].of) {
				t.Errorf("prefix %v: entry %d of %d", prefix, entry, len(n.fields[0].of))
			}
		}
		for _, field := range n.fields {
			for _, code := range field.of {
				_ = field.values[code]
			}
		}
	})
}
