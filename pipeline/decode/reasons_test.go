package decode

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Every reason can be produced, each by what it is for.
func TestReasons(t *testing.T) {
	deep := `{"category":"FlowLogFlowEvent","x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`
	notDeep := strings.Replace(strings.Replace(deep, "[", "", 1), "]", "", 1)
	tuple := func(i int, value string) string {
		f := strings.Split("1795392000000,10.0.0.6,192.0.2.180,23956,443,6,O,E,NX,1,2,3,4", ",")
		f[i] = value
		return vnetRecord("", strings.Join(f, ","))
	}
	nsg := func(version, tuple string) string {
		return `{"properties":{"Version":` + version + `,"flows":[{"flows":[{"flowTuples":["` + tuple + `"]}]}]}}`
	}
	many := vnetRecord("", "x"+strings.Repeat(`","x`, 1<<20))
	for _, c := range []struct {
		name, data, scope string
		want              pipeline.Reason
	}{
		{"no JSON", `{"a":tru}`, "record", pipeline.ReasonSyntax},
		{"stray bracket", `]}`, "range", pipeline.ReasonSyntax},
		{"cut", `{"a":[1`, "range", pipeline.ReasonTruncated},
		{"cut in a string", `{"a":"}`, "range", pipeline.ReasonTruncated},
		{"other record", `{"category":"AzureFirewall"}`, "record", pipeline.ReasonShape},
		{"number", `17`, "record", pipeline.ReasonShape},
		{"twice", `{"flowRecords":{"flows":[]},"macAddress":"","macAddress":""}`, "record", pipeline.ReasonShape},
		{"renamed member", `{"flowRecords":{"flow":[]}}`, "record", pipeline.ReasonShape},
		{"bad mac", vnetRecord("0022487", tupleAt(1795392000000)), "record", pipeline.ReasonShape},
		{"version", `{"flowLogVersion":5,"flowRecords":{"flowsV5":[]}}`, "record", pipeline.ReasonVersion},
		{"NSG version", nsg("3", "x"), "record", pipeline.ReasonVersion},
		{"no NSG version", `{"properties":{"flows":[]}}`, "record", pipeline.ReasonVersion},
		{"fields", vnetRecord("", "1,2,3"), "tuple", pipeline.ReasonFieldCount},
		{"dropped empty fields", nsg("2", "1542110402,192.0.2.190,10.5.16.4,28746,443,U,I,D,B"), "tuple", pipeline.ReasonFieldCount},
		{"version 1 tuple in version 2", nsg("2", "1542110402,192.0.2.190,10.5.16.4,28746,443,U,I,D"), "tuple", pipeline.ReasonFieldCount},
		{"negative time", tuple(0, "-1795392000000"), "tuple", pipeline.ReasonTime},
		{"float time", tuple(0, "1.795392e12"), "tuple", pipeline.ReasonTime},
		{"time beyond int64", tuple(0, "9223372036854775808"), "tuple", pipeline.ReasonTime},
		{"time before the bounds", tuple(0, "1795391999999"), "tuple", pipeline.ReasonTimeRange},
		{"time at the upper bound", tuple(0, "1795395600000"), "tuple", pipeline.ReasonTimeRange},
		{"time after year 9999", tuple(0, "253402300800000"), "tuple", pipeline.ReasonTimeRange},
		{"address", tuple(1, "10.0.0.256"), "tuple", pipeline.ReasonAddress},
		{"leading zero", tuple(2, "10.0.0.01"), "tuple", pipeline.ReasonAddress},
		{"zone", tuple(2, "fe80::1%eth0"), "tuple", pipeline.ReasonAddress},
		{"port", tuple(3, "65536"), "tuple", pipeline.ReasonPort},
		{"empty port", tuple(4, ""), "tuple", pipeline.ReasonPort},
		{"protocol", tuple(5, "256"), "tuple", pipeline.ReasonProtocol},
		{"letter for a protocol", tuple(5, "T"), "tuple", pipeline.ReasonProtocol},
		{"number for an NSG protocol", nsg("1", "1542110402,192.0.2.190,10.5.16.4,28746,443,6,I,D"), "tuple", pipeline.ReasonProtocol},
		{"direction", tuple(6, "X"), "tuple", pipeline.ReasonDirection},
		{"state", tuple(7, "A"), "tuple", pipeline.ReasonState},
		{"NSG decision", nsg("1", "1542110402,192.0.2.190,10.5.16.4,28746,443,T,I,B"), "tuple", pipeline.ReasonState},
		{"NSG state", nsg("2", "1542110402,192.0.2.190,10.5.16.4,28746,443,T,I,A,D,,,,"), "tuple", pipeline.ReasonState},
		{"float counter", tuple(9, "1.5"), "tuple", pipeline.ReasonCounter},
		{"exponent", tuple(10, "1e3"), "tuple", pipeline.ReasonCounter},
		{"negative counter", tuple(11, "-1"), "tuple", pipeline.ReasonCounter},
		{"counter of 2^64", tuple(12, "18446744073709551616"), "tuple", pipeline.ReasonCounter},
		{"NUL in a tuple", tuple(8, `N\u0000X`), "tuple", pipeline.ReasonEncoding},
		{"raw NUL in a tuple", tuple(8, "N\x00X"), "tuple", pipeline.ReasonEncoding},
		{"lone surrogate in a tuple", tuple(8, `\ud83d`), "tuple", pipeline.ReasonEncoding},
		{"UTF-8 in a tuple", tuple(8, "\xff"), "tuple", pipeline.ReasonEncoding},
		{"UTF-8 in a rule", strings.Replace(vnetRecord("", tupleAt(1795392000000)), "UserRule_r", "\xc3(", 1), "record", pipeline.ReasonEncoding},
		{"depth 33", deep, "record", pipeline.ReasonLimit},
		{"depth 32", notDeep, "record", pipeline.ReasonShape},
		{"depth 100,000", strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), "record", pipeline.ReasonLimit},
		{"text of 64 KiB and one", strings.Replace(vnetRecord("", tupleAt(1795392000000)), "UserRule_r", strings.Repeat("r", 64<<10+1), 1), "record", pipeline.ReasonLimit},
		{"tuple of 64 KiB and one", vnetRecord("", strings.Repeat("1", 64<<10+1)), "tuple", pipeline.ReasonLimit},
		{"257 members", `{"flowRecords":{"flows":[]}` + strings.Repeat(`,"x":1`, 256) + `}`, "record", pipeline.ReasonLimit},
		{"a million tuples and more", many, "record", pipeline.ReasonLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := vnetRecord("", tupleAt(1795392000000))
			r := Range{MinTime: 1795392000000, MaxTime: 1795395600000}
			_, res := decodeAll(t, r, []byte(good+","+c.data))
			if diff := cmp.Diff([]pipeline.Reason{c.want}, reasons(res.Rejects)); diff != "" {
				t.Fatalf("reasons (-want +got):\n%s", diff)
			}
			if rej := res.Rejects[0]; rej.Scope != c.scope || rej.Offset != int64(len(good)+1) || rej.Detail == "" {
				t.Errorf("reject %+v, want scope %s at %d", rej, c.scope, len(good)+1)
			}
			if res.Rows < 1 {
				t.Error("the good record before it was lost")
			}
		})
	}
}

func TestTooManyRejectsEndTheRange(t *testing.T) {
	data := strings.Repeat(vnetRecord("", strings.TrimSuffix(strings.Repeat(`","`, 1000), `","`))+",", 200)
	_, res := decodeAll(t, Range{}, []byte(data))
	last := res.Rejects[len(res.Rejects)-1]
	if last.Scope != "range" || last.Reason != pipeline.ReasonLimit || last.Offset+last.Length != int64(len(data)) {
		t.Errorf("last reject %+v", last)
	}
	if n := len(res.Rejects); n > DefaultLimits().Rejects+1 {
		t.Errorf("%d rejects", n)
	}
}

// The facts of formats that are easy to get wrong, one by one.
func TestMeanings(t *testing.T) {
	tuple := func(s string) string { return vnetRecord("", s) }
	nsg := func(version, tuple string) string {
		return `{"macAddress":"00-0d-3a-7f-13-40","properties":{"flows":[{"flows":[{"flowTuples":["` + tuple + `"]}],"rule":"r"}],"Version":` + version + `}}`
	}
	for _, c := range []struct {
		name, data string
		check      func(r row) bool
	}{
		{"seconds", tuple("1795392000,1.1.1.1,2.2.2.2,1,2,6,I,B,NX,,,,"), func(r row) bool { return r.Time == 1795392000000 && r.BytesSent == 0 }},
		{"milliseconds", tuple("1795392000001,1.1.1.1,2.2.2.2,1,2,6,I,B,NX,,,,"), func(r row) bool { return r.Time == 1795392000001 }},
		{"VNet D is denied", tuple("1795392000001,1.1.1.1,2.2.2.2,1,2,6,I,D,NX,0,0,0,0"), func(r row) bool {
			return r.State == schemas.StateDenied && r.Action == schemas.ActionDenied
		}},
		{"open encryption", tuple("1795392000001,1.1.1.1,2.2.2.2,1,2,6,I,C,NX_SOMETHING_NEW,0,0,0,0"), func(r row) bool { return r.Encryption == "NX_SOMETHING_NEW" }},
		{"documented encryption", tuple("1795392000001,1.1.1.1,2.2.2.2,1,2,6,I,C,NX_HW_NOT_SUPPORTED,1,2,3,4"), func(r row) bool {
			return r.Encryption == "NX_HW_NOT_SUPPORTED" && r.PacketsSent == 1 && r.BytesReceived == 4
		}},
		{"IPv6", tuple("1795392000001,2001:DB8::1,::,1,2,58,I,C,X,0,0,0,0"), func(r row) bool {
			return r.Src == ip16("2001:db8::1") && r.Dst == [16]byte{} && r.Encryption == "X"
		}},
		{"mapped IPv4", tuple("1795392000001,::ffff:1.2.3.4,1.2.3.4,1,2,58,I,C,X,0,0,0,0"), func(r row) bool { return r.Src == r.Dst }},
		{"largest counter", tuple("1795392000001,1.1.1.1,2.2.2.2,1,2,6,I,C,NX,18446744073709551615,99999999,100000000,7"), func(r row) bool {
			return r.PacketsSent == 1<<64-1 && r.BytesSent == 99999999 && r.PacketsReceived == 100000000 && r.BytesReceived == 7
		}},
		{"NSG v1 has no state", nsg("1", "1795392000,1.1.1.1,2.2.2.2,1,2,U,O,D"), func(r row) bool {
			return r.State == schemas.StateUnknown && r.Action == schemas.ActionDenied && r.Protocol == 17 && r.Direction == schemas.DirectionOutbound &&
				r.Format == schemas.FormatNSG1 && r.MAC == "000D3A7F1340"
		}},
		{"NSG v2 D,B is denied", nsg("2", "1795392000,1.1.1.1,2.2.2.2,1,2,T,O,D,B,,,,"), func(r row) bool {
			return r.State == schemas.StateDenied && r.Action == schemas.ActionDenied && r.Format == schemas.FormatNSG2 && r.Protocol == 6
		}},
		{"NSG v2 A,E ends", nsg("2", "1795392000,1.1.1.1,2.2.2.2,1,2,T,O,A,E,1,2,3,4"), func(r row) bool {
			return r.State == schemas.StateEnd && r.Action == schemas.ActionAllowed && r.BytesSent == 2
		}},
		{"escaped rule", strings.Replace(tuple(tupleAt(1795392000000)), "UserRule_r", `a\"}]\ud83d\ude00\/`, 1), func(r row) bool {
			return r.Rule == `a"}]😀/` && r.RuleKind == schemas.RuleAdmin
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, res := decodeAll(t, Range{}, []byte(c.data))
			if len(rows) != 1 || len(res.Rejects) > 0 || !c.check(rows[0]) {
				t.Errorf("rows %+v, rejects %+v", rows, res.Rejects)
			}
		})
	}
}

func TestRuleKinds(t *testing.T) {
	for rule, want := range map[string]uint8{
		"DefaultRule_AllowVnetInBound": schemas.RuleDefault, "UserRule_x": schemas.RuleUser, "Internet": schemas.RuleAdmin,
		"unspecified": schemas.RuleUnspecified, "": schemas.RuleUnspecified, "SomePlatformRule": schemas.RulePlatform, "PLATFORM": schemas.RulePlatform,
		"DefaultRule_platform": schemas.RuleDefault, "Unspecified": schemas.RuleAdmin,
	} {
		if got := kindOf([]byte(rule)); got != want {
			t.Errorf("kind of %q is %s, want %s", rule, schemas.RuleKinds[got], schemas.RuleKinds[want])
		}
	}
}
