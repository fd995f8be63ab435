package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/millrace/millrace/bench/simulation/disk"
	"github.com/millrace/millrace/pipeline/ledger"
)

func works(disk.Op) disk.Verdict { return disk.Works }

func nothing(int) int      { return 0 }
func everything(n int) int { return n }

func write(t *testing.T, m *disk.Mount, name, text string, sync bool) {
	t.Helper()
	f, err := m.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write([]byte(text))
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func syncFolder(t *testing.T, m *disk.Mount, name string) {
	t.Helper()
	f, err := m.OpenFile(name, os.O_RDONLY, 0)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What was synced is there after a loss of power, what was not may be.
func TestPowerLoss(t *testing.T) {
	for _, c := range []struct {
		name          string
		syncs, folder bool
		keep          func(int) int
		want          string
		gone          bool
	}{
		{"synced", true, true, nothing, "new", false},
		{"folder not synced", true, false, nothing, "old", false},
		{"folder not synced, but written", true, false, everything, "new", false},
		{"file not synced", false, true, nothing, "", false},
		{"file torn", false, true, func(n int) int { return min(n, 1) }, "n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := disk.New()
			m := d.Mount(works)
			write(t, m, "/a", "old", true)
			syncFolder(t, m, "/")
			write(t, m, "/b", "new", c.syncs)
			if err := m.Rename("/b", "/a"); err != nil {
				t.Fatal(err)
			}
			if c.folder {
				syncFolder(t, m, "/")
			}
			d.PowerLoss(c.keep)
			if got, _ := d.Read("/a"); string(got) != c.want {
				t.Errorf("%q after the loss of power, want %q", got, c.want)
			}
		})
	}
}

// A sync that failed once says afterwards that all is well, and nothing is.
func TestFailedSyncForgets(t *testing.T) {
	d := disk.New()
	fail := false
	m := d.Mount(func(op disk.Op) disk.Verdict {
		if fail && op.Kind == "sync" {
			return disk.FailsIO
		}
		return disk.Works
	})
	write(t, m, "/a", "", true)
	syncFolder(t, m, "/")
	f, err := m.OpenFile("/a", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write([]byte("text"))
	fail = true
	if f.Sync() == nil {
		t.Fatal("the sync works")
	}
	fail = false
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	d.PowerLoss(nothing)
	if got, _ := d.Read("/a"); len(got) > 0 {
		t.Errorf("%q survived", got)
	}
}

// Regression: a folder that a ledger had just made was not synced into the one above,
// and with the power the whole ledger was lost.
func TestFreshLedgerSurvivesLossOfPower(t *testing.T) {
	d := disk.New()
	store, err := ledger.OpenDirectoryOn(d.Mount(works), "/var/lib/state")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Create(t.Context(), "000/m/00000000001", []byte("manifest")); err != nil {
		t.Fatal(err)
	}
	d.PowerLoss(nothing)
	if got, _ := d.Read("/var/lib/state/000/m/00000000001"); string(got) != "manifest" {
		t.Errorf("%q after the loss of power, want the manifest", got)
	}
}

// Regression: a process was killed behind the link of a manifest and before the sync of
// its folder; the next one built on what it found, and then lost it with the power.
func TestFoundObjectSurvivesLossOfPower(t *testing.T) {
	const name = "000/m/00000000001"
	d := disk.New()
	links := false
	var first *disk.Mount
	first = d.Mount(func(op disk.Op) disk.Verdict {
		if links && op.Kind == "open" { // of the folder, to sync it
			first.Unmount()
		}
		links = links || op.Kind == "link"
		return disk.Works
	})
	store, err := ledger.OpenDirectoryOn(first, "/state")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Create(t.Context(), name, []byte("manifest")); err == nil {
		t.Fatal("the first process was not killed")
	}
	next, err := ledger.OpenDirectoryOn(d.Mount(works), "/state")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := next.Get(t.Context(), name); err != nil || !bytes.Equal(got, []byte("manifest")) {
		t.Fatalf("the next process finds %q: %v", got, err)
	}
	d.PowerLoss(nothing)
	if got, _ := d.Read("/state/" + name); string(got) != "manifest" {
		t.Errorf("%q after the loss of power, want the manifest that was found before", got)
	}
}

func TestOneOwner(t *testing.T) {
	d := disk.New()
	first := d.Mount(works)
	if _, err := ledger.OpenDirectoryOn(first, "/state"); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenDirectoryOn(d.Mount(works), "/state"); err == nil {
		t.Error("two processes have the folder")
	}
	first.Unmount()
	if _, err := ledger.OpenDirectoryOn(d.Mount(works), "/state"); err != nil {
		t.Error(err)
	}
	if _, err := first.ReadFile("/state/lock"); errors.Is(err, fs.ErrNotExist) || err == nil {
		t.Errorf("a process that is gone reads: %v", err)
	}
}
