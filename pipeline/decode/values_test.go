package decode

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode/internal/reference"
)

// oddNumbers are what programs write where a number is wanted.
var oddNumbers = []string{
	"0", "1", "-1", "+1", "-0", "1.0", "1.5", "-1.5", "1e3", "1E3", "1e-3", "1e400", "0x10", "0X1F", "0b1", "0o7", "1_000", "1 000", " 1", "1 ", "01", "00", "0000000001",
	"NaN", "nan", "Infinity", "-Infinity", "null", "true", "x", "１２", "٣", "1\\u0000", "1\\n", "2147483648", "4294967296", "4294967295",
	"255", "256", "65535", "65536", "65537", "99999", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
	"99999999999999999999", "100000000000000000000", "00000000000000000000001", strings.Repeat("9", 400), strings.Repeat("0", 400) + "1", "-" + strings.Repeat("9", 400),
}

// A number is a number of digits alone that its column can hold, and then it is
// stored as it stands; all else is refused, with the reason of its field.
func TestNumbers(t *testing.T) {
	const usual = "1795392000000,10.0.0.6,192.0.2.180,23956,443,6,O,E,NX,1,2,3,4"
	for _, field := range []struct {
		name   string
		at     int
		bits   int
		reason pipeline.Reason
		stored func(r row) uint64
	}{
		{"source port", 3, 16, pipeline.ReasonPort, func(r row) uint64 { return uint64(r.SrcPort) }},
		{"destination port", 4, 16, pipeline.ReasonPort, func(r row) uint64 { return uint64(r.DstPort) }},
		{"protocol", 5, 8, pipeline.ReasonProtocol, func(r row) uint64 { return uint64(r.Protocol) }},
		{"packets sent", 9, 64, pipeline.ReasonCounter, func(r row) uint64 { return r.PacketsSent }},
		{"bytes sent", 10, 64, pipeline.ReasonCounter, func(r row) uint64 { return r.BytesSent }},
		{"packets received", 11, 64, pipeline.ReasonCounter, func(r row) uint64 { return r.PacketsReceived }},
		{"bytes received", 12, 64, pipeline.ReasonCounter, func(r row) uint64 { return r.BytesReceived }},
	} {
		for _, odd := range oddNumbers {
			f := strings.Split(usual, ",")
			f[field.at] = odd
			rows, res := decodeAll(t, Range{}, []byte(vnetRecord("", strings.Join(f, ","))))
			want, err := strconv.ParseUint(odd, 10, field.bits)
			digits := strings.Trim(odd, "0123456789") == ""
			switch {
			case len(rows) == 1 && (err != nil || !digits || field.stored(rows[0]) != want):
				t.Errorf("%s %.40q is stored as %d", field.name, odd, field.stored(rows[0]))
			case len(rows) == 1:
			case len(odd) <= 20 && digits && err == nil && (odd == "0" || odd[0] != '0'):
				t.Errorf("%s %.40q is refused: %+v", field.name, odd, res.Rejects)
			case len(res.Rejects) != 1 || res.Rejects[0].Reason != field.reason && res.Rejects[0].Reason != pipeline.ReasonEncoding:
				t.Errorf("%s %.40q: rejects %+v, want reason %s", field.name, odd, res.Rejects, field.reason)
			}
		}
	}
}

// A time is 10 digits of seconds or 13 of milliseconds within the bounds; every other
// one is refused and becomes no partition.
func TestTimes(t *testing.T) {
	const low, high = 1795388400000, 1795399200000
	for _, odd := range append(slices.Clone(oddNumbers), "1795391999999", "1795395600", "1795395600.5", "1795395600e3", "253402300799999", "253402300800000", "4294967295999", "1795388399999", "1795399200000") {
		rows, res := decodeAll(t, Range{MinTime: low, MaxTime: high}, []byte(vnetRecord("", odd+",10.0.0.6,192.0.2.180,23956,443,6,O,E,NX,1,2,3,4")))
		for _, r := range rows {
			n, err := strconv.ParseInt(odd, 10, 64)
			if err != nil || r.Time < low || r.Time >= high || r.Time != n && r.Time != n*1000 {
				t.Errorf("time %.40q is stored as %d", odd, r.Time)
			}
		}
		if len(rows)+len(res.Rejects) != 1 {
			t.Errorf("time %.40q: %d rows, rejects %+v", odd, len(rows), res.Rejects)
		}
	}
}

// The version of a record is the number 4, in any form of JSON or as a text of it.
func TestVersionNumbers(t *testing.T) {
	good := vnetRecord("", tupleAt(1795392000000))
	for _, odd := range []string{"4", "4.0", "4e0", "40e-1", "0.4e1", "-4", "5", "4.1", "4.000000000000000000000000001", "1e400", "4e1", `"4"`, "true", "[4]", "{}", strings.Repeat("4", 400), "4" + strings.Repeat("0", 400) + "e-400"} {
		rows, res := decodeAll(t, Range{}, []byte(strings.Replace(good, `"flowLogVersion":4`, `"flowLogVersion":`+odd, 1)))
		f, err := strconv.ParseFloat(strings.Trim(odd, `"`), 64)
		if isFour := err == nil && f == 4; len(rows) == 1 && !isFour || len(rows)+len(res.Rejects) != 1 {
			t.Errorf("version %.40s: %d rows, rejects %+v", odd, len(rows), res.Rejects)
		}
	}
}

// storable says what is wrong with a text in a row.
func storable(r reference.Row) string {
	for name, s := range map[string]string{"mac": r.MAC, "encryption": r.Encryption, "acl": r.ACL, "rule": r.Rule, "flow log": r.FlowLog, "target": r.Target} {
		if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
			return fmt.Sprintf("%s is %q", name, s)
		}
	}
	return ""
}

// Texts that are no text have an outcome, and never stand in a row as they came.
func TestTexts(t *testing.T) {
	record := func(acl, rule, flowLog, target, mac, encryption string) string {
		return fmt.Sprintf(`{"category":"FlowLogFlowEvent","flowLogVersion":4,"flowLogResourceID":"%s","targetResourceID":"%s","macAddress":"%s","flowRecords":{"flows":[{"aclID":"%s","flowGroups":`+
			`[{"rule":"%s","flowTuples":["1795392000000,10.0.0.6,192.0.2.180,23956,443,6,O,E,%s,1,2,3,4"]}]}]}}`, flowLog, target, mac, acl, rule, encryption)
	}
	good := vnetRecord("", tupleAt(1795392000000))
	bad := []string{
		"\xff", "\xfe\xff", "\xc3(", "\xc0\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xed\xb0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xe2\x82", "a\x80b",
		"\x00", `\u0000`, `a\u0000b`, `\ud83d`, `\ude00`, `\ud83d\ud83d`, `\ude00\ud83d`, `\ud83dx`, `\ud800\u0041`, "\xef\xbb\xbf\xff",
	}
	allowed := map[string]string{
		"\xef\xbb\xbf": "\ufeff", `\ufeff`: "\ufeff", `\ud83d\ude00`: "😀", "\xef\xbf\xbd": "\ufffd", `\ufffe`: "\ufffe", `\u0085`: "\u0085", `\u202e`: "\u202e", `\u001b[31m`: "\x1b[31m", `\r\n`: "\r\n",
	}
	place := func(i int, text string) string {
		f := []string{"", "r", "", "", "", "NX"}
		f[i] = text
		return record(f[0], f[1], f[2], f[3], f[4], f[5])
	}
	for i, name := range []string{"acl", "rule", "flow log", "target", "mac", "encryption"} {
		for _, text := range bad {
			rows, res := decodeAll(t, Range{}, []byte(good+","+place(i, text)+","+good))
			if len(rows) != 2 || len(res.Rejects) != 1 {
				t.Errorf("%s %q: %d rows, want the two good ones; rejects %+v", name, text, len(rows), res.Rejects)
			}
			for _, r := range rows {
				if wrong := storable(r.Row); wrong != "" {
					t.Errorf("%s %q: %s", name, text, wrong)
				}
			}
		}
		if name == "mac" {
			continue // hex digits
		}
		for text, want := range allowed {
			rows, res := decodeAll(t, Range{}, []byte(place(i, text)))
			if len(rows) != 1 || len(res.Rejects) != 0 {
				t.Errorf("%s %q: %d rows, rejects %+v", name, text, len(rows), res.Rejects)
				continue
			}
			if r := rows[0]; !slices.Contains([]string{r.ACL, r.Rule, r.FlowLog, r.Target, r.Encryption}, want) {
				t.Errorf("%s %q: %+v, want %q", name, text, r, want)
			}
		}
	}
}
