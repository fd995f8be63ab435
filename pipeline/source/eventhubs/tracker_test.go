package eventhubs

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTrackerAgainstModel compares the mark with its definition, step by step, on
// random orders.
func TestTrackerAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		tr := newTracker(1000, time.UnixMilli(5))
		var begun []*message
		isDone := map[int64]bool{}
		next := int64(random.IntN(100))
		for range 400 {
			if len(begun) == 0 || random.IntN(2) == 0 {
				m, err := tr.begin(context.Background(), next, "o")
				if err != nil {
					t.Fatal(err)
				}
				begun = append(begun, m)
				next += 1 + int64(random.IntN(3)) // gaps are allowed
			} else {
				m := begun[random.IntN(len(begun))] // some more than once
				tr.done(m)
				isDone[m.sequence] = true
			}
			want, waiting := int64(-1), 0
			for _, m := range begun {
				if !isDone[m.sequence] {
					break
				}
				want = m.sequence
				waiting++
			}
			waiting = len(begun) - waiting
			got, ok := tr.mark()
			if ok != (want >= 0) || ok && got.Sequence != want || tr.waiting() != waiting || len(tr.slots) != waiting {
				t.Fatalf("seed %d: mark %+v %v, waiting %d; want %d, %d", seed, got, ok, tr.waiting(), want, waiting)
			}
		}
	}
}

func TestTrackerBlocksAtTheLimit(t *testing.T) {
	tr := newTracker(1, time.Time{})
	first, err := tr.begin(context.Background(), 1, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tr.begin(ctx, 2, ""); err == nil {
		t.Error("a message above the limit has begun")
	}
	tr.done(first)
	if _, err := tr.begin(context.Background(), 2, ""); err != nil {
		t.Error(err)
	}
}

func TestFileStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "hub.json")
	f := NewFileStore(path, "hub", "group")
	ctx := context.Background()
	if got, err := f.Load(ctx); err != nil || len(got) != 0 {
		t.Errorf("nothing saved: %v, %v", got, err)
	}
	want := map[string]Checkpoint{"0": {Sequence: 7, Offset: "123", Created: time.UnixMilli(1).UTC()}, "11": {Sequence: 0}}
	for range 2 { // replacing works too
		if err := f.Save(ctx, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v: temporary files are left", entries, err)
	}
	if _, err := NewFileStore(path, "other", "group").Load(ctx); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("the file of another hub: %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"version": 1, "hub`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(ctx); err == nil || !strings.Contains(err.Error(), "delete the file") {
		t.Errorf("a damaged file: %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"version": 9}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(ctx); err == nil {
		t.Error("a file of another version is read")
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: 100, max: 1000}
	for _, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		if got := b.next(); got < want/2 || got > want {
			t.Errorf("wait %d, want %d to %d", got, want/2, want)
		}
	}
	b.reset()
	if got := b.next(); got > 100 {
		t.Errorf("wait %d after a reset", got)
	}
}
