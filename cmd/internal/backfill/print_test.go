package backfill

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var printHour = time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC)

var printed = Estimate{
	Tally: Tally{
		Blobs: map[Fate]int64{Todo: 1234, Landed: 100, Live: 20, Growing: 3, Uncertain: 1, Gone: 2},
		Bytes: 5_600_000_000, Rewritten: 1, Resumed: 12, Uncertain: []string{"a/c/evil\x1b[2J"},
		Oldest: printHour, Newest: printHour.Add(47 * time.Hour),
	},
	Requests: 1300, Time: 134 * time.Second, Strange: 4,
}

func TestPrintEstimate(t *testing.T) {
	var out bytes.Buffer
	border := Border{Start: printHour.Add(30 * time.Minute), Limit: printHour.Add(70*time.Hour + 10*time.Minute), First: printHour.Add(71 * time.Hour)}
	if err := (Printer{Out: &out}).Estimate(printed, border, map[string]int{"link": 2, "gzip": 1}); err != nil {
		t.Fatal(err)
	}
	want := `to land                    1,234 blobs  5.6 GB, hours 2026-11-01 06:00 to 2026-11-03 05:00 UTC
                           12 blobs     of them go on behind what has landed of them
                           1 blobs      of them were rewritten since they landed: their rows land anew, as another generation
landed already             100 blobs    
left to the live pipeline  20 blobs     it reads hours from 2026-11-04 05:00 UTC on: it began at 2026-11-01 06:30, and its age limit is at 2026-11-04 04:10 now
still growing              3 blobs      their hour has hardly ended: run this again in two hours
gone                       2 blobs      they went away meanwhile
left alone                 1 blobs      the target has rows of them of a commit that no ledger here knows: restore that ledger, or run this where its state folder is
passed over                4 blobs      they lie in a folder of an hour and name another one, or none
passed over                1 files      they are compressed: unpack them first
passed over                2 files      they are links
  left alone: "a/c/evil\x1b[2J"
about 1,300 requests and 2m14s
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPrintNothingToDo(t *testing.T) {
	var out bytes.Buffer
	if err := (Printer{Out: &out}).Estimate(Estimate{Tally: Tally{Blobs: map[Fate]int64{Landed: 1}}}, Border{}, nil); err != nil {
		t.Fatal(err)
	}
	if want := "to land         0 blobs  \nlanded already  1 blobs  \n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestPrintResult(t *testing.T) {
	r := Result{Tally: printed.Tally, Rows: 1_234_567, Read: 81_000_000, Quarantined: 5, Vanished: 1, Took: 65432 * time.Millisecond}
	for range 7 {
		r.Failed = append(r.Failed, Failed{"a/c/p", `read blob "a/c/p": status 403`})
	}
	var out bytes.Buffer
	if err := (Printer{Out: &out}).Result(r); err != nil {
		t.Fatal(err)
	}
	want := "landed 1,234,567 rows of 1,227 blobs, 81.0 MB, in 1m5.4s; 5 entries in quarantine; 1 blobs went away meanwhile\n" +
		strings.Repeat("  could not be read: read blob \"a/c/p\": status 403\n", 5) + "  and 2 more\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	p := Printer{Out: &out, JSON: true}
	if err := p.Estimate(printed, Border{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Result(r); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for line := range strings.Lines(out.String()) {
		var v struct {
			Kind  string
			Blobs map[string]int64
			Rows  int64
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Blobs["todo"] != 1234 {
			t.Errorf("%s: %v", line, err)
		}
		kinds = append(kinds, v.Kind)
	}
	if diff := cmp.Diff([]string{"estimate", "result"}, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestBar(t *testing.T) {
	e := Estimate{Tally: Tally{Blobs: map[Fate]int64{Todo: 10}, Bytes: 1000}}
	for _, c := range []struct {
		p     Progress
		width int
		want  string
	}{
		{Progress{}, 10, "[----------]   0 %  0 of 10 blobs, 0 B of 1.0 kB, 0 rows"},
		{Progress{4, 500, 12345}, 10, "[#####-----]  50 %  4 of 10 blobs, 500 B of 1.0 kB, 12,345 rows, 8s left"},
		{Progress{10, 998, 1}, 0, "100 %  10 of 10 blobs, 998 B of 1.0 kB, 1 rows, 0s left"},
		{Progress{10, 1200, 1}, 4, "[####] 100 %  10 of 10 blobs, 1.2 kB of 1.0 kB, 1 rows"},
	} {
		if got := Bar(c.p, e, 8*time.Second, c.width); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
}
