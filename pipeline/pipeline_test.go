package pipeline

import (
	"testing"
	"time"
)

func TestBlobIDStreamAndHour(t *testing.T) {
	for _, c := range []struct{ path, stream, hour string }{
		{
			"flowLogResourceID=/SUB_NETWORKWATCHERRG/NETWORKWATCHER_WESTUS_LOG/y=2026/m=11/d=23/h=06/m=00/macAddress=000D3A1B2C3D/PT1H.json",
			"a/c/flowLogResourceID=/SUB_NETWORKWATCHERRG/NETWORKWATCHER_WESTUS_LOG/macAddress=000D3A1B2C3D/PT1H.json", "2026-11-23T06:00:00Z",
		},
		{"x/y=2026/m=2/d=3/h=4/m=00/PT1H.json", "a/c/x/PT1H.json", "2026-02-03T04:00:00Z"},
		{"x/y=2026/m=06/d=31/h=04/m=00/PT1H.json", "a/c/x/y=2026/m=06/d=31/h=04/m=00/PT1H.json", ""},
		{"plain.json", "a/c/plain.json", ""},
		{"y/y=1/z/y=2026/m=01/d=02/h=03/m=00", "a/c/y/y=1/z", "2026-01-02T03:00:00Z"},
		{"x/y=2026/m=01/d=02/h=03/m=00x/f", "a/c/x/y=2026/m=01/d=02/h=03/m=00x/f", ""},
	} {
		b := BlobID{Account: "a", Container: "c", Path: c.path}
		if got := b.Stream(); got != c.stream {
			t.Errorf("stream of %q is %q, want %q", c.path, got, c.stream)
		}
		hour, ok := b.Hour()
		if ok != (c.hour != "") || ok && hour.Format(time.RFC3339) != c.hour {
			t.Errorf("hour of %q is %v %v, want %q", c.path, hour, ok, c.hour)
		}
		back, err := ParseBlobID(b.String())
		if err != nil || back != b {
			t.Errorf("blob %q came back as %v, %v", b, back, err)
		}
	}
}

func TestBatchIDPacksItsParts(t *testing.T) {
	for _, c := range []struct {
		ledger uint16
		shard  int
		seq    uint64
	}{{0, 0, 0}, {1, 2, 3}, {MaxLedger, MaxShards - 1, MaxSeq}} {
		b := NewBatchID(c.ledger, c.shard, c.seq)
		if b.Ledger() != c.ledger || b.Shard() != c.shard || b.Seq() != c.seq {
			t.Errorf("batch id of %+v gives %v", c, b)
		}
	}
}

// The hash is part of the ledger's format: these values may never change.
func TestShardOfIsFixed(t *testing.T) {
	for stream, want := range map[string]int{"": 2, "a/c/x": 1} {
		if got := ShardOf(stream, 4); got != want {
			t.Errorf("shard of %q is %d, want %d", stream, got, want)
		}
	}
}
