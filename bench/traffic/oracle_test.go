package traffic

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The oracle reads blobs the slow way and knows nothing of the generator: what
// it counts must be what the truth says.

type oracleRecord struct {
	Time              time.Time
	FlowLogVersion    int
	FlowLogGUID       string
	MACAddress        string
	Category          string
	FlowLogResourceID string
	TargetResourceID  string
	OperationName     string
	SystemID          string
	ResourceID        string
	FlowRecords       *struct {
		Flows []struct {
			ACLID      string
			FlowGroups []struct {
				Rule       string
				FlowTuples []string
			}
		}
	}
	Properties *struct {
		Version int
		Flows   []struct {
			Rule  string
			Flows []struct {
				MAC        string
				FlowTuples []string
			}
		}
	}
}

// oracleTuple is a tuple in the words of all formats.
type oracleTuple struct {
	record     int
	ordinal    int
	acl, rule  string
	text       string
	timeMS     int64
	src, dst   netip.Addr
	sport      uint64
	dport      uint64
	protocol   uint64
	direction  string
	state      string
	encryption string
	counters   [4]uint64
	empty      bool
	fault      string
}

func readBlob(t testing.TB, content []byte) ([]oracleRecord, []oracleTuple) {
	t.Helper()
	var blob struct{ Records []oracleRecord }
	if err := json.Unmarshal(content, &blob); err != nil {
		t.Fatalf("blob is not JSON: %v", err)
	}
	var all []oracleTuple
	for i, r := range blob.Records {
		ordinal := 0
		add := func(acl, rule string, version int, texts []string) {
			for _, text := range texts {
				u := readTuple(version, text)
				u.record, u.ordinal, u.acl, u.rule = i, ordinal, acl, rule
				ordinal++
				all = append(all, u)
			}
		}
		switch {
		case r.FlowRecords != nil:
			for _, f := range r.FlowRecords.Flows {
				for _, g := range f.FlowGroups {
					add(f.ACLID, g.Rule, r.FlowLogVersion, g.FlowTuples)
				}
			}
		case r.Properties != nil:
			for _, f := range r.Properties.Flows {
				for _, g := range f.Flows {
					add(r.SystemID, f.Rule, r.Properties.Version, g.FlowTuples)
				}
			}
		default:
			t.Fatalf("record %d has no flows", i)
		}
	}
	return blob.Records, all
}

func readTuple(version int, text string) (u oracleTuple) {
	u.text = text
	f := strings.Split(text, ",")
	want := 13
	if version == 1 {
		want = 8
	}
	if len(f) != want {
		u.fault = "fields"
		return u
	}
	var err error
	number := func(s string, bits int) uint64 {
		n, e := strconv.ParseUint(s, 10, bits)
		if e != nil && err == nil {
			err = e
			u.fault = "port"
		}
		return n
	}
	u.timeMS = int64(number(f[0], 63))
	if version != 4 {
		u.timeMS *= 1000
	}
	var e1, e2 error
	u.src, e1 = netip.ParseAddr(f[1])
	u.dst, e2 = netip.ParseAddr(f[2])
	if e1 != nil || e2 != nil {
		u.fault = "address"
		return u
	}
	u.sport, u.dport = number(f[3], 16), number(f[4], 16)
	u.direction = f[6]
	if !slices.Contains([]string{"I", "O"}, f[6]) {
		u.fault = "direction"
		return u
	}
	var tail []string
	if version == 4 {
		u.protocol, u.state, u.encryption, tail = number(f[5], 8), f[7], f[8], f[9:]
	} else {
		u.protocol = map[string]uint64{"T": 6, "U": 17}[f[5]]
		if u.state = "?"; version == 2 {
			u.state, tail = f[8], f[9:]
		}
		if f[7] == "D" {
			u.state = "D"
		}
	}
	for i, s := range tail {
		if s == "" {
			u.empty = true
			continue
		}
		u.counters[i] = number(s, 64)
	}
	return u
}

// oracleTruth recounts a blob. Offsets of records are found in the raw text.
func oracleTruth(t testing.TB, key string, content []byte) Truth {
	t.Helper()
	records, tuples := readBlob(t, content)
	var offsets []int64
	for at := 0; ; {
		i := strings.Index(string(content[at:]), `{"time":"`)
		if i < 0 {
			break
		}
		offsets = append(offsets, int64(at+i))
		at += i + 1
	}
	if len(offsets) != len(records) {
		t.Fatalf("%s: %d records, %d openings", key, len(records), len(offsets))
	}
	b := BlobTruth{Records: uint64(len(records)), Bytes: uint64(len(content))}
	out := Truth{Minutes: map[int64]MinuteTruth{}, Malformed: []MalformedTuple{}}
	for _, u := range tuples {
		if u.fault != "" {
			b.Malformed++
			out.Malformed = append(out.Malformed, MalformedTuple{
				Blob: key, RecordOffset: offsets[u.record], Ordinal: u.ordinal, Kind: u.fault, Text: u.text,
			})
			continue
		}
		b.Tuples++
		b.Sums.add(&Sums{
			TimeMS: uint64(u.timeMS), SrcIP: ipNumber(u.src), DstIP: ipNumber(u.dst),
			SrcPort: u.sport, DstPort: u.dport, Protocol: u.protocol,
			PacketsSent: u.counters[0], BytesSent: u.counters[1], PacketsReceived: u.counters[2], BytesReceived: u.counters[3],
			Cross: uint64(u.timeMS)*(65536*u.sport+u.dport) + u.counters[1]*u.counters[3],
		})
		m := out.Minutes[u.timeMS/60000*60000]
		m.Tuples++
		m.BytesSent += u.counters[1]
		m.BytesReceived += u.counters[3]
		out.Minutes[u.timeMS/60000*60000] = m
	}
	out.Totals = b
	out.Blobs = map[string]BlobTruth{key: b}
	return out
}

func ipNumber(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return 0xFFFF<<32 + uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]) + binary.BigEndian.Uint64(b[8:])
}

func mustEstate(t testing.TB, cfg Config) *Estate {
	t.Helper()
	e, err := NewEstate(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func hourOf(t testing.TB, e *Estate, nic int, at time.Time) ([]byte, Truth) {
	t.Helper()
	var b strings.Builder
	truth, err := e.WriteHour(&b, nic, at)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(b.String()), truth
}

func (u oracleTuple) flowKey() string {
	return fmt.Sprint(u.src, u.dst, u.sport, u.dport, u.protocol, u.direction)
}
