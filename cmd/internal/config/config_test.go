package config_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
)

func TestSampleConfigurationIsValid(t *testing.T) {
	c, err := config.Load("../../../deploy/millrace.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Windows) != 2 || c.EventHubs[0].ConsumerGroup != "$Default" || c.Sweeper.Discover != time.Hour {
		t.Errorf("the sample reads as %+v", c)
	}
}

// Every fault is reported at once, with its key.
func TestFaultsNameTheirKeys(t *testing.T) {
	_, err := config.Parse([]byte(`
shards: 0
max_batch_age: 10ms
accounts:
  - endpoint: blob.example
eventhubs:
  - hub: h
clickhouse: {url: "http://user:hunter2@host:8123"}
`))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"state: missing", "shards: 0", "start: missing", "max_batch_age: 10ms", "accounts[0].name", "accounts[0].endpoint", "accounts[0].containers",
		"accounts[0]: want exactly one of key, sas", "eventhubs[0]: want exactly one of connection_string", "clickhouse.url",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not speak of %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows a password:\n%v", err)
	}
}

func TestUnknownKeyHasItsPlace(t *testing.T) {
	_, err := config.Parse([]byte("state: x\nstrat: now\n"))
	if err == nil || !strings.Contains(err.Error(), "strat") || !strings.Contains(err.Error(), "2:1") {
		t.Errorf("want the key and line 2, column 1, have: %v", err)
	}
}

func TestReferences(t *testing.T) {
	t.Setenv("MILLRACE_TEST_SECRET", "s3cret")
	file := t.TempDir() + "/key"
	if err := os.WriteFile(file, []byte("k3y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ref  config.Reference
		want string
		bad  bool
	}{
		{config.Reference{Env: "MILLRACE_TEST_SECRET"}, "s3cret", false},
		{config.Reference{File: file}, "k3y", false},
		{config.Reference{}, "", false},
		{config.Reference{Env: "MILLRACE_TEST_UNSET"}, "", true},
		{config.Reference{Env: "A", File: "b"}, "", true},
		{config.Reference{File: file + "x"}, "", true},
	} {
		s, err := c.ref.Resolve()
		if (err != nil) != c.bad || s.Reveal() != c.want {
			t.Errorf("%+v gives %q, %v", c.ref, s.Reveal(), err)
		}
	}
}

func TestStartTime(t *testing.T) {
	now := time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"now": "2026-11-23T07:00:00Z", "now-90m": "2026-11-23T05:30:00Z", "2026-11-22T00:00:00+01:00": "2026-11-21T23:00:00Z",
		"": "", "now+1h": "", "yesterday": "", "now--1h": "",
	} {
		got, err := config.Config{Start: text}.StartTime(now)
		if (err != nil) != (want == "") || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("start %q is %v, %v; want %q", text, got, err, want)
		}
	}
}
