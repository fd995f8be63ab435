package traffic

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func smallConfig() Config {
	cfg := DefaultConfig()
	cfg.NICs, cfg.TuplesPerMinute = 20, 40
	cfg.NSGv1Share, cfg.NSGv2Share = 0.1, 0.2
	cfg.IPv6Share = 1
	cfg.Malformed = 0.005
	return cfg
}

func TestHourEqualsOracle(t *testing.T) {
	cfg := smallConfig()
	cfg.Late, cfg.LateMax = 0.02, 10*time.Minute
	e := mustEstate(t, cfg)
	for i := range e.NICs() {
		content, truth := hourOf(t, e, i, noon)
		key := cfg.Account + "/" + e.Hour(i, noon).Container + "/" + e.Hour(i, noon).Path
		want := oracleTruth(t, key, content)
		for k, b := range truth.Blobs { // The oracle does not see appends.
			b.Appends = 0
			truth.Blobs[k] = b
		}
		truth.Totals.Appends = 0
		truth.Seed, truth.Account = 0, ""
		if len(truth.Malformed) == 0 {
			truth.Malformed = []MalformedTuple{}
		}
		if diff := cmp.Diff(want, truth); diff != "" {
			t.Fatalf("interface %d: oracle (-), truth (+):\n%s", i, diff)
		}
		if truth.Totals.Records != 60 {
			t.Errorf("interface %d: %d records, want 60", i, truth.Totals.Records)
		}
	}
}

func TestHourIsAFunctionOfTheSeed(t *testing.T) {
	one, other := smallConfig(), smallConfig()
	other.Start, other.Writers, other.Dropped = noon.Add(-30*time.Hour), 1, 0.5
	a, _ := hourOf(t, mustEstate(t, one), 3, noon)
	b, _ := hourOf(t, mustEstate(t, other), 3, noon)
	if !bytes.Equal(a, b) {
		t.Error("the same seed gave different bytes")
	}
	other.Seed++
	c, _ := hourOf(t, mustEstate(t, other), 3, noon)
	if bytes.Equal(a, c) {
		t.Error("different seeds gave the same bytes")
	}
}

// TestBothEnds holds the law that makes an estate of two-sided flows: what the
// client's interface logs as outbound, the server's logs as inbound.
func TestBothEnds(t *testing.T) {
	cfg := smallConfig()
	cfg.NSGv1Share, cfg.NSGv2Share, cfg.Malformed = 0, 0, 0
	cfg.TuplesPerMinute = 150
	e := mustEstate(t, cfg)
	from, to := noon.Add(2*time.Minute).UnixMilli(), noon.Add(58*time.Minute).UnixMilli()
	owner := map[string]int{}
	for i, n := range e.nics {
		owner[string(n.ip4.text)] = i
		owner[string(n.ip6.text)] = i
	}
	sides := map[string]map[string]int{"I": {}, "O": {}}
	for i := range e.nics {
		content, _ := hourOf(t, e, i, noon)
		_, tuples := readBlob(t, content)
		for _, u := range tuples {
			self, other := u.src.String(), u.dst.String()
			if u.direction == "I" {
				self, other = other, self
			}
			if o, ok := owner[self]; !ok || o != i {
				t.Fatalf("interface %d logs %q, which is not its own", i, u.text)
			}
			if _, ok := owner[other]; !ok || u.rule == "unspecified" || u.timeMS < from || u.timeMS >= to {
				continue
			}
			sides[u.direction][strings.Replace(u.text, ","+u.direction+",", ",*,", 1)]++
		}
	}
	if n := len(sides["I"]); n < 1000 {
		t.Fatalf("only %d tuples have two ends", n)
	}
	if !maps.Equal(sides["I"], sides["O"]) {
		t.Errorf("the ends disagree:\n%s", cmp.Diff(sides["I"], sides["O"]))
	}
}

// TestFlowsBeginAndEnd follows flows through an hour: begin, then continuations
// every five minutes, then one end; only denied ones are alone. Two flows may by
// chance pick the same ports at the same time, as in reality, but rarely; flows
// without ports do so often and are left out.
func TestFlowsBeginAndEnd(t *testing.T) {
	cfg := smallConfig()
	cfg.NSGv1Share, cfg.NSGv2Share, cfg.Malformed = 0, 0, 0
	cfg.TuplesPerMinute = 150
	e := mustEstate(t, cfg)
	full, all := 0, 0
	var odd []string
	for i := range 4 {
		content, _ := hourOf(t, e, i, noon)
		_, tuples := readBlob(t, content)
		slices.SortStableFunc(tuples, func(a, b oracleTuple) int { return int(a.timeMS - b.timeMS) })
		flows := map[string][]oracleTuple{}
		for _, u := range tuples {
			if u.sport != 0 && u.sport != 123 {
				flows[u.flowKey()] = append(flows[u.flowKey()], u)
			}
		}
		all += len(flows)
		for key, f := range flows {
			states := ""
			for j, u := range f {
				states += u.state
				if u.state == "C" && j > 0 && u.timeMS-f[j-1].timeMS != 5*60*1000 {
					odd = append(odd, fmt.Sprintf("%s: continuation after %d ms", key, u.timeMS-f[j-1].timeMS))
				}
			}
			if strings.HasPrefix(states, "BC") && strings.HasSuffix(states, "CE") {
				full++
			}
			if !regexp.MustCompile(`^(D+|C*E?(BC*E)*(BC*)?)$`).MatchString(states) {
				odd = append(odd, fmt.Sprintf("%s: states %s", key, states))
			}
		}
	}
	if len(odd) > all/1000 {
		t.Errorf("%d of %d flows are odd:\n%s", len(odd), all, strings.Join(odd, "\n"))
	}
	if full < 20 {
		t.Errorf("only %d long flows were seen from begin to end", full)
	}
}

// TestVariety lists what an hour of the default estate must show.
func TestVariety(t *testing.T) {
	cfg := DefaultConfig()
	cfg.TuplesPerMinute = 60
	cfg.IPv6Share = 0.5
	e := mustEstate(t, cfg)
	seen := map[string]int{}
	paths := map[string]bool{}
	layouts := []string{
		`^flowLogResourceID=/[0-9A-F-]{36}_NETWORKWATCHERRG/NETWORKWATCHER_\w+_[\w-]+/y=`,
		`^flowLogResourceID=/[0-9a-f-]{36}_NETWORKWATCHERRG/NETWORKWATCHER_\w+_[\w-]+-FLOWLOGS/y=`,
		`^flowLogResourceID=/SUBSCRIPTIONS/[0-9A-F-]{36}/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_\w+/FLOWLOGS/[\w-]+/y=`,
	}
	end := regexp.MustCompile(`/y=2026/m=03/d=04/h=12/m=00/macAddress=[0-9A-F]{12}/PT1H\.json$`)
	for i := range e.NICs() {
		name := e.Hour(i, noon)
		if paths[name.Path] || !end.MatchString(name.Path) {
			t.Errorf("path %q is double or odd", name.Path)
		}
		paths[name.Path] = true
		for j, l := range layouts {
			if regexp.MustCompile(l).MatchString(name.Path) {
				seen[fmt.Sprintf("layout %d", j)]++
			}
		}
		content, _ := hourOf(t, e, i, noon)
		records, tuples := readBlob(t, content)
		for _, r := range records {
			acls := map[string]int{}
			for _, f := range r.FlowRecords.Flows {
				acls[f.ACLID]++
				seen[fmt.Sprintf("same acl %d times", acls[f.ACLID])]++
			}
			if r.MACAddress != strings.ToUpper(r.MACAddress) {
				seen["lower-case mac"]++
			}
		}
		for _, u := range tuples {
			seen["state "+u.state]++
			seen["encryption "+u.encryption]++
			seen[fmt.Sprint("protocol ", u.protocol)]++
			seen[fmt.Sprint("ipv6 ", u.src.Is6())]++
			seen[fmt.Sprint("empty ", u.empty, " ", u.state)]++
			kind, _, _ := strings.Cut(u.rule, "_")
			seen["rule "+kind]++
			switch {
			case u.timeMS < noon.UnixMilli():
				seen["before the hour"]++
			case u.timeMS >= noon.UnixMilli()+hourMS:
				seen["after the hour"]++
			}
			if (u.state == "B" || u.state == "D") && u.counters != [4]uint64{} {
				t.Errorf("%q has counters", u.text)
			}
			if (u.state == "C" || u.state == "E") && u.counters[1] == 0 {
				t.Errorf("%q has no bytes", u.text)
			}
		}
	}
	for _, want := range []string{
		"layout 0", "layout 1", "layout 2", "same acl 2 times", "lower-case mac",
		"state B", "state C", "state E", "state D", "empty true B", "empty false B", "empty true D", "empty false D",
		"encryption X", "encryption NX", "encryption NX_HW_NOT_SUPPORTED", "encryption NX_SW_NOT_READY", "encryption NX_NOT_ACCEPTED",
		"encryption NX_NOT_SUPPORTED", "encryption NX_LOCAL_DST", "encryption NX_FALLBACK",
		"protocol 1", "protocol 6", "protocol 17", "protocol 50", "ipv6 true", "ipv6 false",
		"rule DefaultRule", "rule UserRule", "rule PlatformRule", "rule unspecified", "rule Internet", "rule BlockHighRiskTCPPortsFromInternet",
		"before the hour", "after the hour",
	} {
		if seen[want] == 0 {
			t.Errorf("the estate never shows %q", want)
		}
	}
	if n := seen["empty true C"] + seen["empty true E"]; n > 0 {
		t.Errorf("%d ends have no counters", n)
	}
}

// TestVolume checks that the estate logs what was asked for, over a day, and
// more at noon than at night.
func TestVolume(t *testing.T) {
	for _, nics := range []int{1, 7, 64} {
		cfg := DefaultConfig()
		cfg.NICs, cfg.TuplesPerMinute = nics, 400
		e := mustEstate(t, cfg)
		g := newGenerator(e)
		var hours [24]float64
		records := 0.0
		for w := noon.Truncate(24*time.Hour).UnixMilli() / minuteMS; records < float64(48*nics); w += 30 {
			for _, n := range e.nics {
				g.record(nil, n, w, "", 0)
				records++
			}
			hours[w/60%24] += float64(g.tally.tuples)
			g.tally.reset()
		}
		total := 0.0
		for _, h := range hours {
			total += h
		}
		if mean := total / records; math.Abs(mean-400) > 40 {
			t.Errorf("%d interfaces: %.0f tuples per record, want about 400", nics, mean)
		}
		if ratio := hours[11] / hours[2]; ratio < 1.4 || ratio > 2.2 {
			t.Errorf("%d interfaces: the day has %.2f times the load of the night", nics, ratio)
		}
	}
}

func TestUniqueAddresses(t *testing.T) {
	cfg := DefaultConfig()
	cfg.NICs, cfg.IPv6Share = 3000, 1
	seen := map[string]bool{}
	for _, n := range mustEstate(t, cfg).nics {
		for _, k := range []string{"mac " + n.mac, "ip " + string(n.ip4.text), "ip " + string(n.ip6.text)} {
			if seen[k] {
				t.Fatalf("%s is double", k)
			}
			seen[k] = true
		}
	}
}

func TestConfigFaultsAtOnce(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default is refused: %v", err)
	}
	cfg := DefaultConfig()
	cfg.NICs, cfg.Account, cfg.Late, cfg.Dropped = 0, "Bad!", math.NaN(), 0.99
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"nics", "account", "late", "event faults together"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: no word about %s", err, want)
		}
	}
}

// Interfaces are spread over the accounts, and blobs, books and events name theirs.
func TestSeveralAccounts(t *testing.T) {
	cfg := DefaultConfig()
	cfg.NICs, cfg.Accounts, cfg.Account = 7, 3, "logs"
	e, err := NewEstate(cfg)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for nic := range cfg.NICs {
		count[e.Hour(nic, time.Unix(0, 0)).Account]++
	}
	if want := map[string]int{"logs": 3, "logs2": 2, "logs3": 2}; !maps.Equal(count, want) {
		t.Errorf("interfaces by account: %v, want %v", count, want)
	}
	a := Accounts{"logs": &MemoryWriter{}}
	if err := a.Stage(t.Context(), BlobName{Account: "other", Container: "c", Path: "p"}, "id", nil); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("a blob of an unknown account gives %v", err)
	}
}
