// Package ledgertest is the conformance suite of ledger stores: what package ledger
// asks of them, as laws.
package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// Run proves the laws of a Store, and those of a Shared where it is one, each on an
// empty store that open gives.
func Run(t *testing.T, open func(t *testing.T) ledger.Store) {
	for _, law := range []struct {
		name string
		run  func(t *testing.T, s ledger.Store)
	}{
		{"what was written is read", readBack},
		{"one creator wins", oneCreator},
		{"put replaces", putReplaces},
		{"lists one folder, sorted", lists},
		{"many names", manyNames},
		{"delete", deletes},
		{"a ledger lives in it", aLedger},
	} {
		t.Run(law.name, func(t *testing.T) { law.run(t, open(t)) })
	}
	if _, ok := open(t).(ledger.Shared); !ok {
		return
	}
	t.Run("swap wants the version it saw", func(t *testing.T) { swaps(t, open(t).(ledger.Shared)) })
	t.Run("of many swaps one wins", func(t *testing.T) { oneSwap(t, open(t).(ledger.Shared)) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantObject(t *testing.T, s ledger.Store, name string, want []byte) {
	t.Helper()
	if got, err := s.Get(t.Context(), name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s holds %d bytes, %v; want %d", name, len(got), err, len(want))
	}
}

func readBack(t *testing.T, s ledger.Store) {
	binary := make([]byte, 1<<20)
	for i := range binary {
		binary[i] = byte(i * 7 >> 3)
	}
	for name, data := range map[string][]byte{"empty": {}, "info": []byte("x\n"), "000/m/00000000001": binary} {
		must(t, s.Create(t.Context(), name, data))
		wantObject(t, s, name, data)
	}
	if _, err := s.Get(t.Context(), "000/m/00000000002"); !errors.Is(err, ledger.ErrNotExist) {
		t.Errorf("an object that is not there: %v", err)
	}
}

func oneCreator(t *testing.T, s ledger.Store) {
	const creators = 8
	var won atomic.Int32
	var group sync.WaitGroup
	for i := range creators {
		group.Go(func() {
			err := s.Create(t.Context(), "000/m/00000000007", fmt.Append(nil, "creator ", i))
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ledger.ErrExists):
				t.Errorf("creator %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d creators won, want 1", n)
	}
	before, err := s.Get(t.Context(), "000/m/00000000007")
	must(t, err)
	if err := s.Create(t.Context(), "000/m/00000000007", []byte("late")); !errors.Is(err, ledger.ErrExists) || errors.Is(err, pipeline.ErrTransient) {
		t.Errorf("a late creator: %v", err)
	}
	wantObject(t, s, "000/m/00000000007", before)
}

func putReplaces(t *testing.T, s ledger.Store) {
	for _, data := range []string{"a longer object", "short", "again a longer one"} {
		must(t, s.Put(t.Context(), "000/head", []byte(data)))
		wantObject(t, s, "000/head", []byte(data))
	}
}

func lists(t *testing.T, s ledger.Store) {
	for _, name := range []string{"001/m/00000000010", "001/m/00000000002", "001/base/00000000001", "010/m/00000000001", "name"} {
		must(t, s.Put(t.Context(), name, []byte(name)))
	}
	for prefix, want := range map[string][]string{
		"001/m/": {"001/m/00000000002", "001/m/00000000010"}, "001/base/": {"001/base/00000000001"}, "002/m/": nil,
	} {
		got, err := s.List(t.Context(), prefix)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", prefix, diff)
		}
	}
}

// manyNames: more than a page of a listing, unless that has 5,000.
func manyNames(t *testing.T, s ledger.Store) {
	var want []string
	for i := range 60 {
		want = append(want, fmt.Sprintf("000/m/%011d", i*i))
		must(t, s.Create(t.Context(), want[i], nil))
	}
	got, err := s.List(t.Context(), "000/m/")
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
}

func deletes(t *testing.T, s ledger.Store) {
	must(t, s.Create(t.Context(), "000/m/00000000001", []byte("x")))
	for range 2 {
		must(t, s.Delete(t.Context(), "000/m/00000000001"))
	}
	if _, err := s.Get(t.Context(), "000/m/00000000001"); !errors.Is(err, ledger.ErrNotExist) {
		t.Errorf("a deleted object: %v", err)
	}
	must(t, s.Create(t.Context(), "000/m/00000000001", []byte("y")))
}

func aLedger(t *testing.T, s ledger.Store) {
	open := func() *ledger.Ledger {
		l, err := ledger.Open(t.Context(), s, ledger.Info{Shards: 2}, func(context.Context, string, int) (uint16, error) { return 7, nil })
		must(t, err)
		return l
	}
	l := open()
	for seq := uint64(1); seq <= 5; seq++ {
		must(t, l.WriteManifest(t.Context(), pipeline.Manifest{Batch: pipeline.NewBatchID(7, 1, seq), Shard: 1, Seq: seq, Epoch: l.Epoch()}))
	}
	must(t, l.WriteBase(t.Context(), ledger.Base{Shard: 1, Seq: 2}))
	must(t, l.WriteBase(t.Context(), ledger.Base{Shard: 1, Seq: 3, Operators: [][]byte{{1}}}))
	must(t, l.WriteHead(t.Context(), 1, 4))
	if err := l.WriteManifest(t.Context(), pipeline.Manifest{Shard: 1, Seq: 5, Epoch: 99}); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("a second manifest 5: %v", err)
	}
	l = open()
	found, err := l.Recover(t.Context(), 1)
	must(t, err)
	if l.Epoch() != 2 || found.Base.Seq != 3 || len(found.Manifests) != 2 || found.DoneSeq != 4 || found.NextSeq() != 6 {
		t.Errorf("opened again at epoch %d: base %d, %d manifests, done through %d", l.Epoch(), found.Base.Seq, len(found.Manifests), found.DoneSeq)
	}
}

func swaps(t *testing.T, s ledger.Shared) {
	if _, _, err := s.Load(t.Context(), "owner"); !errors.Is(err, ledger.ErrNotExist) {
		t.Errorf("before the first: %v", err)
	}
	if _, err := s.Swap(t.Context(), "owner", []byte("x"), "no such version"); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("a swap of nothing: %v", err)
	}
	first, err := s.Swap(t.Context(), "owner", []byte("a"), "")
	must(t, err)
	if _, err := s.Swap(t.Context(), "owner", []byte("b"), ""); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("a second first one: %v", err)
	}
	second, err := s.Swap(t.Context(), "owner", []byte("b"), first)
	must(t, err)
	if _, err := s.Swap(t.Context(), "owner", []byte("c"), first); !errors.Is(err, ledger.ErrChanged) || errors.Is(err, pipeline.ErrTransient) {
		t.Errorf("a swap of an old version: %v", err)
	}
	data, version, err := s.Load(t.Context(), "owner")
	if err != nil || string(data) != "b" || version != second || first == second {
		t.Errorf("loaded %q, version %q, %v; want b, %q", data, version, err, second)
	}
}

func oneSwap(t *testing.T, s ledger.Shared) {
	version, err := s.Swap(t.Context(), "owner", []byte("first"), "")
	must(t, err)
	var won atomic.Int32
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			_, err := s.Swap(t.Context(), "owner", fmt.Append(nil, i), version)
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ledger.ErrChanged):
				t.Errorf("swap %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d swaps won, want 1", n)
	}
}
