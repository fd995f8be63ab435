package disk

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/millrace/millrace/pipeline/ledger"
)

// Op is a call of a process, as a Mount's hook sees it.
type Op struct {
	Kind string // mkdir, stat, open, read, list, link, rename, remove, write, sync
	Path string
}

// Verdict is what becomes of a call.
type Verdict int

// Verdicts.
const (
	Works Verdict = iota
	FailsIO
	FailsSpace
)

// Mount is the disk as one process has it.
type Mount struct {
	disk *Disk
	// Hook hears of each call before it happens and says what becomes of it.
	hook func(Op) Verdict
	gone bool
}

var _ ledger.Files = (*Mount)(nil)

// Mount gives the disk to a process.
func (d *Disk) Mount(hook func(Op) Verdict) *Mount { return &Mount{disk: d, hook: hook} }

// Unmount ends the process: whatever it still calls does nothing, its locks are free.
func (m *Mount) Unmount() {
	m.gone = true
	for n, owner := range m.disk.locks {
		if owner == m {
			delete(m.disk.locks, n)
		}
	}
}

// call asks the hook.
func (m *Mount) call(kind, name string) error {
	fail := func(err error) error { return &fs.PathError{Op: kind, Path: name, Err: err} }
	if m.gone {
		return fail(errIO)
	}
	verdict := m.hook(Op{kind, name})
	writes := kind == "mkdir" || kind == "write" || kind == "link"
	switch {
	case m.gone || verdict == FailsIO:
		return fail(errIO)
	case verdict == FailsSpace && writes || m.disk.full && writes:
		return fail(errNoSpace)
	}
	return nil
}

func missing(kind, name string) error {
	return &fs.PathError{Op: kind, Path: name, Err: fs.ErrNotExist}
}

// MkdirAll implements ledger.Files.
func (m *Mount) MkdirAll(name string, perm fs.FileMode) error {
	if err := m.call("mkdir", name); err != nil {
		return err
	}
	n := m.disk.root
	for part := range parts(name) {
		next := n.names[part]
		if next == nil {
			next = newFolder(perm)
			m.disk.made = append(m.disk.made, next)
			n.change(change{name: part, to: next})
		}
		n = next
	}
	return nil
}

// Stat implements ledger.Files.
func (m *Mount) Stat(name string) (fs.FileInfo, error) {
	if err := m.call("stat", name); err != nil {
		return nil, err
	}
	n := m.disk.find(name)
	if n == nil {
		return nil, missing("stat", name)
	}
	return info{path.Base(name), n}, nil
}

// OpenFile implements ledger.Files.
func (m *Mount) OpenFile(name string, flag int, perm fs.FileMode) (ledger.File, error) {
	if err := m.call("open", name); err != nil {
		return nil, err
	}
	n := m.disk.find(name)
	if n == nil {
		folder, base := m.disk.parent(name)
		if folder == nil || flag&os.O_CREATE == 0 {
			return nil, missing("open", name)
		}
		n = &node{mode: perm, synced: true}
		folder.change(change{name: base, to: n})
	}
	if flag&os.O_TRUNC != 0 && len(n.data) > 0 {
		n.data, n.synced = nil, false
	}
	return &file{mount: m, node: n, name: name}, nil
}

// ReadFile implements ledger.Files.
func (m *Mount) ReadFile(name string) ([]byte, error) {
	if err := m.call("read", name); err != nil {
		return nil, err
	}
	n := m.disk.find(name)
	if n == nil {
		return nil, missing("open", name)
	}
	return slices.Clone(n.data), nil
}

// ReadDir implements ledger.Files.
func (m *Mount) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := m.call("list", name); err != nil {
		return nil, err
	}
	n := m.disk.find(name)
	if n == nil {
		return nil, missing("open", name)
	}
	var entries []fs.DirEntry
	for _, base := range sorted(n.names) {
		entries = append(entries, fs.FileInfoToDirEntry(info{base, n.names[base]}))
	}
	return entries, nil
}

// WalkDir implements ledger.Files.
func (m *Mount) WalkDir(root string, visit fs.WalkDirFunc) error {
	n := m.disk.find(root)
	if n == nil {
		return visit(root, nil, missing("lstat", root))
	}
	err := m.walk(root, info{path.Base(root), n}, visit)
	if err == fs.SkipDir || err == fs.SkipAll { //nolint:errorlint // as package filepath compares them
		return nil
	}
	return err
}

func (m *Mount) walk(at string, i info, visit fs.WalkDirFunc) error {
	err := visit(at, fs.FileInfoToDirEntry(i), nil)
	if err != nil || !i.IsDir() {
		if err == fs.SkipDir && i.IsDir() { //nolint:errorlint // as package filepath compares them
			return nil
		}
		return err
	}
	entries, err := m.ReadDir(at)
	if err != nil {
		return visit(at, fs.FileInfoToDirEntry(i), err)
	}
	for _, e := range entries {
		below, _ := e.Info()
		if err := m.walk(path.Join(at, e.Name()), below.(info), visit); err != nil {
			return err
		}
	}
	return nil
}

// Link implements ledger.Files.
func (m *Mount) Link(from, to string) error {
	if err := m.call("link", to); err != nil {
		return err
	}
	n, folder, base := m.both(from, to)
	if n == nil || folder == nil {
		return missing("link", from)
	}
	if folder.names[base] != nil {
		return &fs.PathError{Op: "link", Path: to, Err: fs.ErrExist}
	}
	folder.change(change{name: base, to: n})
	return nil
}

// Rename implements ledger.Files, within one folder.
func (m *Mount) Rename(from, to string) error {
	if err := m.call("rename", to); err != nil {
		return err
	}
	n, folder, base := m.both(from, to)
	if n == nil || folder == nil {
		return missing("rename", from)
	}
	folder.change(change{name: base, to: n, from: path.Base(from)})
	return nil
}

func (m *Mount) both(from, to string) (n, folder *node, base string) {
	folder, base = m.disk.parent(to)
	return m.disk.find(from), folder, base
}

// Remove implements ledger.Files.
func (m *Mount) Remove(name string) error {
	if err := m.call("remove", name); err != nil {
		return err
	}
	folder, base := m.disk.parent(name)
	if folder == nil || folder.names[base] == nil {
		return missing("remove", name)
	}
	folder.change(change{name: base})
	return nil
}

// file is an open file or folder.
type file struct {
	mount *Mount
	node  *node
	name  string
}

func (f *file) Write(data []byte) (int, error) {
	n := len(data)
	err := f.mount.call("write", f.name)
	if err != nil {
		n /= 2 // what came through before it failed
	}
	if !f.mount.gone && n > 0 {
		f.node.data, f.node.synced = append(f.node.data, data[:n]...), false
	}
	return n, err
}

// Sync brings the file to the platter. When it fails, the pages that were dirty count
// as clean from then on: later calls say that all is well.
func (f *file) Sync() error {
	if err := f.mount.call("sync", f.name); err != nil {
		if !f.mount.gone && !f.node.folder {
			f.node.broken = true
		}
		return err
	}
	n := f.node
	switch {
	case n.folder:
		for _, c := range n.pending {
			apply(n.platter, c)
		}
		n.pending = nil
	case !n.broken:
		n.durable, n.synced = slices.Clone(n.data), true
	}
	return nil
}

func (f *file) Close() error {
	if f.mount.disk.locks[f.node] == f.mount {
		delete(f.mount.disk.locks, f.node)
	}
	return nil
}

func (f *file) Lock(bool) error {
	if owner := f.mount.disk.locks[f.node]; owner != nil && owner != f.mount {
		return &fs.PathError{Op: "lock", Path: f.name, Err: fs.ErrPermission}
	}
	if !f.mount.gone {
		f.mount.disk.locks[f.node] = f.mount
	}
	return nil
}

// info is what Stat gives.
type info struct {
	name string
	node *node
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.node.data)) }
func (i info) Mode() fs.FileMode  { return i.node.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.node.folder }
func (i info) Sys() any           { return nil }
