package decode

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

const (
	vnetSeed = `{"time":"2022-09-14T09:00:52.5625085Z","flowLogVersion":4,"macAddress":"00224871c205","category":"FlowLogFlowEvent",` +
		`"flowLogResourceID":"/S/F","targetResourceID":"/s/t","x":[{"flowTuples":["a"]},1.5e3,null,true],"flowRecords":{"flows":[{"aclID":"a1",` +
		`"flowGroups":[{"rule":"DefaultRule_A","flowTuples":["1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0",` +
		`"1663146003606,2001:db8::1,::ffff:192.0.2.1,0,65535,17,I,D,X,,,,", "1663146003606,10.0.0.6,192.0.2.180,23956,443,256,O,E,NX,3,767,2,1580"]},` +
		`{"flowTuples":[],"rule":"platformX"}]}]}},{"records":[{}, ]}`
	nsgSeed = `,{"systemId":"s","macAddress":"000D3A7F1340","category":"NetworkSecurityGroupFlowEvent","resourceId":"/R","properties":{` +
		`"flows":[{"flows":[{"flowTuples":["1578673983,217.111.196.7,51.104.249.164,56141,443,T,I,D,B,,,,",` +
		`"1578673977,10.201.4.6,10.244.2.21,53763,80,U,O,A,E,4,246,2,126",]},{"mac":"00-0d-3a-7f-13-41","flowTuples":null}],"rule":"UserRule_\u00e9"}],` +
		`"Version":2}}`
)

// seeds are the samples and one region for each trap.
func seeds(t testing.TB) []string {
	var out []string
	for _, name := range []string{
		"vnet-docs-v4-record.compact.json", "nsg-docs-v2.json", "nsg-docs-v1-nested-records.json", "nsg-connector-v2-trailing-comma.json",
	} {
		data, _ := region(t, sample(t, name))
		out = append(out, string(data))
	}
	out = append(out, string(sample(t, "nsg-docs-v2.json")), vnetSeed, nsgSeed)
	vnet := func(tuples string) string {
		return `{"category":"FlowLogFlowEvent","flowRecords":{"flows":[{"flowGroups":[{"flowTuples":[` + tuples + `]}]}]}}`
	}
	for _, s := range traps {
		out = append(out, s, ","+s+","+nsgSeed[1:], strings.ReplaceAll(s, ",", " ,\n"))
	}
	for _, s := range tupleTraps {
		out = append(out, vnet(s), vnet(`"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0",`+s+`,"1663146003599,1.2.3.4,5.6.7.8,1,2,3,I,C,NX_FALLBACK,1,2,3,4"`))
	}
	for _, s := range fieldTraps {
		f := strings.Split("1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0", ",")
		for i := range f {
			g := append([]string{}, f...)
			g[i] = s
			out = append(out, vnet(strconv.Quote(strings.Join(g, ","))))
		}
	}
	return out
}

var traps = []string{
	``, `,`, ` `, "\xef\xbb\xbf,", `{}`, `{`, `[`, `"`, `]`, `}`, `1`, `nul`, `null`, `"a"`, `"a\"`, `[1,2]`, `[[`, `{"a":}`, `{"a" 1}`, `{,}`, `{"a":1,}`,
	`{"a":1,,}`, `[,]`, `[1,]`, `{"a":[}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, "{\"a\":\"\x00\"}", "{\"a\":\"\x01\"}", `{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":1e}`,
	`{"a":tru}`, `{"records":[]}`, `{"records":[{},1,[],"x",{"records":[{"flowRecords":{"flows":[]}}]}]}`, `{"records":{}}`, `{"records":null}`,
	`{"records":[],"records":[]}`, `{"flowRecords":{"flows":[]}}`, `{"flowRecords":{"flows":null}}`, `{"flowRecords":{}}`, `{"flowRecords":null}`, `{"flowRecords":[]}`,
	`{"flowRecords":{"flows":[{}]}}`, `{"flowRecords":{"flows":[1]}}`, `{"flowRecords":{"flows":[{"flowGroups":[{}]}]}}`, `{"flowRecords":{"flows":[]},"flowLogVersion":5}`,
	`{"flowRecords":{"flows":[]},"flowLogVersion":"4"}`, `{"flowRecords":{"flows":[]},"flowLogVersion":4.0}`, `{"flowRecords":{"flows":[]},"flowLogVersion":null}`,
	`{"flowRecords":{"flows":[]},"category":5}`, `{"flowRecords":{"flows":[]},"category":""}`, `{"flowRecords":{"flows":[]},"category":"Other"}`,
	`{"flowRecords":{"flows":[]},"category":"FlowLogFlowEvent","category":"FlowLogFlowEvent"}`, `{"flowRecords":{"flows":[]},"macAddress":"xyz"}`,
	`{"flowRecords":{"flows":[]},"macAddress":null,"targetResourceID":"\ud83d\ude00"}`, `{"flowRecords":{"flows":[]},"targetResourceID":"\ud83d"}`,
	`{"flowRecords":{"flows":[]},"targetResourceID":"\udc00\ud800"}`, `{"flowRecords":{"flows":[]},"targetResourceID":"a\u0000"}`,
	"{\"flowRecords\":{\"flows\":[]},\"targetResourceID\":\"\xff\"}", "{\"flowRecords\":{\"flows\":[]},\"other\":\"\xff\\ud800\"}",
	`{"flowRecords":{"flows":[{"aclID":7,"flowGroups":[]}]}}`, `{"flowRecords":{"flows":[{"aclID":"a","aclID":"b","flowGroups":[]}]}}`,
	`{"flowRecords":{"flows":[{"flowGroups":[{"rule":"\ud800","flowTuples":[]}]}]}}`, `{"\u0066lowRecords":{"\u0066lows":[]}}`,
	`{"properties":{"Version":2,"flows":[]}}`, `{"properties":{"flows":[]}}`, `{"properties":{"Version":3,"flows":[]}}`, `{"properties":{"Version":1}}`,
	`{"properties":{"flows":[],"flows":[],"Version":1}}`, `{"properties":{"Version":1,"Version":2,"flows":[]}}`, `{"properties":{"flows":null,"Version":"1"}}`,
	`{"properties":{"flows":[{"flows":[{"flowTuples":["1578673983,1.2.3.4,5.6.7.8,1,2,T,I,A"]}]}],"Version":1},"category":"NetworkSecurityGroupFlowEvent"}`,
	`{"category":"NetworkSecurityGroupFlowEvent","properties":{"flows":[{"flows":[{"flowTuples":["1578673983,1.2.3.4,5.6.7.8,1,2,T,I,A"]}]}],"Version":1,"flows":[]}}`,
	`{"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":["x"]}]}]},"properties":{"Version":2,"flows":[]},"category":"NetworkSecurityGroupFlowEvent"}`,
	`{"category":"NetworkSecurityGroupFlowEvent","properties":{"Version":2,"flows":[{"flows":[{"mac":"bad","flowTuples":[]}]}]}}`,
	`{"category":"NetworkSecurityGroupFlowEvent","properties":5}`, `{"category":"FlowLogFlowEvent","properties":{"Version":2,"flows":[]}}`,
	`{"category":"\u0046lowLogFlowEvent","flowRecords":{"flows":[]}}`, `{"a":{"b":{"c":[{"flowTuples":[[[[[[[[1]]]]]]]]}]}}}`,
	`{"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":[1,null,{},[],"","a"]}]}]}}`, `{"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":["a" "b"]}]}]}}`,
	`{"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":["a",,"b"]}]}]}}`, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"flowRecords":{"flows":[]}}`,
	`{"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":[` + strings.Repeat(`"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0",`, 6) + `]}]}]}}`,
	`{"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":["","","",""]}]}]}},{"flowRecords":{"flows":[]}},1`,
}

var tupleTraps = []string{
	`"\u0031663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0"`, `"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0"`,
	`"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0,"`, `"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,\ud800,0,0,0,0"`,
	"\"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,\xff,0,0,0,0\"", `"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX_NEW_WORD,0,0,0,0"`,
	`"1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,` + strings.Repeat("Y", 290) + `,0,0,0,0"`, `"1708978215,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,,,,"`,
	`"1663146003599,2001:db8::5,fe80::1%eth0,23956,443,6,O,B,NX,0,0,0,0"`, `"1663146003599,2001:db8:1:2:3:4:5:6,::,0,0,58,I,E,X,18446744073709551615,123456789,1,00"`,
	`"1663146003599,10.0.0.6,2001:db8::1,1,2,6,O,B,NX,0,0,0,0"`, `"9999999999999999999,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0"`,
	`"253402300799999,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0"`, `"253402300800000,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0"`,
	`"1663146003599,1.2.3.4,5.6.7.8,1,2,6,O,B,NX_FALLBACK,1,2,3,4"`, `"1663146003599,1.2.3.4,5.6.7.8,1,2,6,O,B,NX_NOT_ACCEPTED,12345678,12345678,12345678,12345678"`,
	`"1663146003599,255.255.255.255,255.255.255.255,65535,65535,255,O,D,NX_HW_NOT_SUPPORTED,123456789,12345678,12345678,12345678"`, `5`, `null`, `[1,]`, `{"a":"b"}`,
}

var fieldTraps = []string{
	"", "0", "00", "007", "-1", "+1", " 1", "1 ", "1e3", "0x1", "65535", "65536", "255", "256", "99999999", "100000000", "18446744073709551615", "18446744073709551616",
	"000000000000000000000000001", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.02.3.4", "1.2.3.004", "256.1.1.1", "1.1.1.256", "1.2.3.4a", "::", "::1", "1::", "1:2:3:4:5:6:7:8",
	"1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "1::2::3", ":1", "1:", ":::", "12345::", "::ffff:1.2.3.4", "::g", "A:b::C", "fe80::1%1", "I", "O", "i", "B", "C", "E",
	"D", "BB", "X", "NX", "NX_LOCAL_DST", "é", "\t", "1234567890123", "0000000000001", "0000099999999999",
}

// generator makes regions out of a seed: members in any order, unknown members,
// whitespace, escapes, all formats, and faults.
type generator struct {
	*rand.Rand
	faults bool
	rate   int // one fault in so many chances
	b      strings.Builder
}

func newGenerator(seed uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 2)), faults: true, rate: 200 << (seed % 6)}
}

func (g *generator) one(n int) bool { return g.IntN(n) == 0 }

// fault is true rarely, and never when faults are off.
func (g *generator) fault() bool { return g.one(g.rate) && g.faults }

func (g *generator) pick(words ...string) string { return words[g.IntN(len(words))] }

func (g *generator) put(s string) {
	if g.one(40) {
		g.b.WriteString(g.pick(" ", "\n", "\r\n", "\t "))
	}
	if g.fault() {
		s = g.pick("", "{", "}", "[", "]", ",", "\"", "\\", ":", "nul", "\x00", "\xff", s+s)
	}
	g.b.WriteString(s)
}

func (g *generator) text(s string) {
	if g.fault() {
		s = g.pick(`\ud800`, `\u0000`, "\xfe", `\x`, "\x02", strings.Repeat("long", 76), `5`)
	}
	if g.one(30) && s != "" && s[0] != '\\' {
		s = fmt.Sprintf(`\u%04x`, s[0]) + s[1:]
	}
	g.put(`"` + s + `"`)
}

// object writes members in a random order, with unknown ones among them.
func (g *generator) object(members ...func()) {
	if g.one(4) {
		members = append(members, g.unknown)
	}
	if g.fault() {
		members = append(members, members[0])
	}
	if g.fault() {
		members = members[1:]
	}
	if g.one(3) {
		g.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	}
	g.put("{")
	for i, m := range members {
		if i > 0 {
			g.put(",")
		}
		m()
	}
	if g.one(60) && len(members) > 0 {
		g.put(",")
	}
	g.put("}")
}

func (g *generator) array(n int, element func()) {
	g.put("[")
	for i := range n {
		if i > 0 {
			g.put(",")
		}
		element()
	}
	if g.one(30) && n > 0 {
		g.put(",")
	}
	g.put("]")
}

func (g *generator) member(name string, value func()) func() {
	return func() {
		g.text(name)
		g.put(":")
		if g.fault() {
			g.put(g.pick("null", "5", "{}", "[]", `""`))
			return
		}
		value()
	}
}

func (g *generator) textMember(name string, values ...string) func() {
	return g.member(name, func() { g.text(g.pick(values...)) })
}

func (g *generator) raw(name string, values ...string) func() {
	return g.member(name, func() { g.put(g.pick(values...)) })
}

func (g *generator) unknown() {
	g.text(g.pick("other", "flowTuples", "flows", "", "Rule", "x y"))
	g.put(":")
	g.put(g.pick("1", "-0.5e+7", "true", "null", `"a\"}]b"`, `[]`, `{}`, `[1,{"flowTuples":["x"],"flows":[[]]}]`, `"\ud800"`))
}

func (g *generator) region() []byte {
	for i := range g.IntN(5) {
		if i > 0 || g.one(4) {
			g.put(",")
		}
		g.record(0)
	}
	return []byte(g.b.String())
}

func (g *generator) record(depth int) {
	switch {
	case g.fault():
		g.put(g.pick("1", "{}", "[]", `"x"`, "null", `{"a":{}}`))
	case g.one(12) && depth < 3:
		g.object(g.member("records", func() { g.array(g.IntN(3), func() { g.record(depth + 1) }) }))
	case g.one(3):
		g.nsg()
	default:
		g.vnet()
	}
}

func (g *generator) vnet() {
	members := []func(){
		g.textMember("time", "2022-09-14T09:00:52.5625085Z"), g.raw("flowLogVersion", "4"), g.textMember("macAddress", "112233445566", "00-22-48-71-c2-05"),
		g.textMember("flowLogResourceID", "/SUBSCRIPTIONS/A"), g.textMember("targetResourceID", "/subscriptions/é", "x"),
		g.member("flowRecords", func() {
			g.object(g.member("flows", func() {
				g.array(g.IntN(3), func() {
					g.object(g.textMember("aclID", "a", "b"), g.member("flowGroups", func() {
						g.array(g.IntN(3), func() { g.group(g.vnetTuple) })
					}))
				})
			}))
		}),
	}
	if !g.one(6) {
		members = append(members, g.textMember("category", "FlowLogFlowEvent"))
	}
	if g.fault() {
		members = append(members, g.raw("flowLogVersion", "5"))
	}
	g.object(members...)
}

func (g *generator) nsg() {
	version := g.IntN(2) + 1
	members := []func(){
		g.textMember("systemId", "sys"), g.textMember("resourceId", "/R", "/Q"),
		g.member("properties", func() {
			g.object(g.raw("Version", strconv.Itoa(version)), g.member("flows", func() {
				g.array(g.IntN(3), func() {
					g.object(g.textMember("rule", "UserRule_x", "DefaultRule_y"), g.member("flows", func() {
						g.array(g.IntN(3), func() { g.inner(version) })
					}))
				})
			}))
		}),
	}
	if g.one(2) {
		members = append(members, g.textMember("macAddress", "AABBCCDDEEFF"))
	}
	if !g.one(6) {
		members = append(members, g.textMember("category", "NetworkSecurityGroupFlowEvent"))
	}
	g.object(members...)
}

func (g *generator) inner(version int) {
	members := []func(){g.member("flowTuples", func() { g.array(g.IntN(5), func() { g.text(g.nsgTuple(version)) }) })}
	if !g.one(3) {
		members = append(members, g.textMember("mac", "000D3AF87856", "000d3af87857"))
	}
	g.object(members...)
}

func (g *generator) group(tuple func() string) {
	g.object(g.textMember("rule", "DefaultRule_x", "UserRule_y", "PlatformRule", "unspecified", "Admin"),
		g.member("flowTuples", func() { g.array(g.IntN(6), func() { g.text(tuple()) }) }))
}

func (g *generator) address() string {
	if g.one(4) {
		return g.pick("2001:db8::1", "fe80::", "::1", "1:2:3:4:5:6:7:8", "::ffff:9.8.7.6", "2001:DB8:0:0:a::f")
	}
	return fmt.Sprintf("%d.%d.%d.%d", g.IntN(256), g.IntN(256), g.IntN(256), g.IntN(256))
}

func (g *generator) counter() string {
	if !g.one(8) {
		return strconv.Itoa(g.IntN(10_000_000) >> g.IntN(20))
	}
	return strconv.FormatUint(g.Uint64()>>g.IntN(64), 10)
}

func (g *generator) spoil(fields []string) string {
	if g.faults && g.one(50) {
		fields[g.IntN(len(fields))] = fieldTraps[g.IntN(len(fieldTraps))]
	}
	if g.fault() {
		fields = fields[:g.IntN(len(fields))]
	}
	return strings.Join(fields, ",")
}

func (g *generator) counters() []string {
	if g.one(4) {
		return []string{"", "", "", ""}
	}
	return []string{g.counter(), g.counter(), g.counter(), g.counter()}
}

func (g *generator) vnetTuple() string {
	t := 1663146000000 + g.Int64N(7200000)
	if g.one(10) {
		t /= 1000
	}
	return g.spoil(append([]string{
		strconv.FormatInt(t, 10), g.address(), g.address(), strconv.Itoa(g.IntN(65536)), strconv.Itoa(g.IntN(65536)), g.pick("6", "17", "1", "58", "255"),
		g.pick("I", "O"), g.pick("B", "C", "E", "D"), g.pick("NX", "NX", "X", "NX_NOT_ACCEPTED", "NX_FALLBACK", "SOMETHING", ""),
	}, g.counters()...))
}

func (g *generator) nsgTuple(version int) string {
	fields := []string{
		strconv.FormatInt(1663146000+g.Int64N(7200), 10), g.address(), g.address(), strconv.Itoa(g.IntN(65536)), strconv.Itoa(g.IntN(65536)), g.pick("T", "U"),
		g.pick("I", "O"), g.pick("A", "D"),
	}
	if version == 2 {
		fields = append(append(fields, g.pick("B", "C", "E")), g.counters()...)
	}
	return g.spoil(fields)
}
