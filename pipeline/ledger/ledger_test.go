package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/pipeline"
)

func open(t *testing.T, root string) (*Directory, *Ledger) {
	t.Helper()
	d, err := OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	l, err := Open(t.Context(), d, Info{Shards: 2, Start: time.Unix(1000, 0).UTC()}, register(7))
	if err != nil {
		t.Fatal(err)
	}
	return d, l
}

func register(id uint16) func(context.Context, string, int) (uint16, error) {
	return func(context.Context, string, int) (uint16, error) { return id, nil }
}

func manifest(seq, done uint64) pipeline.Manifest {
	b := pipeline.BlobID{Account: "a", Container: "c", Path: fmt.Sprint("p", seq)}
	return pipeline.Manifest{
		Batch: pipeline.NewBatchID(7, 1, seq), Ledger: 7, Shard: 1, Seq: seq, DoneSeq: done, Watermark: pipeline.Watermark(seq * 1000),
		Units:  []pipeline.Unit{{Blob: b, Offset: 12, Length: 30, Hash: "00", Rows: 3, MaxTime: 5, Tail: "ff"}},
		Pieces: []pipeline.PieceRef{{Table: "flows", Partition: "20261123", Rows: 3, MACs: []string{"A"}}},
	}
}

func write(t *testing.T, l *Ledger, from, to uint64) {
	t.Helper()
	for seq := from; seq <= to; seq++ {
		if err := l.WriteManifest(t.Context(), manifest(seq, max(seq, 2)-2)); err != nil {
			t.Fatal(err)
		}
	}
}

func base(seq uint64) Base {
	return Base{Shard: 1, Seq: seq, Watermark: 5, Operators: [][]byte{{1, 2}}, Positions: []Position{{End: int64(seq)}}}
}

func TestRecoverGivesWhatWasWritten(t *testing.T) {
	root := t.TempDir() + "/l"
	d, l := open(t, root)
	write(t, l, 1, 5)
	if err := l.WriteBase(t.Context(), base(3)); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteHead(t.Context(), 1, 4); err != nil {
		t.Fatal(err)
	}
	d.Close()
	_, l = open(t, root)
	if l.Epoch() != 2 || l.Info().ID != 7 || !l.Info().Start.Equal(time.Unix(1000, 0)) {
		t.Errorf("opened again: epoch %d, %+v", l.Epoch(), l.Info())
	}
	s, err := l.Recover(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := State{Base: base(3), Manifests: []pipeline.Manifest{manifest(4, 2), manifest(5, 3)}, DoneSeq: 4}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("recovered state (-want +got):\n%s", diff)
	}
	if s.NextSeq() != 6 {
		t.Errorf("next sequence is %d, want 6", s.NextSeq())
	}
	if s, err := l.Recover(t.Context(), 0); err != nil || s.NextSeq() != 1 {
		t.Errorf("an untouched shard: next %d, %v", s.NextSeq(), err)
	}
}

func TestManifestHasOneCreator(t *testing.T) {
	_, l := open(t, t.TempDir()+"/l")
	write(t, l, 1, 1)
	other := manifest(1, 0)
	other.Units = nil
	if err := l.WriteManifest(t.Context(), other); !errors.Is(err, ErrExists) {
		t.Fatalf("second creator gets %v", err)
	}
	s, err := l.Recover(t.Context(), 1)
	if err != nil || len(s.Manifests[0].Units) != 1 {
		t.Errorf("the first manifest was replaced: %+v, %v", s, err)
	}
}

// A base that is damaged in any byte costs the way back to the one before it, and
// nothing else: its manifests are kept.
func TestDamagedBaseFallsBack(t *testing.T) {
	root := t.TempDir() + "/l"
	_, l := open(t, root)
	write(t, l, 1, 4)
	for _, seq := range []uint64{1, 2, 4} {
		if err := l.WriteBase(t.Context(), base(seq)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(root, "001", "base", fmt.Sprintf("%011d", 4))
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := l.Recover(t.Context(), 1)
		if err != nil || s.Base.Seq != 2 || len(s.Manifests) != 2 || len(s.Warnings) != 1 {
			t.Fatalf("%s: base %d, %d manifests, warnings %q, %v", what, s.Base.Seq, len(s.Manifests), s.Warnings, err)
		}
	}
	for n := range whole {
		check(fmt.Sprintf("cut to %d bytes", n), whole[:n])
	}
	for i := range len(whole) * 8 {
		flipped := slices.Clone(whole)
		flipped[i/8] ^= 1 << (i % 8)
		check(fmt.Sprintf("bit %d flipped", i), flipped)
	}
}

// A ledger that was made again has one base and no manifests: without the base it must
// not look like an empty one.
func TestDamagedOnlyBaseIsRefused(t *testing.T) {
	d, l := open(t, t.TempDir()+"/l")
	if err := l.WriteBase(t.Context(), base(7)); err != nil {
		t.Fatal(err)
	}
	if err := d.Put(t.Context(), object(1, "base", 7), []byte("millrace-base 1 12 x\n")); err != nil {
		t.Fatal(err)
	}
	_, err := l.Recover(t.Context(), 1)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "millrace ledger rebuild") {
		t.Errorf("the only base is damaged: %v", err)
	}
}

func TestPruneKeepsTheWayBack(t *testing.T) {
	d, l := open(t, t.TempDir()+"/l")
	write(t, l, 1, 6)
	for _, seq := range []uint64{2, 4, 5} {
		if err := l.WriteBase(t.Context(), base(seq)); err != nil {
			t.Fatal(err)
		}
	}
	bases, _ := d.List(t.Context(), "001/base/")
	manifests, _ := d.List(t.Context(), "001/m/")
	if len(bases) != 2 || len(manifests) != 2 || manifests[0] != "001/m/00000000005" {
		t.Errorf("left after pruning: %q and %q", bases, manifests)
	}
}

func TestGapIsRefused(t *testing.T) {
	d, l := open(t, t.TempDir()+"/l")
	write(t, l, 1, 3)
	if err := d.Delete(t.Context(), "001/m/00000000002"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Recover(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "manifest 2 is missing") {
		t.Errorf("a gap gives %v", err)
	}
}

func TestOtherVersionIsRefused(t *testing.T) {
	d, l := open(t, t.TempDir()+"/l")
	data, err := encode("base", base(1))
	if err != nil {
		t.Fatal(err)
	}
	data = []byte(strings.Replace(string(data), "millrace-base 1 ", "millrace-base 2 ", 1))
	if err := d.Put(t.Context(), object(1, "base", 1), data); err != nil {
		t.Fatal(err)
	}
	_, err = l.Recover(t.Context(), 1)
	if err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), `it says "2"`) {
		t.Errorf("version 2 gives %v", err)
	}
}

func TestLedgerOfAnotherTargetIsRefused(t *testing.T) {
	root := t.TempDir() + "/l"
	d, _ := open(t, root)
	if _, err := Open(t.Context(), d, Info{Shards: 2}, register(8)); err == nil || !strings.Contains(err.Error(), "another target") {
		t.Errorf("another id gives %v", err)
	}
}

// The name is durable before the target hears it: a crash behind the registration
// finds the same name, and so the same id.
func TestNameSurvivesACrashWhileRegistering(t *testing.T) {
	d, err := OpenDirectory(t.TempDir() + "/l")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var names []string
	crash := errors.New("crash")
	for range 2 {
		_, err := Open(t.Context(), d, Info{Shards: 1}, func(_ context.Context, name string, _ int) (uint16, error) {
			names = append(names, name)
			return 0, crash
		})
		if !errors.Is(err, crash) {
			t.Fatal(err)
		}
	}
	if names[0] != names[1] || names[0] == "" {
		t.Errorf("names differ: %q", names)
	}
}

func TestDirectoryHasOneOwner(t *testing.T) {
	root := t.TempDir() + "/l"
	d, err := OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDirectory(root); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second owner gets %v", err)
	}
	d.Close()
	again, err := OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestDirectoryOfOthersIsRefused(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDirectory(root); err == nil || !strings.Contains(err.Error(), "writable by others") {
		t.Errorf("a folder for all gives %v", err)
	}
}

func TestDirectoryRemovesHalfWrittenFiles(t *testing.T) {
	root := t.TempDir() + "/l"
	d, l := open(t, root)
	write(t, l, 1, 1)
	torn := filepath.Join(root, "001", "m", "9.tmp")
	if err := os.WriteFile(torn, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if names, _ := d.List(t.Context(), "001/m/"); len(names) != 1 {
		t.Errorf("a temporary file is listed: %q", names)
	}
	d.Close()
	open(t, root)
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file is still there: %v", err)
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077} {
		t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
			defer unix.Umask(unix.Umask(mask))
			filesAreTheOwnersAlone(t)
		})
	}
}

func filesAreTheOwnersAlone(t *testing.T) {
	root := t.TempDir() + "/l"
	_, l := open(t, root)
	write(t, l, 1, 1)
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
