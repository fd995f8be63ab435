package engine_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
)

func startSink(t *testing.T, dir string, e *estate, s pipeline.Sink, alloc memory.Allocator, change func(*engine.Config)) (*engine.Engine, func()) {
	t.Helper()
	return startSinks(t, dir, e, []engine.NamedSink{{Sink: s}}, alloc, change)
}

// The release before this one reads what a pipeline with ClickHouse alone writes: its
// objects have its version, and besides the fields that it knows only those that it
// may miss. make.sh lets the real one try.
func TestReleaseBeforeReadsManifests(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RELEASE_OUT", dir)
	TestReleaseLeavesPendingCommits(t)
	known := []string{"batch", "ledger", "shard", "seq", "epoch", "created", "done_seq", "watermark", "idle", "units", "pieces"}
	mayMiss := []string{"decoder"}
	manifests, err := filepath.Glob(filepath.Join(dir, "ledger", "*", "m", "*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("%d manifests, %v", len(manifests), err)
	}
	for _, name := range manifests {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(string(data), "\n")
		if !strings.HasPrefix(head, "millrace-manifest 1 ") {
			t.Errorf("%s begins with %q", name, head)
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(body), &fields); err != nil {
			t.Fatal(err)
		}
		for _, f := range slices.Sorted(maps.Keys(fields)) {
			if !slices.Contains(known, f) && !slices.Contains(mayMiss, f) {
				t.Errorf("%s has field %q, which the release before does not know", name, f)
			}
		}
	}
}
