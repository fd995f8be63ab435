package pipeline

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var replays = []Replay{
	{Run: "R1", Blob: BlobID{"acc", "logs", "a/y=2026/m=01/d=02/h=03/m=00/macAddress=00/PT1H.json"}, Offset: 12, Length: 400},
	{Run: "x", Blob: BlobID{"acc", "logs", "p"}, Generation: math.MaxUint32, Offset: math.MaxInt64, Length: math.MaxInt64, Clock: 1763881200123, Ordinals: []uint32{0}},
	{Run: "x", Blob: BlobID{"acc", "logs", "p"}, Ordinals: []uint32{0, 1, 2, 7, 9, 10, math.MaxUint32 - 1, math.MaxUint32}},
	// Paths that look like replays themselves.
	{Run: "x", Blob: BlobID{"acc", "logs", "p#replay=R1-0-12-400-0"}, Length: 1, Ordinals: []uint32{3}},
	{Run: "x", Blob: BlobID{"acc", "logs", "#replay=#replay="}, Length: 1},
	{Run: "x", Blob: BlobID{"acc", "logs", "a-b#c~d.e"}, Length: 1},
}

func TestReplayComesBack(t *testing.T) {
	for _, want := range replays {
		got, err := ParseReplay(want.ID())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.ID(), diff)
		}
		hour, ok := want.Blob.Hour()
		if again, ok2 := want.ID().Hour(); ok && (!ok2 || !again.Equal(hour)) {
			t.Errorf("%s names hour %v, its blob %v", want.ID(), again, hour)
		}
	}
}

func TestReplayIsShort(t *testing.T) {
	r := Replay{Run: "x", Blob: BlobID{"acc", "logs", "p"}}
	for o := range uint32(1 << 20) {
		r.Ordinals = append(r.Ordinals, o)
	}
	if id := r.ID(); id.Path != "p#replay=x-0-0-0-0-0~1048575" {
		t.Errorf("a whole record is written as %.100q", id.Path)
	}
}

func TestOtherNamesAreNoReplays(t *testing.T) {
	for _, path := range []string{
		"", "p", "p#replay", "p#replay=", "#replay=x-0-0-1-0", "p#replay=x-0-0-1", "p#replay=-0-0-1-0", "p#replay=x-0-0-1-0-", "p#replay=x-00-0-1-0",
		"p#replay=x-0-0-1-0-3~3", "p#replay=x-0-0-1-0-3~2", "p#replay=x-0-0-1-0-2.1", "p#replay=x-0-0-1-0-1.2", "p#replay=x-0-0-1-0-1.1", "p#replay=x-0-0-1-0-1-2",
		"p#replay=x-0-+1-1-0", "p#replay=x-0--1-1-0", "p#replay=x-4294967296-0-1-0", "p#replay=x-0-0-1-0-0~4294967295", "p#replay=x y-0-0-1-0", "p#replay=x-0-0-1-0/more",
	} {
		if r, err := ParseReplay(BlobID{"acc", "logs", path}); err == nil {
			t.Errorf("%q was taken for %+v", path, r)
		}
	}
}

func FuzzParseReplay(f *testing.F) {
	for _, r := range replays {
		f.Add(r.ID().Path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		id := BlobID{"acc", "logs", path}
		r, err := ParseReplay(id)
		if err != nil {
			return
		}
		if r.ID() != id || !strings.HasPrefix(path, r.Blob.Path) || r.Blob.Path == "" {
			t.Errorf("%q is read as %+v", path, r)
		}
	})
}
