package schemas

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func all() []Table {
	return []Table{Flows, EnrichedFlows, Quarantine, Batches, Ledgers, Fence, Forgotten}
}

// The golden file is the whole of what Setup creates, to be read when it changes.
func TestCreateSQLGolden(t *testing.T) {
	var b strings.Builder
	for _, table := range all() {
		if table.Required > 0 {
			continue // the columns follow below
		}
		sql, err := table.CreateSQL("millrace")
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(sql + ";\n\n")
	}
	for _, c := range Enrichment {
		b.WriteString("-- with enrichment, flows also has " + c.definition() + "\n")
	}
	b.WriteByte('\n')
	sql, err := FlowsReadable.CreateSQL("millrace")
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString(sql + ";\n")
	path := filepath.Join("testdata", "tables.sql")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", path, diff)
	}
}

func TestMigrateSQL(t *testing.T) {
	table := Table{
		Name: "t", OrderBy: "a, time", PartitionBy: "toYYYYMMDD(time)", TimeColumn: "time", Comment: "A table.", Settings: []string{"fsync_after_insert=0", "ttl_only_drop_parts=1"},
		Columns: []Column{
			{"time", TimeMS, "DateTime64(3, 'UTC')", "DoubleDelta", "ms UTC", "When.", "field 1"},
			{"a", Word, "LowCardinality(String)", "", "", "It's a.", ""},
			{"b", Word, "LowCardinality(String)", "ZSTD(1)", "", "", ""},
		},
	}
	good := Existing{
		Engine: "MergeTree", PartitionKey: "toYYYYMMDD(time)", SortingKey: "a, time", Comment: "A table.",
		EngineFull: "MergeTree PARTITION BY toYYYYMMDD(time) ORDER BY (a, time) SETTINGS fsync_part_directory = 1, non_replicated_deduplication_window = 0, fsync_after_insert = 0, ttl_only_drop_parts = 1, index_granularity = 8192",
		Columns: []ExistingColumn{
			{"time", "DateTime64(3, 'UTC')", "When. Unit: ms UTC. Source: field 1.", ""}, {"a", "LowCardinality(String)", "It's a.", ""}, {"b", "LowCardinality(String)", "", ""}, {"own", "String", "", "DEFAULT"},
		},
	}
	for _, c := range []struct {
		name   string
		change func(e *Existing)
		want   []string
		fault  string
	}{
		{"nothing", func(*Existing) {}, nil, ""},
		{"a column is missing", func(e *Existing) { e.Columns = e.Columns[:2] }, []string{"ALTER TABLE `d`.`t` ADD COLUMN IF NOT EXISTS `b` LowCardinality(String) CODEC(ZSTD(1)) AFTER `a`"}, ""},
		{"the first column is missing", func(e *Existing) { e.Columns = e.Columns[1:] }, []string{"ALTER TABLE `d`.`t` ADD COLUMN IF NOT EXISTS `time` DateTime64(3, 'UTC') COMMENT 'When. Unit: ms UTC. Source: field 1.' CODEC(DoubleDelta) FIRST"}, ""},
		{"comments", func(e *Existing) { e.Comment, e.Columns[1].Comment = "", "x" }, []string{"ALTER TABLE `d`.`t` COMMENT COLUMN `a` 'It\\'s a.'", "ALTER TABLE `d`.`t` MODIFY COMMENT 'A table.'"}, ""},
		{"settings", func(e *Existing) { e.EngineFull = "MergeTree ORDER BY a SETTINGS fsync_after_insert = 1" }, []string{
			"ALTER TABLE `d`.`t` MODIFY SETTING fsync_part_directory=1", "ALTER TABLE `d`.`t` MODIFY SETTING non_replicated_deduplication_window=0",
			"ALTER TABLE `d`.`t` MODIFY SETTING fsync_after_insert=0", "ALTER TABLE `d`.`t` MODIFY SETTING ttl_only_drop_parts=1",
		}, ""},
		{"engine", func(e *Existing) { e.Engine = "ReplacingMergeTree" }, nil, `engine is "ReplacingMergeTree", want "MergeTree"`},
		{"key", func(e *Existing) { e.SortingKey = "time" }, nil, `sorting key is "time", want "a, time"`},
		{"partition", func(e *Existing) { e.PartitionKey = "" }, nil, `partition key is "", want "toYYYYMMDD(time)"`},
		{"type", func(e *Existing) { e.Columns[0].Type = "DateTime" }, nil, `type of column "time" is "DateTime", want "DateTime64(3, 'UTC')"`},
		{"default", func(e *Existing) { e.Columns[1].Default = "ALIAS" }, nil, `column "a" is ALIAS`},
	} {
		t.Run(c.name, func(t *testing.T) {
			have := good
			have.Columns = append([]ExistingColumn{}, good.Columns...)
			c.change(&have)
			got, err := table.MigrateSQL("d", have)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("error is %v, want %q", err, c.fault)
				}
				return
			}
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestTablesAreValid(t *testing.T) {
	for _, table := range all() {
		if err := table.Validate(); err != nil {
			t.Error(err)
		}
		if table.Index("batch_id") >= 0 && table.Engine == "MergeTree" && table.TimeColumn == "" {
			t.Errorf("table %q lands pieces and has no time column", table.Name)
		}
	}
}

// Rows without enrichment are the first columns of those with it.
func TestOf(t *testing.T) {
	for n, want := range map[int]int{len(Flows.Columns): len(Flows.Columns), len(Flows.Columns) + 1: len(Flows.Columns) + 1, 3: len(EnrichedFlows.Columns), 99: len(EnrichedFlows.Columns)} {
		if got := EnrichedFlows.Of(n); len(got.Columns) != want {
			t.Errorf("of %d columns: %d, want %d", n, len(got.Columns), want)
		}
	}
	if diff := cmp.Diff(Flows.ColumnNames(), EnrichedFlows.Of(len(Flows.Columns)).ColumnNames()); diff != "" {
		t.Error(diff)
	}
	bare := EnrichedFlows
	bare.Bare = true
	want, err := Flows.CreateSQL("d")
	if got, err2 := bare.CreateSQL("d"); got != want || err != nil || err2 != nil {
		t.Errorf("made bare, it is %s, %v, %v", got, err, err2)
	}
	if got := Flows.Of(3); len(got.Columns) != len(Flows.Columns) {
		t.Errorf("a table without optional columns was cut to %d", len(got.Columns))
	}
}

func FuzzIdentifier(f *testing.F) {
	for _, s := range []string{"flows", "", "1a", "a b", "a`b", "a\x00", "ä", strings.Repeat("a", 65), "x'; DROP TABLE y --"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckIdentifier("name", s) != nil {
			return
		}
		if q := QuoteName(s); len(s) > 64 || strings.Trim(q, "`abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || q != "`"+s+"`" {
			t.Errorf("%q became %s", s, q)
		}
	})
}

// FuzzQuoteString checks that the literal ends where it ends: no quote inside that
// is not escaped, nothing below a blank.
func FuzzQuoteString(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, "a\nb", "\x00", "\xff", `'; DROP TABLE x; --`, "☃"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := QuoteString(s)
		if len(q) < 2 || q[0] != '\'' || q[len(q)-1] != '\'' {
			t.Fatalf("%q became %s", s, q)
		}
		for i := 1; i < len(q)-1; i++ {
			switch c := q[i]; {
			case c == '\\':
				i++
			case c == '\'' || c < 0x20:
				t.Fatalf("%q became %s: open at %d", s, q, i)
			}
			if i == len(q)-1 {
				t.Fatalf("%q became %s: the last quote is escaped", s, q)
			}
		}
	})
}
