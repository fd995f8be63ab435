package emulator

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLookup3 checks the values that the author of the hash published with it.
func TestLookup3(t *testing.T) {
	const text = "Four score and seven years ago"
	if c, b := lookup3(nil); c != 0xdeadbeef || b != 0xdeadbeef {
		t.Errorf("%x %x", c, b)
	}
	if c, b := lookup3([]byte(text)); c != 0x17770551 || b != 0xce7226e6 {
		t.Errorf("%x %x", c, b)
	}
}

func TestPartitionOfIsStable(t *testing.T) {
	seen := map[int]bool{}
	for i := range 200 {
		p := partitionOf(fmt.Sprint("key", i), 7)
		if p < 0 || p >= 7 || p != partitionOf(fmt.Sprint("key", i), 7) {
			t.Fatalf("partition %d", p)
		}
		seen[p] = true
	}
	if len(seen) != 7 {
		t.Errorf("%d partitions used, want 7", len(seen))
	}
}

func TestRetention(t *testing.T) {
	t0 := time.UnixMilli(1_000_000)
	tests := []struct {
		name string
		keep Retention
		want int64 // first sequence number kept of 100 events, one per second
	}{
		{"all", Retention{Events: 100, Bytes: 1 << 30, Age: time.Hour}, 0},
		{"events", Retention{Events: 10, Bytes: 1 << 30, Age: time.Hour}, 90},
		{"bytes", Retention{Events: 100, Bytes: 5 * (eventOverhead + 72), Age: time.Hour}, 95},
		{"age", Retention{Events: 100, Bytes: 1 << 30, Age: 20 * time.Second}, 79},
		{"nothing fits", Retention{Events: 100, Bytes: 10, Age: time.Hour}, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPartition("0")
			for i := range 100 {
				p.append([]event{{bare: make([]byte, 72)}}, t0.Add(time.Duration(i)*time.Second), tt.keep)
			}
			first, last, empty := p.state()
			if first != tt.want || last.sequence != 99 || empty != (tt.want == 100) {
				t.Errorf("first %d, last %d, empty %v, want first %d", first, last.sequence, empty, tt.want)
			}
			if int64(cap(p.events)) > 4*(100-first)+2048 {
				t.Errorf("memory for %d events holds %d", cap(p.events), 100-first)
			}
			if _, at, _, ok := p.read(0, 1<<60); at != tt.want || ok == empty {
				t.Errorf("read gives %d, %v", at, ok)
			}
		})
	}
}

// TestRetentionMoves appends far more than is kept: memory follows what is kept.
func TestRetentionMoves(t *testing.T) {
	p := newPartition("0")
	keep := Retention{Events: 3000, Bytes: 1 << 30, Age: time.Hour}
	for i := range 100_000 {
		if seq := p.append([]event{{bare: []byte{1}}}, time.UnixMilli(int64(i)), keep); seq != int64(i) {
			t.Fatalf("sequence %d, want %d", seq, i)
		}
	}
	if len(p.events) > 3*3000 || p.bytes != 3000*(eventOverhead+1) || p.expired != 97_000 {
		t.Errorf("%d slots, %d bytes, %d expired", len(p.events), p.bytes, p.expired)
	}
	for _, seq := range []int64{97_000, 98_500, 99_999} {
		if e, at, _, ok := p.read(seq, 1<<60); !ok || at != seq || e.enqueued != seq {
			t.Errorf("event %d: %d, time %d, %v", seq, at, e.enqueued, ok)
		}
	}
}

// TestTimeNeverGoesBack: a clock that is set back does not disorder a partition.
func TestTimeNeverGoesBack(t *testing.T) {
	p := newPartition("0")
	keep := DefaultConfig().Retention
	for _, ms := range []int64{100, 50, 120} {
		p.append([]event{{}}, time.UnixMilli(ms), keep)
	}
	if e, _, _, _ := p.read(1, 1<<60); e.enqueued != 100 {
		t.Errorf("time %d, want 100", e.enqueued)
	}
	if seq, err := p.start(filter{field: byTime, value: 100}); seq != 2 || err != nil {
		t.Errorf("start %d, %v, want 2", seq, err)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	err := Config{
		Hubs:           []Hub{{Name: "a b", Partitions: 0, ConsumerGroups: []string{"no/slash"}}, {Name: "x", Partitions: 1}, {Name: "X", Partitions: 1}},
		Retention:      Retention{Events: -1},
		MaxMessageSize: 5, MaxFrameSize: 5, MaxConnections: -1, IdleTimeout: 1,
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"a b"`, "0 partitions", `"no/slash"`, `"X": twice`, "retention", "message size", "frame size", "connections", "idle"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	cfg := DefaultConfig()
	cfg.Hubs = []Hub{{Name: "h", Partitions: 1}}
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults are invalid: %v", err)
	}
}

func TestTokens(t *testing.T) {
	// Made with the recipe of the service's documentation, by openssl:
	// printf 'sb%%3a%%2f%%2fns%%2flogs\n4102444800' | openssl dgst -sha256 -hmac key -binary | base64
	token := func(sig, skn, se string) string {
		return "SharedAccessSignature sr=sb%3a%2f%2fns%2flogs&sig=" + sig + "&se=" + se + "&skn=" + skn
	}
	const good = "ZdTpZZ2GkzilGmrrRJmhOZH%2FcK0lJ%2FwcWQ3ntasevRI%3D"
	now := time.Unix(1_700_000_000, 0)
	scope, ends, err := checkToken(token(good, "policy", "4102444800"), "policy", "key", now)
	if err != nil || scope != "logs" || ends.Unix() != 4102444800 {
		t.Errorf("%q, %v, %v", scope, ends, err)
	}
	for name, tok := range map[string]string{
		"signature": token("AAAA", "policy", "4102444800"), "name": token(good, "other", "4102444800"),
		"end": token(good, "policy", "4102444801"), "form": "Bearer x",
	} {
		if _, _, err := checkToken(tok, "policy", "key", now); err == nil {
			t.Errorf("a token with another %s is valid", name)
		}
	}
	if _, _, err := checkToken(token(good, "policy", "4102444800"), "policy", "key", time.Unix(4102444800, 0)); err == nil {
		t.Error("an expired token is valid")
	}
	for _, tt := range []struct {
		scope, path string
		want        bool
	}{{"", "x", true}, {"logs", "logs", true}, {"logs", "logs/partitions/0", true}, {"logs", "logs2", false}, {"logs/partitions/0", "logs", false}} {
		if covers(tt.scope, tt.path) != tt.want {
			t.Errorf("covers(%q, %q) is not %v", tt.scope, tt.path, tt.want)
		}
	}
}
