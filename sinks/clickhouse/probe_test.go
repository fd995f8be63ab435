package clickhouse

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// Sixty batches of a minute each lie merged in one part: 32 MACs, of which a batch
// has 8. A MAC's rows fill eight granules; a probe reads those of its own minute.
func TestProbeReadsFewGranules(t *testing.T) {
	s := ready(t)
	ask(t, s, `INSERT INTO flows (time, mac, batch_id)
SELECT toDateTime64('2026-11-23 00:00:00', 3, 'UTC') + toIntervalMillisecond(b * 60000 + number * 7919 % 60000),
    '000D3A' || leftPad(hex(b % 4 * 8 + intDiv(number, 60) % 8), 6, '0'), number % 60 AS b
FROM numbers(2000000) SETTINGS max_insert_threads = 1, max_block_size = 2000000, min_insert_block_size_rows = 2000000, async_insert = 0`)
	ask(t, s, "OPTIMIZE TABLE flows FINAL")
	const batch = 30
	ref := pipeline.PieceRef{
		Table: "flows", Partition: "20261123", Rows: 33_333,
		MinTime: sinktest.Day.Add(batch * time.Minute).UnixMilli(), MaxTime: sinktest.Day.Add((batch+1)*time.Minute).UnixMilli() - 1,
	}
	for i := range 8 {
		ref.MACs = append(ref.MACs, sinktest.MAC(batch%4*8+i))
	}
	all := marks(t, s, "SELECT count() FROM flows WHERE NOT ignore(time)")
	probe := marks(t, s, s.first.probeSQL(schemas.Flows, batch, []pipeline.PieceRef{ref}))
	t.Logf("the probe reads %d of %d granules", probe, all)
	if all < 240 || probe > 24 {
		t.Errorf("the probe reads %d of %d granules, want at most 24 of 244", probe, all)
	}
	n, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{ref})
	if err != nil || n[0] != ref.Rows {
		t.Errorf("probe is %v, %v, want %d", n, err, ref.Rows)
	}
	ref.MACs = nil // Too many to list: the time range and the index on batch_id are left.
	if wide := marks(t, s, s.first.probeSQL(schemas.Flows, batch, []pipeline.PieceRef{ref})); wide > all/2 {
		t.Errorf("without MACs the probe reads %d of %d granules", wide, all)
	}
	if n, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{ref}); err != nil || n[0] != ref.Rows {
		t.Errorf("probe without MACs is %v, %v, want %d", n, err, ref.Rows)
	}
}

// marks gives how many granules a question would read.
func marks(t *testing.T, s *Sink, sql string) int {
	t.Helper()
	text := ask(t, s, "SELECT sum(marks) FROM (EXPLAIN ESTIMATE "+sql+")")
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestProbeRefusesPiecesItCannotTellApart(t *testing.T) {
	s := ready(t)
	flows := func(lo, hi int64, macs ...string) pipeline.PieceRef {
		return pipeline.PieceRef{Table: "flows", Partition: "20261123", Rows: 1, MinTime: lo, MaxTime: hi, MACs: macs}
	}
	quarantine := func(lo, hi int64) pipeline.PieceRef {
		return pipeline.PieceRef{Table: "quarantine", Rows: 1, MinTime: lo, MaxTime: hi}
	}
	for name, c := range map[string]struct {
		pieces []pipeline.PieceRef
		good   bool
	}{
		"times apart":           {[]pipeline.PieceRef{flows(1, 2, "A"), flows(3, 4, "A")}, true},
		"MACs apart":            {[]pipeline.PieceRef{flows(1, 2, "A", "B"), flows(1, 2, "C")}, true},
		"tables apart":          {[]pipeline.PieceRef{flows(1, 2, "A"), quarantine(1, 2)}, true},
		"nothing in one":        {[]pipeline.PieceRef{flows(1, 2, "A"), {Table: "flows", MinTime: 1, MaxTime: 2}}, true},
		"one millisecond, MAC":  {[]pipeline.PieceRef{flows(1, 2, "A", "B"), flows(2, 3, "B", "C")}, false},
		"one does not say MACs": {[]pipeline.PieceRef{flows(1, 2, "A"), flows(2, 3)}, false},
		"no MAC in the table":   {[]pipeline.PieceRef{quarantine(1, 5), quarantine(2, 3)}, false},
	} {
		n, err := s.Probe(t.Context(), 1, c.pieces)
		switch {
		case c.good && (err != nil || len(n) != 2):
			t.Errorf("%s: %v, %v", name, n, err)
		case !c.good && (err == nil || !strings.Contains(err.Error(), "BUG: pieces 0 and 1")):
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// MACs come from logs: whatever stands in one is a value, never SQL.
func TestProbeQuotesHostileMACs(t *testing.T) {
	s := ready(t)
	hostile := []string{"'", `\`, `\'`, "') OR 1=1 --", "\x00", "\xff\xfe", "a\nb\tc", "{x:String}", "☃", "/*", "`", strings.Repeat("x", 100_000)}
	ref := pipeline.PieceRef{Table: "flows", Rows: 1, MinTime: 0, MaxTime: 1 << 41, MACs: hostile}
	if n, err := s.Probe(t.Context(), 1, []pipeline.PieceRef{ref}); err != nil || n[0] != 0 {
		t.Errorf("probe is %v, %v", n, err)
	}
	for _, mac := range hostile {
		if got := ask(t, s, "SELECT hex("+schemas.QuoteString(mac)+")"); !strings.EqualFold(got, hexOf(mac)) {
			t.Errorf("%.20q came back as %.40s", mac, got)
		}
	}
}

func hexOf(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString(strconv.FormatUint(uint64(s[i])|0x100, 16)[1:])
	}
	return b.String()
}
