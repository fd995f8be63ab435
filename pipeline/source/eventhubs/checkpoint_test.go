package eventhubs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

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

// Positions are their owner's alone, whatever the umask is.
func TestPositionsAreTheOwnersAlone(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077} {
		old := unix.Umask(mask)
		root := t.TempDir()
		path := filepath.Join(root, "sources", "hub.json")
		err := NewFileStore(path, "hub", "group").Save(t.Context(), map[string]Checkpoint{"0": {Sequence: 7}})
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("umask %03o: %q has mode %o, want %o", mask, name, got, want)
			}
		}
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
