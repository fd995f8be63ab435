package demo

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/reconcile"
	"github.com/millrace/millrace/deploy/local/localtest"
)

// What a demo left is spoiled in one way after the other, and the comparison sees
// each. The tables are those of a real demo, so that a good one passes too.
func TestReconciliationSeesTampering(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := startDemo(t, dir, nil, "--for", "2s", "--rate", "20000", "--malformed", "0.001", "-o", "json")
	landed := r.good()
	truth, err := traffic.ReadTruth(filepath.Join(dir, truthName))
	if err != nil || len(truth.Malformed) == 0 {
		t.Fatalf("truth: %v, %d malformed tuples, want some", err, len(truth.Malformed))
	}
	tb := tables{url: localtest.StartClickHouseIn(t, filepath.Join(dir, "clickhouse")).HTTPURL, database: embeddedDatabase}
	if err := tb.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tb.close)
	s := server{url: tb.url}
	judge := func() (Result, []string) {
		t.Helper()
		held, err := tb.held(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		res := newResult(truth)
		var notes []string
		res.Verdict, notes = reconcile.Judge(truth, held)
		return res, notes
	}
	res, notes := judge()
	if !res.Good() || len(notes) > 0 || res.RowsLanded != landed.RowsLanded {
		t.Fatalf("untouched: %+v, %q", res, notes)
	}
	// One row of flows, by its address, and one entry of the quarantine.
	row := s.query(t, `SELECT format('blob = \'{}\' AND record_offset = {} AND ordinal = {}', blob, toString(record_offset), toString(ordinal))
		FROM millrace.flows ORDER BY blob, record_offset, ordinal LIMIT 1 FORMAT TSVRaw`)
	bad := truth.Malformed[0]
	entry := fmt.Sprintf("blob = '%s' AND record_offset = %d AND ordinal = %d", bad.Blob, bad.RecordOffset, bad.Ordinal)
	const sync = " SETTINGS mutations_sync = 2"
	s.query(t, "CREATE TABLE millrace.before AS millrace.flows")
	s.query(t, "INSERT INTO millrace.before SELECT * FROM millrace.flows")
	for _, c := range []struct {
		name, sql string
		want      reconcile.Verdict
		note      string
	}{
		{
			"a row is doubled", "INSERT INTO millrace.flows SELECT * FROM millrace.flows WHERE " + row,
			reconcile.Verdict{Duplicated: 1},
			"1 rows too many",
		},
		{
			// Both copies.
			"a row is lost", "ALTER TABLE millrace.flows DELETE WHERE " + row + sync,
			reconcile.Verdict{Lost: 1},
			"have no row",
		},
		{
			"a row comes back altered", "INSERT INTO millrace.flows SELECT * REPLACE (bytes_sent + 1 AS bytes_sent) FROM millrace.before WHERE " + row,
			reconcile.Verdict{Altered: 1},
			"the sums of its columns differ",
		},
		{
			"a window is short of a row", "INSERT INTO millrace.windows_traffic_1m SELECT * REPLACE (toUInt64(-1) AS rows, 0 AS bytes_sent, 0 AS bytes_received) FROM millrace.windows_traffic_1m LIMIT 1",
			reconcile.Verdict{Altered: 1, MinutesAltered: 1},
			"windows of ",
		},
		{
			"a malformed tuple is forgotten", "ALTER TABLE millrace.quarantine DELETE WHERE " + entry + sync,
			reconcile.Verdict{Altered: 1, MinutesAltered: 1, Lost: 1},
			"is not in quarantine",
		},
		{
			"rows of a blob that nobody wrote", "INSERT INTO millrace.flows SELECT * REPLACE ('account/container/nobody' AS blob) FROM millrace.flows LIMIT 3",
			reconcile.Verdict{Altered: 1, MinutesAltered: 1, Lost: 1, Duplicated: 3},
			"that nobody wrote",
		},
	} {
		s.query(t, c.sql)
		res, notes := judge()
		got := reconcile.Verdict{Lost: res.Lost, Duplicated: res.Duplicated, Altered: res.Altered, MinutesAltered: res.MinutesAltered}
		if got != c.want || res.Good() || !strings.Contains(strings.Join(notes, "\n"), c.note) {
			t.Errorf("%s: %+v, want %+v; notes %q", c.name, got, c.want, notes)
		}
		if text := strings.Join(res.lines(notes), "\n"); !strings.Contains(text, "THE TABLES DO NOT MATCH") {
			t.Errorf("%s: said %s", c.name, text)
		}
	}
}
