package clickhouse

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

var mergedView = schemas.View{
	Name:    "windows_sinktest_merged",
	Select:  "SELECT window_start, word, maxMap(registers) AS registers FROM windows_sinktest GROUP BY window_start, word",
	Comment: "Merged.",
}

// What Setup made compares equal to what it would make: the second run has nothing
// to do but the views.
func TestSetupTwiceChangesNothing(t *testing.T) {
	s := open(t, config(t, server(t).HTTPURL))
	views := []schemas.View{mergedView, schemas.FlowsReadable}
	for round := range 2 {
		if err := s.Setup(t.Context(), views); err != nil {
			t.Fatal(err)
		}
		have, err := s.first.existing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		statements, err := s.first.plan(have, nil)
		if err != nil || len(statements) > 0 {
			t.Fatalf("after round %d it would run %q, %v", round, statements, err)
		}
	}
	if err := s.CheckSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	for question, want := range map[string]string{
		"SELECT engine FROM system.databases WHERE name = currentDatabase()":                                                                            "Atomic",
		"SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = 'flows'":                                                       schemas.Flows.Comment,
		"SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = 'flows_readable'":                                              schemas.FlowsReadable.Comment,
		"SELECT comment FROM system.columns WHERE database = currentDatabase() AND table = 'flows' AND name = 'bytes_sent'":                             "Bytes source to destination since the flow''s previous tuple; 0 when absent. Unit: bytes. Source: tuple field 11.",
		"SELECT compression_codec FROM system.columns WHERE database = currentDatabase() AND table = 'flows' AND name = 'time'":                         "CODEC(DoubleDelta, ZSTD(1))",
		"SELECT count() FROM system.data_skipping_indices WHERE database = currentDatabase() AND table = 'flows'":                                       "1",
		"SELECT countSubstrings(create_table_query, 'fsync_after_insert = 1') FROM system.tables WHERE database = currentDatabase() AND name = 'flows'": "1",
	} {
		if got, want := ask(t, s, question), strings.ReplaceAll(want, "''", `\'`); got != want {
			t.Errorf("%s\ngives %q, want %q", question, got, want)
		}
	}
}

// An older release's table gets the new columns where they belong, with their
// rows, and the views show them.
func TestSetupAddsColumns(t *testing.T) {
	old := schemas.Flows
	old.Columns = append(append([]schemas.Column{}, schemas.Flows.Columns[:3]...), schemas.Flows.Columns[4:]...)
	old.Columns[1].Meaning = "An older comment."
	old.Comment = "An older comment."
	old.OrderBy, old.MACColumn = "time", ""
	now := schemas.Flows
	now.OrderBy, now.MACColumn = "time", ""
	c := config(t, server(t).HTTPURL)
	before := open(t, c, old)
	if err := before.Setup(t.Context(), []schemas.View{schemas.FlowsReadable}); err != nil {
		t.Fatal(err)
	}
	ask(t, before, "INSERT INTO flows (time, cloud, src_ip) VALUES ('2026-11-23 00:00:00', 'azure', '::ffff:10.0.0.4'), ('2026-11-23 00:00:01', 'aws', '1:2:0:0:ffff::ffff:1')")
	ask(t, before, "ALTER TABLE flows ADD COLUMN owners_own String DEFAULT 'kept'")
	s := open(t, c, now)
	if err := s.Setup(t.Context(), []schemas.View{schemas.FlowsReadable}); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, s, "SELECT cloud, mac, src_ip, owners_own FROM flows_readable ORDER BY time"),
		"azure\t\t10.0.0.4\tkept\naws\t\t1:2::ffff:0:ffff:1\tkept"; got != want {
		t.Errorf("rows after adding a column are %q, want %q", got, want)
	}
	if got := ask(t, s, "SELECT groupArray(name) FROM (SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'flows' ORDER BY position LIMIT 5)"); got != "['time','cloud','format','mac','src_ip']" {
		t.Errorf("columns begin with %s", got)
	}
	if err := s.CheckSettings(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSetupRefusesOtherTables(t *testing.T) {
	s := ready(t)
	ask(t, s, "DROP TABLE flows")
	ask(t, s, "CREATE TABLE flows (time DateTime64(3, 'UTC'), cloud String, mac UInt64 MATERIALIZED 1) ENGINE = MergeTree ORDER BY time")
	ask(t, s, "ALTER TABLE quarantine DROP COLUMN detail")
	err := s.Setup(t.Context(), nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		`table "flows": partition key is "", want "toYYYYMMDD(time)"`,
		`table "flows": sorting key is "time", want "mac, time"`,
		`table "flows": type of column "cloud" is "String", want "LowCardinality(String)"`,
		`table "flows": column "mac" is MATERIALIZED`,
		`RENAME TABLE`,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
	if got := ask(t, s, "SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'quarantine' AND name = 'detail'"); got != "0" {
		t.Error("a table was changed although another was refused")
	}
	c := s.first.config
	c.Database = "default"
	if err := open(t, c).Setup(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "want Atomic") {
		t.Errorf("set-up in a database of another engine: %v", err)
	}
}

func TestRegisterLedger(t *testing.T) {
	s := ready(t)
	register := func(name string, shards int, allow bool) (uint16, error) {
		return s.RegisterLedger(t.Context(), name, shards, allow)
	}
	if id, err := register("first", 4, false); id != 1 || err != nil {
		t.Fatalf("first ledger: %d, %v, want 1", id, err)
	}
	if id, err := register("it's \\ odd", 2, false); id != 2 || err != nil {
		t.Fatalf("second ledger: %d, %v, want 2", id, err)
	}
	batch := pipeline.NewBatchID(1, 0, 1)
	if err := s.Land(t.Context(), batch, 1, remake(t, batch)); err != nil {
		t.Fatal(err)
	}
	if id, err := register("first", 4, false); id != 1 || err != nil {
		t.Errorf("the first ledger again: %d, %v, want 1", id, err)
	}
	if id, err := register("third", 4, false); !errors.Is(err, ErrForeignRows) || id != 0 {
		t.Errorf("a new ledger on a table with rows: %d, %v, want ErrForeignRows", id, err)
	}
	if id, err := register("third", 4, true); id != 3 || err != nil {
		t.Errorf("the same, allowed: %d, %v, want 3", id, err)
	}
	if _, err := register("first", 8, false); err == nil || !strings.Contains(err.Error(), "registered with 4 shards") {
		t.Errorf("another count of shards: %v", err)
	}
	for _, bad := range []struct {
		name   string
		shards int
	}{{"", 4}, {"x", 0}, {"x", pipeline.MaxShards + 1}, {strings.Repeat("x", 257), 1}} {
		if _, err := register(bad.name, bad.shards, true); err == nil {
			t.Errorf("name of %d bytes with %d shards was registered", len(bad.name), bad.shards)
		}
	}
}

// Ledgers that register at once get different ids, and keep them after the rows
// of the table were merged.
func TestRegisterLedgersAtOnce(t *testing.T) {
	s := ready(t)
	const ledgers = 12
	ids, errs := make([]uint16, ledgers), make([]error, ledgers)
	var wg sync.WaitGroup
	for i := range ledgers {
		wg.Go(func() {
			other := s
			if i%2 == 0 {
				other = open(t, s.first.config)
			}
			ids[i], errs[i] = other.RegisterLedger(t.Context(), fmt.Sprintf("ledger %d", i/2), 4, false)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	names := map[uint16]string{}
	again := func() {
		for i := range ledgers {
			name := fmt.Sprintf("ledger %d", i/2)
			id, err := s.RegisterLedger(t.Context(), name, 4, false)
			if err != nil || id != ids[i] {
				t.Errorf("%s got %d first and %d later, %v", name, ids[i], id, err)
			}
			if other, taken := names[id]; taken && other != name {
				t.Errorf("%s and %s have id %d", name, other, id)
			}
			names[id] = name
		}
	}
	again()
	ask(t, s, "OPTIMIZE TABLE ledgers FINAL")
	again()
}

func TestLandBatches(t *testing.T) {
	s := ready(t)
	manifests := []pipeline.Manifest{
		{Batch: pipeline.NewBatchID(1, 2, 3), Created: 1_700_000_000_123, Units: []pipeline.Unit{
			{Blob: pipeline.BlobID{Account: "a", Container: "c", Path: "p/x.json"}, Generation: 1, Offset: 12, Length: 100, Hash: "00ff", Rows: 7},
			{Blob: pipeline.BlobID{Account: "a", Container: "c", Path: "p/y.json"}, Offset: 0, Length: 1 << 40, Hash: "11", Quarantined: 2},
		}},
		{Batch: pipeline.NewBatchID(1, 2, 4), Created: 1_702_000_000_000}, // A batch that moved only the watermark.
	}
	for range 3 {
		if err := s.LandBatches(t.Context(), manifests); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.LandBatches(t.Context(), manifests[1:]); err != nil {
		t.Fatal(err)
	}
	got := ask(t, s, "SELECT batch_id, committed, blob, generation, offset, length, hash, rows, quarantined FROM batches FINAL ORDER BY blob")
	want := "281612415664131\t2023-11-14 22:13:20.123\ta/c/p/x.json\t1\t12\t100\t00ff\t7\t0\n281612415664131\t2023-11-14 22:13:20.123\ta/c/p/y.json\t0\t0\t1099511627776\t11\t0\t2"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	bad := DefaultConfig()
	bad.URL, bad.Database, bad.DialTimeout, bad.CAFile = "http://user:canary@host", "drop table", 0, "/nowhere"
	odd := schemas.Table{Name: "a-b", Columns: []schemas.Column{{Name: "x`y", ClickHouse: "UInt8) ENGINE = Null; --"}}, OrderBy: "x"}
	_, err := New(bad, []schemas.Table{odd})
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, part := range []string{"url holds a user or password", `database "drop table"`, "dial_timeout", "ca_file is set", `table "a-b"`, "column \"x`y\"", "no plain expression"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the password stands in the error: %v", err)
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}
