//go:build linux

package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/pipeline/ledger"
)

// resumeWithin is how soon after there is room again something lands.
const resumeWithin = 10 * time.Second

// disk can be full for a while.
type disk interface {
	fill(t *testing.T, p *jobtest.Program)
	free(t *testing.T)
}

// smallDisk is a file system of 4 MiB, filled by a file.
type smallDisk struct{ root string }

// mountDisk is false where nothing may be mounted.
func mountDisk(t *testing.T, root string) (disk, bool) {
	t.Helper()
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=4m,mode=0700")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return smallDisk{root}, true
}

func (d smallDisk) fill(t *testing.T, _ *jobtest.Program) {
	t.Helper()
	err := os.WriteFile(filepath.Join(d.root, "filler"), make([]byte, 8<<20), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
}

func (d smallDisk) free(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(d.root, "filler")); err != nil {
		t.Fatal(err)
	}
}

// deniedDisk is any disk, on which strace gives no object of the ledger its name.
type deniedDisk struct{ tracer *exec.Cmd }

func (d *deniedDisk) fill(t *testing.T, p *jobtest.Program) {
	t.Helper()
	d.tracer = exec.Command(requireTracer(t), "-f", "-qq", "-o", "/dev/null", "-e", "inject=?link,?linkat,?rename,?renameat,?renameat2:error=ENOSPC", "-p", fmt.Sprint(p.Cmd.Process.Pid))
	if err := d.tracer.Start(); err != nil {
		t.Fatal(err)
	}
}

func (d *deniedDisk) free(t *testing.T) {
	t.Helper()
	if err := d.tracer.Process.Signal(os.Interrupt); err != nil { // it lets go of the program
		t.Fatal(err)
	}
	_ = d.tracer.Wait() // by the signal
}

// A full disk under the ledger pauses the pipeline, which says so in its log and on
// its page; once there is room it goes on by itself. Nothing is lost, doubled or
// damaged.
func TestDiskFull(t *testing.T) {
	w := jobtest.New(t, jobtest.Options{Extra: jobtest.SweeperSoon})
	before := w.State()
	root := filepath.Join(t.TempDir(), "disk")
	d, ok := mountDisk(t, root)
	if ok {
		w.YAML = strings.Replace(w.YAML, before, filepath.Join(root, "state"), 1)
	} else {
		t.Log("nothing may be mounted here: strace stands in for the full disk")
		d = &deniedDisk{}
	}
	stopEstate := w.Estate(4000)
	p := w.StartProgram("--end-of-input-on-stop")
	w.More(4000)
	d.fill(t, p)
	w.WaitUntil("page that tells of the full disk", func() bool {
		ready := p.Ready()
		return strings.HasPrefix(ready, "503") && strings.Contains(ready, "no space left on device")
	})
	if said := p.Said(); !strings.Contains(said, "no space left on device: make room on the disk of the state folder") {
		t.Errorf("the log does not tell of the full disk: %s", said)
	}
	d.free(t)
	freed, landed := time.Now(), w.Number("SELECT count() FROM millrace.flows")
	w.WaitUntil("row behind the pause", func() bool { return w.Number("SELECT count() FROM millrace.flows") > landed })
	took := time.Since(freed)
	w.WaitUntil("good page", func() bool { return strings.HasPrefix(p.Ready(), "200") })
	truth := stopEstate()
	p.Stop(syscall.SIGTERM)
	if code := p.Cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.Exact(truth.Totals.Tuples)
	wholeLedger(t, w.State())
	t.Logf("the first row landed %v after there was room again", took)
	if took > resumeWithin {
		t.Errorf("it went on after %v, want %v", took, resumeWithin)
	}
}

// wholeLedger reads every object of a ledger's folder as a start would, and finds no
// file that is half written.
func wholeLedger(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	d, err := ledger.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	view, err := ledger.View(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for shard := range view.Info().Shards {
		s, err := view.Recover(t.Context(), shard)
		if err != nil || len(s.Warnings) > 0 {
			t.Errorf("shard %d: %v, %q", shard, err, s.Warnings)
		}
	}
}
