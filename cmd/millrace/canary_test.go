package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// canaries are secrets of every kind, by the name of the variable that holds them.
var canaries = map[string]string{
	"CANARY_KEY":                 base64.StdEncoding.EncodeToString([]byte("canary of the account's key 0123456789")),
	"CANARY_SAS":                 "sv=2025-01-05&sp=rl&sig=canary%2Bof%2Fthe%3DSAS",
	"CANARY_STRING":              "AccountName=strings;AccountKey=" + base64.StdEncoding.EncodeToString([]byte("canary of the connection string")) + ";BlobEndpoint=%s/strings",
	"CANARY_PASSWORD":            "canary-of-ClickHouse's-password",
	"CANARY_HUB":                 "Endpoint=sb://%s;SharedAccessKeyName=listen;SharedAccessKey=canary+of/the+hub=;UseDevelopmentEmulator=true",
	"CANARY_SASL":                "canary-of-Kafka's-password",
	"CANARY_LEDGER":              base64.StdEncoding.EncodeToString([]byte("canary of the ledger's key 0123456789ab")),
	"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20canary-of-the-receiver,x-webhook=canary-of-the-webhook",
}

// shown gives the canary that a text holds, as it stands or as it may be encoded.
func shown(text string) string {
	forms := []string{"canary", "Canary"} // of the plain ones; what is base64 follows
	for name, c := range canaries {
		if strings.HasSuffix(name, "_KEY") || name == "CANARY_LEDGER" {
			forms = append(forms, c, url.QueryEscape(c))
		}
		if name == "CANARY_STRING" {
			_, key, _ := strings.Cut(c, "AccountKey=")
			key, _, _ = strings.Cut(key, ";")
			forms = append(forms, key)
		}
	}
	for _, form := range forms {
		if i := strings.Index(text, form); i >= 0 {
			return text[max(0, i-200):min(len(text), i+200)]
		}
	}
	return ""
}

// echo answers every request with all that was sent, as a careless proxy does.
func echo(t *testing.T, status int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ := httputil.DumpRequest(r, true)
		w.Header().Set("X-Ms-Error-Code", "Echo")
		w.Header().Set("Location", r.URL.String())
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>Echo</Code><Message>%s</Message></Error>", sent)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// mirror sends every byte back: no protocol, but with what was said in it.
func mirror(t *testing.T) string {
	t.Helper()
	return pipelinetest.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	})
}

// canarySite is a configuration whose services are at the given addresses.
func canarySite(t *testing.T, web, tcp string) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT="+web, "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_METRIC_EXPORT_INTERVAL=200", "OTEL_LOGS_EXPORTER=otlp", "GOTRACEBACK=all")
	for name, value := range canaries {
		switch name {
		case "CANARY_STRING":
			value = fmt.Sprintf(value, web)
		case "CANARY_HUB":
			value = fmt.Sprintf(value, tcp)
		}
		env = append(env, name+"="+value)
	}
	sas := filepath.Join(dir, "sas")
	files := map[string]string{
		sas: canaries["CANARY_SAS"] + "\n",
		filepath.Join(dir, "millrace.yaml"): fmt.Sprintf(`state: %s/state
start: now-1h
listen: 127.0.0.1:0
log_level: debug
accounts:
  - {name: keys, endpoint: "%[2]s/keys", containers: [logs], key: {env: CANARY_KEY}}
  - {name: signed, endpoint: "%[2]s/signed", containers: [logs], sas: {file: %[1]s/sas}}
  - {name: strings, containers: [logs], connection_string: {env: CANARY_STRING}}
eventhubs:
  - {hub: events, connection_string: {env: CANARY_HUB}}
kafka_sources:
  - {brokers: ["%[3]s"], topic: events, group: g, sasl: {mechanism: scram-sha-512, user: u, password: {env: CANARY_SASL}}}
sweeper: {interval: 1s}
clickhouse: {url: "%[2]s", user: u, password: {env: CANARY_PASSWORD}}
`, dir, web, tcp),
	}
	files[filepath.Join(dir, "shared.yaml")] = files[filepath.Join(dir, "millrace.yaml")] +
		fmt.Sprintf("ledger: {azure: {name: ledgers, endpoint: \"%s/ledgers\", container: l, key: {env: CANARY_LEDGER}}}\n", web)
	// Secrets that people wrote into the file, where they must not stand.
	files[filepath.Join(dir, "inline.yaml")] = strings.NewReplacer("{env: CANARY_KEY}", "canary-inline", "{env: CANARY_PASSWORD}", "canary-inline", "{env: CANARY_SASL}", "[canary-inline]",
		"{env: CANARY_HUB}", "\"Endpoint=sb://x;SharedAccessKey=canary-inline\"", fmt.Sprintf("{file: %s/sas}", dir), "{env: \"canary-inline\", file: canary-inline}",
		fmt.Sprintf("clickhouse: {url: %q", web), "clickhouse: {url: \"http://u:canary-inline@h:8123/?password=canary-inline\"").Replace(files[filepath.Join(dir, "millrace.yaml")])
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, env
}

// Every command, against services that are dead, refuse, redirect or send back what
// they were sent, with the log at its most talkative and a crash at the end: no secret
// is in what it prints, in what it leaves on disk, or in its command line.
func TestNoCommandShowsASecret(t *testing.T) {
	worlds := map[string][2]string{
		"dead":     {"http://127.0.0.1:1", "127.0.0.1:1"},
		"no name":  {"http://no-such-host.invalid", "no-such-host.invalid:9092"},
		"refusing": {echo(t, http.StatusForbidden), mirror(t)},
		"failing":  {echo(t, http.StatusInternalServerError), mirror(t)},
		"moved":    {echo(t, http.StatusTemporaryRedirect), mirror(t)},
		"odd":      {echo(t, http.StatusOK), mirror(t)},
	}
	commands := [][]string{
		{"run", "--verbose"},
		{"run", "--log-format", "json"},
		{"check"},
		{"check", "-o", "json"},
		{"check", "--offline"},
		{"ledger", "show"},
		{"ledger", "rebuild", "--yes"},
		{"backfill", "--from", "now-3h", "--to", "now-2h", "--yes", "--verbose"},
		{"evidence", "keys/logs/p@0:12:0"},
		{"evidence", "--batch", "1"},
		{"quarantine", "list"},
		{"quarantine", "list", "-o", "json"},
		{"quarantine", "replay", "--verbose"},
		{"quarantine", "show", "keys/logs/p@0:12"},
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, 12)
	for world, at := range worlds {
		dir, env := canarySite(t, at[0], at[1])
		for i, command := range commands {
			for _, file := range []string{"millrace.yaml", "shared.yaml", "inline.yaml"} {
				if file != "millrace.yaml" && i > 2 || file == "inline.yaml" && world != "dead" {
					continue
				}
				group.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					args := append(append([]string{}, command...), "--config", filepath.Join(dir, file))
					text := crashed(t, env, args...)
					if found := shown(text); found != "" {
						t.Errorf("%s, millrace %s: … %s …", world, strings.Join(args, " "), found)
					}
				})
			}
		}
		t.Cleanup(func() { leavesNothing(t, dir) })
	}
	group.Wait()
}

// crashed runs a command for a while and then lets it dump all its goroutines; it
// gives what it printed, and its pages while it ran.
func crashed(t *testing.T, env []string, args ...string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "millrace", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay, cmd.Env = 10*time.Second, env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return ""
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	_ = cmd.Wait() // it fails: that is what it is there for
	if out.Len() < 20 || args[0] == "run" && !strings.Contains(out.String(), "SIGQUIT") && !strings.Contains(out.String(), "millrace:") {
		t.Errorf("millrace %s says %q: is there anything to look through?", strings.Join(args, " "), out.String())
	}
	return out.String() + string(line)
}

// leavesNothing looks through the files of a folder but those that the test put there.
func leavesNothing(t *testing.T, dir string) {
	err := filepath.WalkDir(filepath.Join(dir, "state"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // nothing was made
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if found := shown(string(data)); found != "" {
			t.Errorf("%s holds … %s …", path, found)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
