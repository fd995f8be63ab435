package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/deploy/local/localtest"
)

// quarantineSite is a pipeline on Azurite and ClickHouse.
type quarantineSite struct {
	t      *testing.T
	config string
	upload func(path, text string)
}

func newQuarantineSite(t *testing.T) *quarantineSite {
	url, _ := localtest.StartClickHouse(t)
	endpoint, account, key := localtest.StartAzurite(t)
	credential, err := azblob.NewSharedKeyCredential(account, key)
	if err != nil {
		t.Fatal(err)
	}
	options := &azblob.ClientOptions{ClientOptions: policy.ClientOptions{Transport: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}}
	client, err := azblob.NewClientWithSharedKeyCredential(endpoint, credential, options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(t.Context(), "logs", nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("QUARANTINE_TEST_KEY", key)
	s := &quarantineSite{t: t, config: filepath.Join(dir, "millrace.yaml")}
	s.upload = func(path, text string) {
		if _, err := client.UploadBuffer(t.Context(), "logs", path, []byte(text), nil); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`state: %s
start: now-1h
listen: ""
accounts:
  - name: %s
    endpoint: %s
    containers: [logs]
    key: {env: QUARANTINE_TEST_KEY}
clickhouse:
  url: %s
`, filepath.Join(dir, "state"), account, endpoint, url)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// pipeline lands what is in the container, as a run does that is stopped softly.
func (s *quarantineSite) pipeline() *assembly.Pipeline {
	s.t.Helper()
	cfg, err := config.Load(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	p, err := assembly.Open(ctx, cfg, assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(p.Close)
	p.Engine.Drain(true)
	if err := p.Run(ctx); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// command runs millrace quarantine and gives what it printed.
func (s *quarantineSite) command(args ...string) (string, error) {
	s.t.Helper()
	return s.millrace("quarantine", args...)
}

// millrace runs a subcommand with the site's configuration.
func (s *quarantineSite) millrace(name string, args ...string) (string, error) {
	s.t.Helper()
	root := newRootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append(append([]string{name}, args...), "-c", s.config))
	err := root.ExecuteContext(s.t.Context())
	return out.String(), err
}

func (s *quarantineSite) good(args ...string) string {
	s.t.Helper()
	text, err := s.command(args...)
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, text)
	}
	return text
}

func contains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

func TestQuarantineCommands(t *testing.T) {
	s := newQuarantineSite(t)
	hour := time.Now().UTC().Truncate(time.Hour)
	path := func(mac string) string {
		return "flowLogResourceID=/S_RG/NW_LOG/" + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/macAddress=" + mac + "/PT1H.json"
	}
	tuple := func(port string) string {
		return fmt.Sprintf("%d,10.0.0.1,10.1.0.1,%s,443,6,O,E,NX,1,2,3,4", hour.UnixMilli(), port)
	}
	text := func(tuples ...string) string {
		return `{"records":[{"time":"x","flowLogVersion":4,"macAddress":"00000000000A","category":"FlowLogFlowEvent","flowLogResourceID":"/L","targetResourceID":"/T",` +
			`"flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"DefaultRule_x","flowTuples":["` + strings.Join(tuples, `","`) + `"]}]}]}}]}`
	}
	contains(t, s.goodOnEmpty(), "no entries in quarantine")
	s.upload(path("000000000001"), text(tuple("1"), tuple("70000"), tuple("2"), tuple(`\u001b[31m`)))
	p := s.pipeline()

	contains(t, s.good("list"), "REASON", "tuple_port  2", `source port "\x1b[31m"`, "macAddress=000000000001/PT1H.json@0:12:3")
	var entry struct {
		Address string
		Ordinal int
		Length  int
	}
	lines := strings.Split(strings.TrimSpace(s.good("list", "--reason", "tuple_port", "-o", "json")), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &entry); err != nil || len(lines) != 2 || entry.Ordinal != 1 || entry.Length != len(tuple("70000")) {
		t.Fatalf("%v %+v\n%s", err, entry, lines)
	}
	contains(t, s.good("list", "--blob", "0001", "--limit", "1"), entry.Address, "1 of 2 entries: --limit shows more")
	shown := s.good("show", entry.Address)
	contains(t, shown, "tuple_port", "ordinal", "still refused: tuple_port", "bytes, read again from the blob", `{"time":"x"`)
	shown = s.good("show", strings.TrimSuffix(entry.Address, ":1"), "--bytes", "10")
	contains(t, shown, "ordinal        3", "--bytes 0 shows all")
	if strings.Contains(shown, "\x1b") {
		t.Error("a control character reaches the terminal")
	}
	contains(t, s.good("replay"), "still refused: tuple_port", "2 entries: 2 still refused (0 rows)")

	// A blob that the pipeline has not read, with an entry as an older release made it.
	s.upload(path("000000000002"), text(tuple("5"), tuple("6")))
	cfg, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	name := cfg.Accounts[0].Name + "/logs/" + path("000000000002")
	if _, err := p.Sink.Exec(t.Context(), fmt.Sprintf("INSERT INTO quarantine SELECT now(), 'tuple_state', '', 'tuple', '%s', 0, 12, 1, %d, '%s', 0", name, len(tuple("6")), tuple("6"))); err != nil {
		t.Fatal(err)
	}
	contains(t, s.good("replay", "--dry-run", "--blob", "0002"), "would land, 1 row", "1 entry: 1 would land (1 row)")
	contains(t, s.good("replay", name+"@0:12:1"), "landed, 1 row")
	contains(t, s.good("replay", name+"@0:12:1"), "already landed")
	if out, code := s.evidence(name + "@0:12:1"); code != 0 || !strings.Contains(out, "as now") {
		t.Errorf("evidence of a row that a replay landed: exit code %d\n%s", code, out)
	}
	var last struct{ Entries, Rows int }
	lines = strings.Split(strings.TrimSpace(s.good("replay", "-o", "json")), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || len(lines) != 4 || last.Entries != 3 || last.Rows != 0 {
		t.Errorf("%v %+v\n%s", err, last, lines)
	}
	got, err := p.Sink.Exec(t.Context(), "SELECT count(), uniqExact(blob, record_offset, ordinal), (SELECT sum(rows) FROM windows_traffic_1m), uniqExact(batch_id) FROM flows")
	if err != nil || strings.TrimSpace(got) != "3\t3\t3\t2" {
		t.Errorf("rows, addresses, rows in windows, commits: %q (%v)", got, err)
	}
	s.faults()
}

// goodOnEmpty lists a target that has tables and no entries.
func (s *quarantineSite) goodOnEmpty() string {
	s.pipeline().Close()
	return s.good("list")
}

// faults are what people type wrong.
func (s *quarantineSite) faults() {
	for want, args := range map[string][]string{
		"want one of json_syntax":        {"list", "--reason", "x"},
		"want table or json":             {"list", "-o", "yaml"},
		"want ACCOUNT/CONTAINER/PATH@":   {"show", "acc/logs/p"},
		"which entry?":                   {"show"},
		"no entry at acc/logs/p@0:1":     {"show", "acc/logs/p@0:1"},
		"no entry has such an address":   {"replay", "acc/logs/p@0:1"},
		"--limit and --bytes: want 0 or": {"list", "--limit", "-1"},
	} {
		text, err := s.command(args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			s.t.Errorf("%v: %v, want %q\n%s", args, err, want, text)
		}
	}
}

// Law: a replay killed with SIGKILL again and again, and at last left alone, has
// landed every row once.
func TestQuarantineReplayKilledForReal(t *testing.T) {
	s := newQuarantineSite(t)
	p := s.pipeline()
	hour := time.Now().UTC().Truncate(time.Hour)
	cfg, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	const nics, tuples = 25, 100
	for n := range nics {
		path := fmt.Sprintf("f/%s/macAddress=%012X/PT1H.json", hour.Format("y=2006/m=01/d=02/h=15/m=00"), n)
		var texts []string
		for i := range tuples {
			texts = append(texts, fmt.Sprintf("%d,10.0.0.1,10.1.0.1,%d,443,6,O,E,NX,1,2,3,4", hour.UnixMilli()+int64(1000+i), 10000+i))
		}
		s.upload(path, `{"records":[{"category":"FlowLogFlowEvent","flowRecords":{"flows":[{"flowGroups":[{"flowTuples":["`+strings.Join(texts, `","`)+`"]}]}]}}]}`)
		sql := fmt.Sprintf("INSERT INTO quarantine SELECT now(), 'tuple_state', '', 'tuple', '%s', 0, 12, number, %d, '', 0 FROM numbers(%d)", cfg.Accounts[0].Name+"/logs/"+path, len(texts[0]), tuples)
		if _, err := p.Sink.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(7, 7))
	killed := 0
	for range 8 {
		if s.killedReplay(cfg.State, time.Duration(rng.IntN(60))*time.Millisecond) {
			killed++
		}
	}
	s.good("replay")
	got, err := p.Sink.Exec(t.Context(), "SELECT count(), uniqExact(blob, record_offset, ordinal), (SELECT sum(rows) FROM windows_traffic_1m) FROM flows")
	want := fmt.Sprintf("%d\t%[1]d\t%[1]d", nics*tuples)
	if err != nil || strings.TrimSpace(got) != want {
		t.Errorf("rows, addresses, rows in windows: %q, want %q (%v)", got, want, err)
	}
	if killed < 3 {
		t.Errorf("only %d of 8 replays were killed", killed)
	}
}

// killedReplay runs the command and kills it so long after it has made something
// durable, which is when rows land. It says whether the kill came in time.
func (s *quarantineSite) killedReplay(state string, after time.Duration) bool {
	s.t.Helper()
	manifests := func() (n int) {
		found, err := os.ReadDir(filepath.Join(state, "quarantine", "000", "m"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.t.Fatal(err)
		}
		for _, f := range found {
			if seq, err := strconv.Atoi(f.Name()); err == nil {
				n = seq // in order of names
			}
		}
		return n
	}
	before := manifests()
	var out bytes.Buffer
	cmd := exec.CommandContext(s.t.Context(), "millrace", "quarantine", "replay", "-c", s.config)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); manifests() == before && time.Now().Before(deadline); <-tick.C {
		select {
		case err := <-ended:
			if err != nil {
				s.t.Fatalf("%v\n%.2000s", err, &out)
			}
			return false
		default:
		}
	}
	time.Sleep(after)
	_ = cmd.Process.Kill() // it may have ended
	return <-ended != nil
}
