package engine_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
)

// breaking is a store that breaks as its first manifest is written.
type breaking struct{ ledger.Store }

func (b breaking) Create(ctx context.Context, name string, data []byte) error {
	if strings.Contains(name, "/m/") {
		panic("the ledger is broken")
	}
	return b.Store.Create(ctx, name, data)
}

// runOn runs a pipeline of one blob on a ledger to its end.
func runOn(t *testing.T, dir string, wrap func(ledger.Store) ledger.Store, sink pipeline.Sink) {
	t.Helper()
	text, err := os.ReadFile("../decode/testdata/samples/vnet-docs-v4-record.json")
	if err != nil {
		t.Fatal(err)
	}
	in := sampleBlob{pipeline.BlobID{Account: "account", Container: "logs", Path: "flowLogResourceID=/LOG/y=2022/m=09/d=14/h=09/m=00/macAddress=00224871C205/PT1H.json"}, text}
	store, err := ledger.OpenDirectory(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	book, err := ledger.Open(t.Context(), wrap(store), ledger.Info{Shards: 1}, ledger.OneLedger(1))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := blob.New(blob.DefaultConfig(decode.SplitRecords), in)
	if err != nil {
		t.Fatal(err)
	}
	cfg := engine.DefaultConfig()
	cfg.Shard.KeepOffsets = 100 * 365 * 24 * time.Hour
	e, err := engine.New(cfg, engine.Parts{Ledger: book, Reader: reader, Sources: []pipeline.Source{in}, Sinks: []engine.NamedSink{{Sink: sink}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A panic over a record costs the record; one in the ledger ends the program before
// anything lands, and the next start lands it all.
func TestPanicInTheLedgerEndsTheProgram(t *testing.T) {
	const variable = "MILLRACE_TEST_BROKEN_LEDGER"
	sink := &counter{}
	if dir := os.Getenv(variable); dir != "" {
		runOn(t, dir, func(s ledger.Store) ledger.Store { return breaking{s} }, sink)
		t.Fatal("the pipeline went on")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanicInTheLedgerEndsTheProgram$")
	cmd.Env = append(os.Environ(), variable+"="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "panic: the ledger is broken") {
		t.Errorf("the program ended with %v, want a crash:\n%s", err, out)
	}
	runOn(t, dir, func(s ledger.Store) ledger.Store { return s }, sink)
	if n := sink.flows.Load(); n != 19 {
		t.Errorf("%d rows after the crash, want 19", n)
	}
}
