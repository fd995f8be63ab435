package reload_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/reload"
)

const base = `
state: s
start: now
log_level: info
max_batch_age: 5s
accounts:
  - {name: a, endpoint: "https://a.example", containers: [flowlogs], key: {file: KEY}}
clickhouse: {url: "http://h:8123"}
`

// edited is a file that is watched, with what its hooks saw.
type edited struct {
	*reload.Watcher
	t    *testing.T
	path string
	text string
	saw  []string
	no   error // what the second hook answers
}

func newEdited(t *testing.T) *edited {
	t.Helper()
	dir := t.TempDir()
	e := &edited{t: t, path: filepath.Join(dir, "millrace.yaml"), text: strings.Replace(base, "KEY", filepath.Join(dir, "key"), 1)}
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("a2V5"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.edit("", "")
	cfg, err := config.Load(e.path)
	if err != nil {
		t.Fatal(err)
	}
	e.Watcher = reload.New(e.path, cfg, slog.New(slog.DiscardHandler))
	e.OnReload(func(old, fresh config.Config) error {
		e.saw = append(e.saw, fmt.Sprintf("%v %s -> %v %s", old.MaxBatchAge, old.LogLevel, fresh.MaxBatchAge, fresh.LogLevel))
		return nil
	})
	e.OnReload(func(config.Config, config.Config) error { return e.no })
	return e
}

func (e *edited) edit(old, fresh string) {
	e.t.Helper()
	if err := os.WriteFile(e.path, []byte(strings.Replace(e.text, old, fresh, 1)), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	e := newEdited(t)
	for _, c := range []struct{ old, fresh, want string }{
		{"max_batch_age: 5s", "max_batch_age: 2s", ""},
		{"state: s", "state: other", "state: cannot change while the pipeline runs"},
		{"url: \"http://h:8123\"", "url: \"http://other:8123\"", "clickhouse.url: cannot change"},
		{"max_batch_age: 5s", "max_batch_age: 1ms", "max_batch_age: 1ms: want at least 1s"},
		{"max_batch_age", "max_batch_agee", "unknown key, did you mean max_batch_age?"},
		{"/key}", "/none}", "accounts[0].key: read secret"},
		{"log_level: info", "log_level: debug", ""},
	} {
		e.edit(c.old, c.fresh)
		err := e.Reload()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, have: %v", c.fresh, c.want, err)
		}
	}
	// The age went back to what stands in the file, with the level.
	want := []string{"5s info -> 2s info", "2s info -> 5s debug"}
	if diff := cmp.Diff(want, e.saw); diff != "" {
		t.Error(diff)
	}
}

// A hook that refuses takes back what those before it have done.
func TestReloadIsAllOrNothing(t *testing.T) {
	e := newEdited(t)
	e.no = errors.New("not today")
	e.edit("log_level: info", "log_level: warn")
	if err := e.Reload(); !errors.Is(err, e.no) {
		t.Errorf("have: %v", err)
	}
	e.no = nil
	if err := e.Reload(); err != nil {
		t.Error(err)
	}
	want := []string{"5s info -> 5s warn", "5s warn -> 5s info", "5s info -> 5s warn"}
	if diff := cmp.Diff(want, e.saw); diff != "" {
		t.Error(diff)
	}
}

func TestChanges(t *testing.T) {
	old, err := config.Parse([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	fresh := old
	fresh.OutOfOrderness, fresh.Sweeper.Interval, fresh.ClickHouse.User = time.Minute, time.Hour, "x"
	fresh.EventHubs = []config.EventHub{{Hub: "h"}}
	fresh.Accounts = []config.Account{{Name: "new"}, old.Accounts[0]}
	fresh.Accounts[1].Endpoint, fresh.Accounts[1].Key = "https://other.example", config.Reference{Env: "KEY"}
	want := []config.Change{
		{Key: "out_of_orderness", Live: true},
		{Key: "accounts[0]", Live: true},
		{Key: "accounts[1].endpoint"},
		{Key: "accounts[1].key", Live: true},
		{Key: "eventhubs", Live: true},
		{Key: "sweeper.interval", Live: true},
		{Key: "clickhouse.user"},
	}
	if diff := cmp.Diff(want, config.Changes(old, fresh)); diff != "" {
		t.Error(diff)
	}
}

// A rotated secret that only a start reads is refused, not called taken over.
func TestFixedSecrets(t *testing.T) {
	e := newEdited(t)
	password := filepath.Join(filepath.Dir(e.path), "password")
	e.text += fmt.Sprintf("kafka: {brokers: [\"k:9092\"], tls: {enabled: true}, sasl: {mechanism: plain, user: u, password: {file: %s}}}\n", password)
	write := func(text string) {
		if err := os.WriteFile(password, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	e.edit("", "")
	cfg, err := config.Load(e.path)
	if err != nil {
		t.Fatal(err)
	}
	e.Watcher = reload.New(e.path, cfg, slog.New(slog.DiscardHandler))
	if err := e.Reload(); err != nil {
		t.Fatal(err)
	}
	write("second")
	if err := e.Reload(); !errors.Is(err, reload.ErrRestart) || !strings.HasPrefix(err.Error(), "kafka.sasl.password: ") {
		t.Errorf("have: %v", err)
	}
	write("first")
	if err := e.Reload(); err != nil {
		t.Error(err)
	}
}
