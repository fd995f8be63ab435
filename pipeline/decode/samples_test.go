package decode

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline/decode/internal/reference"
	"github.com/millrace/millrace/schemas"
)

// Counts and sums were taken from the samples' text by hand, not by a decoder.
func TestSamplesAddUp(t *testing.T) {
	for _, c := range []struct {
		name                  string
		rows, records, denied int
		counters              [4]uint64
		first, last           int64 // lowest and highest time as logged, in ms
	}{
		{"vnet-docs-v4-record.json", 19, 1, 9, [4]uint64{33, 4528, 44, 43292}, 1663145989563, 1663146022793},
		{"vnet-docs-v4-record.compact.json", 19, 1, 9, [4]uint64{33, 4528, 44, 43292}, 1663145989563, 1663146022793},
		{"nsg-docs-v2.json", 11, 2, 7, [4]uint64{46, 25533, 37, 21128}, 1542110377000, 1542110490000},
		{"nsg-docs-v1-nested-records.json", 21, 5, 6, [4]uint64{}, 1487282370000, 1487282512000},
		{"nsg-connector-v1-small.json", 38, 3, 37, [4]uint64{}, 1531917335000, 1531917510000},
		{"nsg-connector-v1-large.json", 1187, 24, 35, [4]uint64{}, 1527644123000, 1527645561000},
		{"nsg-connector-appended-region.txt", 85, 1, 4, [4]uint64{}, 1534164955000, 1534165014000},
		{"nsg-connector-v2-trailing-comma.json", 8, 1, 0, [4]uint64{12, 738, 6, 378}, 1578673943000, 1578673983000},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, res, err := readAll(t, bytes.NewReader(sample(t, c.name)))
			if err != nil || len(res.Rejects) > 0 {
				t.Fatalf("read: %v, rejects %+v", err, res.Rejects)
			}
			var sum [4]uint64
			denied, first, last := 0, rows[0].Time, rows[0].Time
			for _, r := range rows {
				for i, v := range []uint64{r.PacketsSent, r.BytesSent, r.PacketsReceived, r.BytesReceived} {
					sum[i] += v
				}
				if r.Action == schemas.ActionDenied {
					denied++
				}
				first, last = min(first, r.Time), max(last, r.Time)
			}
			if len(rows) != c.rows || res.Records != c.records || denied != c.denied || sum != c.counters || first != c.first || last != c.last {
				t.Errorf("rows %d, records %d, denied %d, counters %v, times %d..%d; want %+v", len(rows), res.Records, denied, sum, first, last, c)
			}
		})
	}
}

// The documentation's bandwidth examples: 9,125 packets and 5,256,000 bytes.
func TestBandwidthExamples(t *testing.T) {
	for name, record := range map[string]string{
		"vnet-docs-bandwidth-tuples.txt": `{"category":"FlowLogFlowEvent","flowLogVersion":4,"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":[TUPLES]}]}]}}`,
		"nsg-docs-bandwidth-tuples.txt":  `{"category":"NetworkSecurityGroupFlowEvent","properties":{"Version":2,"flows":[{"flows":[{"flowTuples":[TUPLES]}]}]}}`,
	} {
		lines := strings.Fields(string(sample(t, name)))
		data := strings.Replace(record, "TUPLES", `"`+strings.Join(lines, `","`)+`"`, 1)
		rows, res := decodeAll(t, Range{}, []byte(data))
		if len(res.Rejects) > 0 || len(rows) != 3 {
			t.Fatalf("%s: %d rows, rejects %+v", name, len(rows), res.Rejects)
		}
		var packets, bytes uint64
		for _, r := range rows {
			packets += r.PacketsSent + r.PacketsReceived
			bytes += r.BytesSent + r.BytesReceived
		}
		if packets != 9125 || bytes != 5256000 {
			t.Errorf("%s: %d packets and %d bytes, want 9125 and 5256000", name, packets, bytes)
		}
		states := []uint8{rows[0].State, rows[1].State, rows[2].State}
		if !cmp.Equal(states, []uint8{schemas.StateBegin, schemas.StateContinuing, schemas.StateEnd}) {
			t.Errorf("%s: states %v", name, states)
		}
		if want := time.Date(2024, 2, 26, 20, 10, 15, 0, time.UTC).UnixMilli(); rows[0].Time != want {
			t.Errorf("%s: time %d, want %d", name, rows[0].Time, want)
		}
	}
}

func ip16(s string) [16]byte { return netip.MustParseAddr(s).As16() }

func TestFirstRowsByHand(t *testing.T) {
	rows, _, err := readAll(t, bytes.NewReader(sample(t, "vnet-docs-v4-record.compact.json")))
	if err != nil {
		t.Fatal(err)
	}
	const sub = "aaaa0a0a-bb1b-cc2c-dd3d-eeeeee4e4e4e"
	want := row{
		Row: reference.Row{
			Time: 1663146003606, Format: schemas.FormatVNet4, MAC: "112233445566",
			Src: ip16("::ffff:10.0.0.6"), Dst: ip16("::ffff:192.0.2.180"), SrcPort: 23956, DstPort: 443, Protocol: 6,
			Direction: schemas.DirectionOutbound, State: schemas.StateEnd, Action: schemas.ActionAllowed, Encryption: "NX",
			PacketsSent: 3, BytesSent: 767, PacketsReceived: 2, BytesReceived: 1580,
			ACL: "00aa00aa-bb11-cc22-dd33-44ee44ee44ee", Rule: "DefaultRule_AllowInternetOutBound", RuleKind: schemas.RuleDefault,
			FlowLog:      "/SUBSCRIPTIONS/" + sub + "/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_EASTUS2EUAP/FLOWLOGS/VNETFLOWLOG",
			Target:       "/subscriptions/" + sub + "/resourceGroups/myResourceGroup/providers/Microsoft.Network/virtualNetworks/myVNet",
			RecordOffset: 12, Ordinal: 1,
		},
		Cloud: "azure", Blob: "file", Batch: 7,
	}
	if diff := cmp.Diff(want, rows[1]); diff != "" {
		t.Errorf("second row (-want +got):\n%s", diff)
	}
	if r := rows[10]; r.Rule != "BlockHighRiskTCPPortsFromInternet" || r.RuleKind != schemas.RuleAdmin || r.State != schemas.StateDenied || r.Ordinal != 10 {
		t.Errorf("eleventh row %+v", r)
	}
	nsg, _, err := readAll(t, bytes.NewReader(sample(t, "nsg-docs-v2.json")))
	if err != nil {
		t.Fatal(err)
	}
	want = row{
		Row: reference.Row{
			Time: 1542110402000, Format: schemas.FormatNSG2, MAC: "000D3AF87856",
			Src: ip16("::ffff:192.0.2.190"), Dst: ip16("::ffff:10.5.16.4"), SrcPort: 28746, DstPort: 443, Protocol: 17,
			Direction: schemas.DirectionInbound, State: schemas.StateDenied, Action: schemas.ActionDenied,
			ACL: "66aa66aa-bb77-cc88-dd99-00ee00ee00ee", Rule: "DefaultRule_DenyAllInBound", RuleKind: schemas.RuleDefault,
			Target:       "/SUBSCRIPTIONS/" + sub + "/RESOURCEGROUPS/FABRIKAMRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/FABRIAKMVM1-NSG",
			RecordOffset: 27,
		},
		Cloud: "azure", Blob: "file", Batch: 7,
	}
	if diff := cmp.Diff(want, nsg[0]); diff != "" {
		t.Errorf("first NSG row (-want +got):\n%s", diff)
	}
}

// Records within a nested {"records":[...]} have offsets of their own.
func TestNestedRecordsHaveTheirOwnOffsets(t *testing.T) {
	file := sample(t, "nsg-docs-v1-nested-records.json")
	rows, _, err := readAll(t, bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	offsets := map[int64]bool{}
	for _, r := range rows {
		offsets[r.RecordOffset] = true
		if after := bytes.TrimLeft(file[r.RecordOffset+1:], " \r\n"); !bytes.HasPrefix(after, []byte(`"time"`)) {
			t.Fatalf("no record begins at %d", r.RecordOffset)
		}
	}
	if len(offsets) != 5 {
		t.Errorf("%d records, want 5", len(offsets))
	}
}
