package backfill

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/pipeline/shard"
)

func TestCover(t *testing.T) {
	datadriven.RunTest(t, "testdata/cover", func(t *testing.T, d *datadriven.TestData) string {
		var spans []Span
		var rows *Last
		for line := range strings.Lines(d.Input) {
			var s Span
			var end int64
			var l Last
			if n, _ := fmt.Sscanf(line, "rows %d:%d", &l.Generation, &l.Offset); n == 2 {
				rows = &l
				continue
			}
			if _, err := fmt.Sscanf(line, "%d %d-%d %s", &s.Generation, &s.Offset, &end, &s.Hash); err != nil {
				d.Fatalf(t, "%q: %v", line, err)
			}
			s.Length = end - s.Offset
			spans = append(spans, s)
		}
		c := cover(spans)
		out := "nothing\n"
		if len(spans) > 0 {
			out = fmt.Sprintf("generation %d: %d to %d, last %d-%d %s", c.generation, c.start, c.end, c.last.Offset, c.last.End(), c.last.Hash)
			if c.hole {
				out += ", then a hole"
			}
			out += "\n"
		}
		if rows != nil {
			out += map[bool]string{false: "the rows are covered\n", true: "the rows are NOT covered\n"}[c.beyond(*rows)]
		}
		return out
	})
}

// The rule is the core's own, hour by hour.
func TestBorder(t *testing.T) {
	parse := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	datadriven.RunTest(t, "testdata/border", func(t *testing.T, d *datadriven.TestData) string {
		var start, now string
		d.ScanArgs(t, "start", &start)
		d.ScanArgs(t, "now", &now)
		b := border{start: parse(start), now: parse(now), keep: shard.DefaultConfig().KeepOffsets}
		out := fmt.Sprintf("first hour of the live pipeline: %s\n", b.cutoff().Format(time.RFC3339))
		for h := b.cutoff().Add(-100 * time.Hour); h.Before(b.cutoff().Add(100 * time.Hour)); h = h.Add(time.Hour) {
			if ours := shard.Outside(h, b.start, b.now, b.keep) != ""; ours != h.Before(b.cutoff()) {
				t.Errorf("%s: the core leaves hour %v: %v", d.Pos, h, ours)
			}
		}
		for line := range strings.Lines(d.Input) {
			fate := string(b.fate(parse(strings.TrimSpace(line))))
			out += fmt.Sprintf("%s %s\n", strings.TrimSpace(line), map[bool]string{true: "-", false: fate}[fate == ""])
		}
		return out
	})
}
