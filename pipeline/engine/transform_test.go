package engine_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/operators/filter"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/schemas"
)

// witness is a target that keeps, for each batch, what its rows were given, and is
// told of the byte ranges behind batches.
type witness struct {
	*target
	mu        sync.Mutex
	names     map[pipeline.BatchID]map[string]int // src_name -> rows
	forbidden map[pipeline.BatchID]int            // rows that version 1 filters out
	manifests map[pipeline.BatchID]pipeline.Manifest
}

func newWitness() *witness {
	return &witness{
		target: newTarget(), names: map[pipeline.BatchID]map[string]int{}, forbidden: map[pipeline.BatchID]int{},
		manifests: map[pipeline.BatchID]pipeline.Manifest{},
	}
}

var filteredOut = netip.MustParsePrefix("10.0.0.0/26")

func (w *witness) Land(ctx context.Context, b pipeline.BatchID, epoch uint64, p pipeline.Piece) error {
	err := w.target.Land(ctx, b, epoch, p)
	rows, _ := w.Probe(ctx, b, []pipeline.PieceRef{p.PieceRef})
	if p.Table != schemas.Flows.Name || rows[0] == 0 {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	names, forbidden := map[string]int{}, 0
	for i := range int(p.Rows) {
		name := "-"
		if p.Record.NumCols() > int64(len(schemas.Flows.Columns)) {
			name = p.Record.Column(schemas.EnrichedFlows.Index("src_name")).ValueStr(i)
		}
		names[name]++
		src := p.Record.Column(schemas.Flows.Index("src_ip")).(*array.FixedSizeBinary).Value(i)
		if filteredOut.Contains(schemas.FromAddress([16]byte(src))) {
			forbidden++
		}
	}
	w.names[b], w.forbidden[b] = names, forbidden
	return err
}

func (w *witness) LandBatches(_ context.Context, manifests []pipeline.Manifest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range manifests {
		w.manifests[m.Batch] = m
	}
	return nil
}

// transforms gives what a configuration of the given number means: 0 nothing, 1 a
// filter and names, 2 other names.
func transforms(t *testing.T, version int) []engine.Transforms {
	t.Helper()
	var filters, names pipeline.Transform
	if version == 1 {
		yes := true
		f, err := filter.New([]filter.Config{{Name: "low", Drop: &yes, Src: []string{filteredOut.String()}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		filters = f
	}
	if version > 0 {
		e, err := enrich.New(enrich.Config{NamesFile: "n"}, map[string][]byte{"n": fmt.Appendf(nil, "cidr,name\n10.0.0.0/8,version%d\n", version)})
		if err != nil {
			t.Fatal(err)
		}
		names = e
	}
	return []engine.Transforms{
		{Name: filter.Name, Current: func() pipeline.Transform { return filters }, Restore: func(recipe []byte, _ func(string) ([]byte, error)) (pipeline.Transform, error) {
			return filter.Restore(recipe)
		}},
		{Name: enrich.Name, Current: func() pipeline.Transform { return names }, Restore: func(recipe []byte, data func(string) ([]byte, error)) (pipeline.Transform, error) {
			return enrich.Restore(recipe, data)
		}},
	}
}

// run starts an engine with a version of the transforms, and gives a hard and a
// soft stop.
func runWith(t *testing.T, dir string, e *estate, w *witness, alloc memory.Allocator, version int) (hard, soft func()) {
	t.Helper()
	eng, closed := startParts(t, dir, e, []engine.NamedSink{{Sink: w}}, alloc, func(_ *engine.Config, p *engine.Parts) {
		p.Transforms, p.Checkpoints = transforms(t, version), w
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- eng.Run(ctx) }()
	end := func() {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("does not stop: %+v", eng.Status())
		}
		cancel()
		closed()
	}
	return func() { cancel(); end() }, func() { eng.Drain(true); end() }
}

// recipes lists the versions of transforms that the ledger keeps.
func recipes(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "transforms", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Promise: a batch that was begun under one configuration lands under it, although
// the pipeline died in between and files and configuration changed.
func TestReplayUsesTheRecordedTransforms(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	dir := t.TempDir() + "/ledger"
	e, w := newEstate(11, 12), newWitness()
	w.away = true // what is promised cannot land
	hard, _ := runWith(t, dir, e, w, alloc, 1)
	e.grow()
	waitFor(t, func() bool {
		manifests, _ := filepath.Glob(filepath.Join(dir, "*", "m", "*"))
		return len(manifests) >= 3 && len(recipes(t, dir)) == 2
	})
	hard()
	if len(w.addresses) > 0 {
		t.Fatal("rows landed in a target that is away")
	}
	promised, _ := filepath.Glob(filepath.Join(dir, "*", "m", "*"))

	w.away = false
	_, soft := runWith(t, dir, e, w, alloc, 2)
	for range 5 {
		e.grow()
		time.Sleep(20 * time.Millisecond)
	}
	soft()
	w.agree(t, e)
	versions := map[string]int{}
	for batch, names := range w.names {
		if len(names) != 1 {
			t.Errorf("batch %v has rows of several versions: %v", batch, names)
		}
		for name := range names {
			versions[name]++
			if name == "version1" && w.forbidden[batch] > 0 {
				t.Errorf("batch %v was begun with a filter and has %d rows that it drops", batch, w.forbidden[batch])
			}
		}
	}
	if versions["version1"] != len(promised) || versions["version2"] == 0 {
		t.Errorf("batches by version: %v; %d were promised under the first", versions, len(promised))
	}
}

// agree holds the tables to each other: what was written has landed once or was
// filtered, each range says which, and windows count what landed.
func (w *witness) agree(t *testing.T, e *estate) {
	t.Helper()
	var rows, filtered int64
	for batch, m := range w.manifests {
		var own int64
		for _, u := range m.Units {
			own, filtered = own+u.Rows, filtered+u.Filtered
		}
		var landed int64
		for _, n := range w.names[batch] {
			landed += int64(n)
		}
		if own != landed {
			t.Errorf("batch %v: its ranges say %d rows, %d landed", batch, own, landed)
		}
		rows += own
	}
	if int(rows+filtered) != e.written || len(w.addresses) != int(rows) || filtered == 0 {
		t.Errorf("%d rows in ranges, %d filtered, %d landed; %d were written", rows, filtered, len(w.addresses), e.written)
	}
	for a, n := range w.addresses {
		if n != 1 {
			t.Fatalf("tuple %s landed %d times", a, n)
		}
	}
	if w.windows != uint64(rows) || w.rejects != int64(e.bad) {
		t.Errorf("windows count %d rows, %d landed; %d entries in quarantine, want %d", w.windows, rows, w.rejects, e.bad)
	}
}

// Law: configurations change at every hard stop, answers get lost, and everything
// still adds up; versions that no batch needs any more are gone in the end.
func TestTransformsOverHardStops(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	dir := t.TempDir() + "/ledger"
	e, w := newEstate(12, 12), newWitness()
	for round := range 6 {
		hard, soft := runWith(t, dir, e, w, alloc, (round+1)%3)
		for range 8 {
			e.grow()
			time.Sleep(20 * time.Millisecond)
		}
		if round < 5 {
			hard()
		} else {
			soft()
		}
	}
	w.agree(t, e)
	// Two softly stopped runs leave two bases behind every batch with transforms.
	for range 3 {
		_, soft := runWith(t, dir, e, w, alloc, 0)
		e.grow()
		soft()
	}
	if left := recipes(t, dir); len(left) > 0 {
		t.Errorf("still kept: %v", left)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "data")); len(left) > 0 {
		t.Errorf("data still kept: %v", left)
	}
}

func TestTransformsAreChecked(t *testing.T) {
	_, err := engine.New(engine.DefaultConfig(), engine.Parts{Transforms: []engine.Transforms{{Name: "a"}, {Name: "a"}}})
	for _, want := range []string{`transform "a" stands twice`, `transform "a" lacks Current or Restore`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
