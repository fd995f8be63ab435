package clickhouse

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/sinks/sinktest"
)

func TestCheckSettingsAcceptsTheEmbeddedServer(t *testing.T) {
	eachWire(t, func(t *testing.T, wire string) {
		if err := readyOver(t, wire).CheckSettings(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Before Setup there are no tables: what counts is whether Setup may make them.
func TestExamineBeforeSetup(t *testing.T) {
	admin, _ := strangeServer(t)
	fresh := admin
	fresh.Database = "not_there_yet"
	if err := open(t, fresh).Examine(t.Context()); err != nil {
		t.Errorf("of a user who may make tables: %v", err)
	}
	if err := open(t, admin).Examine(t.Context()); err != nil {
		t.Errorf("after Setup: %v", err)
	}
	poor := fresh
	poor.User, poor.Password = "poor", secret.Secret{}
	err := open(t, poor).Examine(t.Context())
	for _, want := range []string{"GRANT INSERT ON", "GRANT CREATE TABLE ON", "GRANT CREATE VIEW ON"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("of a user who may only read: want %q, have: %v", want, err)
		}
	}
	if text, err := open(t, admin).Exec(t.Context(), "SELECT count() FROM system.databases WHERE name = 'not_there_yet'"); err != nil || strings.TrimSpace(text) != "0" {
		t.Errorf("a look made a database: %q, %v", text, err)
	}
}

// users is a server with users of every awkward kind.
const users = `<clickhouse>
<profiles>
  <reader><readonly>1</readonly></reader>
  <strict><constraints>
    <async_insert><const/></async_insert>
    <max_threads><min>2</min></max_threads>
    <max_insert_block_size><max>1000000</max></max_insert_block_size>
  </constraints></strict>
  <odd>
    <aggregate_functions_null_for_empty>1</aggregate_functions_null_for_empty>
    <limit>3</limit><max_rows_to_read>7</max_rows_to_read><read_overflow_mode>break</read_overflow_mode>
    <async_insert>1</async_insert><wait_for_async_insert>0</wait_for_async_insert>
    <min_insert_block_size_rows>10</min_insert_block_size_rows><max_insert_block_size>10</max_insert_block_size>
    <max_block_size>10</max_block_size><max_threads>8</max_threads>
    <input_format_parallel_parsing>1</input_format_parallel_parsing><use_query_cache>1</use_query_cache>
    <join_use_nulls>1</join_use_nulls><enable_analyzer>0</enable_analyzer>
  </odd>
</profiles>
<users>
  <admin><password>let me in &amp; 'quoted'</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></admin>
  <reader><password></password><networks><ip>127.0.0.1</ip></networks><profile>reader</profile><quota>default</quota></reader>
  <strict><password></password><networks><ip>127.0.0.1</ip></networks><profile>strict</profile><quota>default</quota></strict>
  <odd><password>odd</password><networks><ip>127.0.0.1</ip></networks><profile>odd</profile><quota>default</quota></odd>
  <poor><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT SELECT ON *.*</query></grants></poor>
  <least><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
    <grants>
      <query>GRANT SELECT, INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP VIEW, ALTER ON test_*.*</query><query>GRANT TABLE ENGINE ON Atomic, TABLE ENGINE ON MergeTree, TABLE ENGINE ON ReplacingMergeTree</query>` + grantsOfSystem + `
    </grants></least>
  <lander><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT SELECT, INSERT ON test_*.*</query>` + grantsOfSystem + `</grants></lander>
  <clearer><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT SELECT, INSERT, ALTER CLEAR COLUMN ON test_*.*</query><query>GRANT SELECT ON system.parts_columns</query>` + grantsOfSystem + `</grants></clearer>
</users>
</clickhouse>`

// grantsOfSystem are the tables of system that the sink reads.
const grantsOfSystem = `
      <query>GRANT SELECT ON system.processes</query><query>GRANT SELECT ON system.parts</query><query>GRANT SELECT ON system.settings</query>
      <query>GRANT SELECT ON system.merge_tree_settings</query><query>GRANT SELECT ON system.tables</query><query>GRANT SELECT ON system.columns</query>
      <query>GRANT SELECT ON system.databases</query>`

// strangeServer starts a server with those users beside its own, and gives a
// configuration for "admin" and a database that is set up.
func strangeServer(t *testing.T) (Config, *servers.ClickHouse) {
	bin, lib := pipelinetest.RequirePart(t, localtest.EnvClickHouse), pipelinetest.RequirePart(t, localtest.EnvLibrary)
	dir := t.TempDir()
	// ClickHouse merges what lies in users.d beside the server's users.xml.
	if err := os.MkdirAll(filepath.Join(dir, "etc", "users.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "users.d", "strange.xml"), []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	ch, err := servers.StartClickHouse(t.Context(), servers.ClickHouseOptions{Bin: bin, Lib: lib, Dir: dir, MemoryLimit: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ch.Kill)
	c := config(t, ch.HTTPURL)
	c.User, c.Password = "admin", secret.New("let me in & 'quoted'")
	if err := open(t, c).Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return c, ch
}

func TestUsersOfEveryKind(t *testing.T) {
	admin, ch := strangeServer(t)
	eachWire(t, func(t *testing.T, wire string) {
		admin.URL = urlOver(ch, wire)
		usersOfEveryKind(t, admin, ch.HTTPURL, wire)
	})
}

func usersOfEveryKind(t *testing.T, admin Config, httpURL, wire string) {
	as := func(user string, password string) Config {
		c := admin
		c.User, c.Password = user, secret.New(password)
		return c
	}
	for _, c := range []struct {
		config Config
		want   []string // each a part of one line of the error, in order
	}{
		{admin, nil},
		{as("odd", "odd"), nil},
		{as("reader", ""), []string{"setting readonly is 1", "setting async_insert is 1 and user \"reader\" may not change it to 0", "GRANT INSERT"}},
		{as("strict", ""), []string{"setting async_insert is 1", "setting max_threads is", "setting max_insert_block_size is"}},
		{as("poor", ""), []string{"user \"poor\" lacks a right: GRANT INSERT ON"}},
		{as("admin", "wrong canary"), []string{"check user and password"}},
		{as("nobody", ""), []string{"check user and password"}},
	} {
		if wire == "tcp" && slices.Equal(c.want, []string{"check user and password"}) {
			continue // The embedded server ends itself over such a login: see TestNativeLoginIsRefused.
		}
		err := open(t, c.config).CheckSettings(t.Context())
		if len(c.want) == 0 {
			if err != nil {
				t.Errorf("user %q: %v", c.config.User, err)
			}
			continue
		}
		if err == nil || errors.Is(err, pipeline.ErrTransient) {
			t.Errorf("user %q: error is %v, want faults", c.config.User, err)
			continue
		}
		text := err.Error()
		for _, part := range c.want {
			if !strings.Contains(text, part) {
				t.Errorf("user %q: error lacks %q:\n%s", c.config.User, part, text)
			}
		}
		if strings.Contains(text, "canary") {
			t.Errorf("the password stands in the error: %s", text)
		}
	}
	t.Run("an odd profile changes nothing", func(t *testing.T) {
		sinktest.Run(t, func(t *testing.T) sinktest.Target {
			c := admin
			c.Database = config(t, c.URL).Database
			if err := open(t, c).Setup(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			return oddTarget{newTarget(t, open(t, c), httpURL), c}
		})
	})
}

// oddTarget writes as the user "odd" and looks as "admin".
type oddTarget struct {
	target
	config Config
}

func (g oddTarget) Open(t testing.TB) pipeline.Sink {
	c := g.config
	c.User, c.Password = "odd", secret.New("odd")
	return open(t, c)
}

func TestCheckSettingsRefusesViewsThatMissRows(t *testing.T) {
	s := ready(t)
	for _, sql := range []string{
		"CREATE TABLE sums (mac String, n UInt64) ENGINE = SummingMergeTree ORDER BY mac",
		"CREATE MATERIALIZED VIEW feeding TO sums AS SELECT mac, 1 AS n FROM flows",
		"CREATE MATERIALIZED VIEW inside (day Date, n UInt64) ENGINE = SummingMergeTree ORDER BY day AS SELECT toDate(time) AS day, 1 AS n FROM flows",
		"CREATE MATERIALIZED VIEW carrying (mac String, batch_id UInt64) ENGINE = MergeTree ORDER BY mac AS SELECT mac, batch_id FROM flows",
		"CREATE MATERIALIZED VIEW refreshed REFRESH EVERY 1 HOUR (n UInt64) ENGINE = MergeTree ORDER BY n AS SELECT count() AS n FROM flows",
		"CREATE VIEW plain AS SELECT mac FROM flows",
	} {
		ask(t, s, sql)
	}
	found, err := s.first.checkViews(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		_, view, _ := strings.Cut(f.Error(), "materialized view "+s.first.config.Database+".")
		view, _, _ = strings.Cut(view, ",")
		got = append(got, view)
	}
	if diff := cmp.Diff([]string{"feeding", "inside"}, got); diff != "" {
		t.Errorf("refused views (-want +got):\n%s", diff)
	}
}

func TestCheckSettingsReportsTables(t *testing.T) {
	s := ready(t)
	ask(t, s, "DROP TABLE quarantine")
	ask(t, s, "ALTER TABLE flows MODIFY SETTING fsync_after_insert = 0")
	ask(t, s, "DROP TABLE windows_sinktest")
	ask(t, s, "CREATE TABLE windows_sinktest (window_start DateTime, word String, batch_id UInt64) ENGINE = ReplacingMergeTree ORDER BY word")
	err := s.CheckSettings(t.Context())
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, part := range []string{
		`table "quarantine" is not there`,
		`table "flows" is not up to date, run Setup first; missing: ALTER TABLE`,
		`table "windows_sinktest": engine is "ReplacingMergeTree", want "MergeTree"`,
		`table "windows_sinktest": partition key is "", want "toYYYYMMDD(window_start)"`,
		`table "windows_sinktest": type of column "window_start" is "DateTime", want "DateTime64(3, 'UTC')"`,
		`table "windows_sinktest": type of column "word" is "String", want "LowCardinality(String)"`,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
}

func TestOlderThan(t *testing.T) {
	for _, c := range []struct {
		version string
		older   bool
	}{{"26.7.2.1", false}, {"25.8.1.1", false}, {"25.8", false}, {"25.10.3", false}, {"25.7.9.9", true}, {"24.12.1", true}, {"18.16.1", true}, {"", true}, {"nonsense", true}} {
		if got := olderThan(c.version, MinVersion); got != c.older {
			t.Errorf("olderThan(%q) is %v, want %v", c.version, got, c.older)
		}
	}
}
