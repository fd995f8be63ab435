package ledger_test

import (
	"errors"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// made is a transform of which only recipe and data matter.
type made struct {
	recipe string
	data   []string
}

func (m made) Recipe() []byte { return []byte(m.recipe) }

func (m made) Data() map[string][]byte {
	out := map[string][]byte{}
	for _, d := range m.data {
		out[pipeline.Hash([]byte(d))] = []byte(d)
	}
	return out
}

func (m made) Apply(memory.Allocator, arrow.Record) (pipeline.Transformed, error) {
	panic("nobody applies it")
}

func TestTransformsAreKeptAsLongAsNeeded(t *testing.T) {
	store, err := ledger.OpenDirectory(t.TempDir() + "/ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	open := func() *ledger.Ledger {
		l, err := ledger.Open(t.Context(), store, ledger.Info{Shards: 2}, ledger.OneLedger(1))
		if err != nil {
			t.Fatal(err)
		}
		for shard := range 2 {
			if _, err := l.Recover(t.Context(), shard); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	batch := func(l *ledger.Ledger, shard int, seq uint64, m made) {
		t.Helper()
		must(l.KeepTransform(t.Context(), shard, seq, "enrich", m))
		must(l.WriteManifest(t.Context(), pipeline.Manifest{Shard: shard, Seq: seq, Transforms: []pipeline.TransformRef{{Name: "enrich", Version: pipeline.Hash(m.Recipe())}}}))
	}
	base := func(l *ledger.Ledger, shard int, seq uint64) {
		t.Helper()
		must(l.WriteBase(t.Context(), ledger.Base{Shard: shard, Seq: seq}))
	}
	kept := func(want ...made) {
		t.Helper()
		recipes, data := map[string]bool{}, map[string]bool{}
		for _, m := range want {
			if m.recipe != "" {
				recipes["transforms/"+pipeline.Hash(m.Recipe())] = true
			}
			for hash := range m.Data() {
				data["data/"+hash] = true
			}
		}
		for folder, want := range map[string]map[string]bool{"transforms/": recipes, "data/": data} {
			names, err := store.List(t.Context(), folder)
			must(err)
			got := map[string]bool{}
			for _, n := range names {
				got[n] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", folder, diff)
			}
		}
	}
	one := made{"one", []string{"shared", "old"}}
	two := made{"two", []string{"shared", "new"}}

	l := open()
	batch(l, 0, 1, one)
	batch(l, 1, 1, one)
	batch(l, 0, 2, two)
	kept(one, two)
	base(l, 0, 1)
	base(l, 0, 2) // the older base of shard 0 is behind the first batch
	kept(one, two)

	l = open() // a restart knows no more than that shard 1 may need both
	recipe, data, err := l.Transform(t.Context(), pipeline.Hash(one.Recipe()))
	must(err)
	content, err := data(pipeline.Hash([]byte("old")))
	must(err)
	if string(recipe) != "one" || string(content) != "old" {
		t.Errorf("recipe %q, data %q", recipe, content)
	}
	if _, _, err := l.Transform(t.Context(), "unknown"); !errors.Is(err, ledger.ErrNotExist) {
		t.Errorf("an unknown version: %v", err)
	}
	batch(l, 1, 2, two)
	base(l, 1, 1)
	base(l, 1, 2)
	batch(l, 0, 3, two)
	base(l, 0, 3) // nothing of shard 0 before its third batch is read any more
	kept(two)

	// Data without a recipe is left by a crash between the two.
	must(store.Put(t.Context(), "data/"+pipeline.Hash([]byte("orphan")), []byte("x")))
	l = open()
	kept(two, made{"", []string{"orphan"}})
	for shard := range 2 {
		for seq := uint64(4); seq < 6; seq++ {
			must(l.WriteManifest(t.Context(), pipeline.Manifest{Shard: shard, Seq: seq}))
			base(l, shard, seq)
		}
	}
	kept()
}
