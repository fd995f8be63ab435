package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// Directory is a Store in a folder of the local disk. It holds an OS lock on the
// folder while it is open, so one process owns the ledger.
type Directory struct {
	files Files
	root  string
	lock  File

	mu    sync.Mutex
	known map[string]bool // folders that exist
}

// serial numbers the temporary files of this process: a folder may be open twice.
var serial atomic.Int64

// OpenDirectory opens the folder, makes it if need be (mode 0700), and locks it.
//
// Errors: the folder is locked by another process, or others may write to it.
func OpenDirectory(root string) (*Directory, error) { return OpenDirectoryOn(osFiles{}, root) }

// OpenDirectoryOn is OpenDirectory on another file system.
func OpenDirectoryOn(files Files, root string) (*Directory, error) {
	root = filepath.Clean(root) // as filepath.Dir gives it: ./state is state
	if err := files.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	info, err := files.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("open ledger: folder %q is writable by others (mode %o): run chmod 700 on it", root, info.Mode().Perm())
	}
	d := &Directory{files: files, root: root, known: map[string]bool{root: true}}
	if err := d.syncAbove(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	lock, err := files.OpenFile(filepath.Join(root, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if err := lock.Lock(false); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open ledger: folder %q is in use by another process: stop it first, or give this pipeline a folder of its own", root)
	}
	d.lock = lock
	if err := errors.Join(d.sweepTemporary(), d.syncBelow()); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// lockName is the file that the owner has locked.
const lockName = "lock"

// syncAbove makes the folder itself survive the loss of power, before there is a lock
// in it, and so before there is a ledger. Folders that are not ours may refuse it: they
// were there before.
func (d *Directory) syncAbove() error {
	if _, err := d.files.Stat(filepath.Join(d.root, lockName)); err == nil {
		return nil
	}
	for f := d.root; f != filepath.Dir(f); f = filepath.Dir(f) {
		if err := d.syncFolder(filepath.Dir(f)); errors.Is(err, unix.EIO) {
			return err
		}
	}
	return nil
}

// syncBelow makes the names in all folders durable. A process that was killed before it
// could do that leaves objects that are only in the page cache: whoever found one,
// built on it, and then lost it with the power, would write another one in its place.
func (d *Directory) syncBelow() error {
	if mutant.On(mutant.FoundUnsynced) {
		return nil
	}
	err := d.files.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return d.syncFolder(path)
	})
	if err != nil {
		return fmt.Errorf("open ledger: make what is there durable: %w", err)
	}
	return nil
}

// ViewDirectory gives the folder to whoever reads a ledger that another process may
// own: it takes no lock.
func ViewDirectory(root string) *Directory {
	root = filepath.Clean(root)
	return &Directory{files: osFiles{}, root: root, known: map[string]bool{root: true}}
}

// Close gives the lock back.
func (d *Directory) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// Exclude implements Excluder with an OS lock on a file of its own.
func (d *Directory) Exclude(context.Context) (release func(), err error) {
	f, err := d.files.OpenFile(filepath.Join(d.root, "claim.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock ledger: %w", noRoom(err))
	}
	if err := f.Lock(true); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock ledger: %w", err)
	}
	return func() { f.Close() }, nil
}

// sweepTemporary removes what a killed process left half written. A folder below
// that has a lock is a ledger of its own, and perhaps in use.
func (d *Directory) sweepTemporary() error {
	err := d.files.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != d.root {
			if _, err := d.files.Stat(filepath.Join(path, lockName)); err == nil {
				return fs.SkipDir
			}
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".tmp") {
			return nil
		}
		return d.files.Remove(path)
	})
	if err != nil {
		return fmt.Errorf("open ledger: remove temporary files: %w", err)
	}
	return nil
}

// Create implements Store: a temporary file is written and synced, then linked to
// its name, which fails when the name is taken; then the folder is synced.
func (d *Directory) Create(_ context.Context, name string, data []byte) error {
	return d.write(name, data, func(temporary, path string) error {
		err := d.files.Link(temporary, path)
		if errors.Is(err, fs.ErrExist) {
			return ErrExists
		}
		return err
	})
}

// Put implements Store: as Create, but the rename replaces an older object.
func (d *Directory) Put(_ context.Context, name string, data []byte) error {
	return d.write(name, data, d.files.Rename)
}

func (d *Directory) write(name string, data []byte, publish func(temporary, path string) error) error {
	path := filepath.Join(d.root, filepath.FromSlash(name))
	folder := filepath.Dir(path)
	temporary, err := d.prepare(folder)
	if err != nil {
		return fmt.Errorf("write ledger object %q: %w", name, noRoom(err))
	}
	if mutant.On(mutant.WrittenInPlace) {
		return errors.Join(d.writeSynced(path, data), d.syncFolder(folder))
	}
	defer func() { _ = d.files.Remove(temporary) }() // gone already after a rename
	if err := d.writeSynced(temporary, data); err != nil {
		return fmt.Errorf("write ledger object %q: %w", name, noRoom(err))
	}
	if err := publish(temporary, path); err != nil {
		return fmt.Errorf("write ledger object %q: %w", name, noRoom(err))
	}
	if mutant.On(mutant.FolderUnsynced) {
		return nil
	}
	if err := d.syncFolder(folder); err != nil {
		return fmt.Errorf("write ledger object %q: %w", name, err)
	}
	return nil
}

// noRoom makes a full disk transient: nothing has the object's name yet, and there
// may be room later. Whatever else a disk says is for people.
func noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w: make room on the disk of the state folder", pipeline.ErrTransient, err)
	}
	return err
}

// prepare makes the folder durable and names a temporary file in it.
func (d *Directory) prepare(folder string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.known[folder] {
		if err := d.files.MkdirAll(folder, 0o700); err != nil {
			return "", err
		}
		for f := folder; f != d.root && !mutant.On(mutant.NewFolderUnsynced); f = filepath.Dir(f) {
			if err := d.syncFolder(filepath.Dir(f)); err != nil {
				return "", err
			}
		}
		d.known[folder] = true
	}
	return filepath.Join(folder, fmt.Sprintf("%d-%d.tmp", os.Getpid(), serial.Add(1))), nil
}

func (d *Directory) writeSynced(path string, data []byte) error {
	f, err := d.files.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if mutant.On(mutant.FileUnsynced) {
		return f.Close()
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func (d *Directory) syncFolder(folder string) error {
	f, err := d.files.OpenFile(folder, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Get implements Store.
func (d *Directory) Get(_ context.Context, name string) ([]byte, error) {
	data, err := d.files.ReadFile(filepath.Join(d.root, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read ledger object %q: %w", name, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger object %q: %w", name, err)
	}
	return data, nil
}

// List implements Store.
func (d *Directory) List(_ context.Context, prefix string) ([]string, error) {
	entries, err := d.files.ReadDir(filepath.Join(d.root, filepath.FromSlash(prefix)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list ledger folder %q: %w", prefix, err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && !strings.HasSuffix(e.Name(), ".tmp") {
			names = append(names, prefix+e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// Delete implements Store.
func (d *Directory) Delete(_ context.Context, name string) error {
	err := d.files.Remove(filepath.Join(d.root, filepath.FromSlash(name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete ledger object %q: %w", name, err)
	}
	return nil
}
