// Package disk is a file system for the simulation that keeps apart what is in the
// page cache and what is on the platter.
//
// What flows in: the calls of processes, through Mount, and faults. What flows out:
// files as a process sees them, and, after a loss of power, what was synced and a part
// of the rest. Nothing in it happens by chance: whoever holds the disk decides.
package disk

import (
	"io/fs"
	"path"
	"slices"
	"syscall"
)

// Disk is one disk. The zero value is none: see New.
type Disk struct {
	root  *node
	locks map[*node]*Mount
	full  bool
	made  []*node // every folder, in the order of their making
}

// node is a file or a folder.
type node struct {
	folder bool
	mode   fs.FileMode

	data    []byte // as a process sees it
	durable []byte // on the platter
	synced  bool   // both are the same
	// broken: a sync failed, and the kernel has forgotten that the pages are dirty.
	broken bool

	names   map[string]*node // as a process sees them
	platter map[string]*node // on the platter
	pending []change         // of names since the folder was synced, in order
}

// change is one change of a folder's names; a rename is one change of two.
type change struct {
	name string
	to   *node // nil: removed
	from string
}

// New gives an empty disk.
func New() *Disk {
	d := &Disk{root: newFolder(0o755), locks: map[*node]*Mount{}}
	d.made = []*node{d.root}
	return d
}

func newFolder(mode fs.FileMode) *node {
	return &node{folder: true, mode: fs.ModeDir | mode, names: map[string]*node{}, platter: map[string]*node{}}
}

// find gives what is at a clean, absolute path.
func (d *Disk) find(name string) *node {
	n := d.root
	for part := range parts(name) {
		if n = n.names[part]; n == nil {
			return nil
		}
	}
	return n
}

// parts walks over the names of a path.
func parts(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(name) > 0 {
			i := slices.Index([]byte(name), '/')
			if i < 0 {
				i = len(name)
			}
			if i > 0 && !yield(name[:i]) {
				return
			}
			name = name[min(len(name), i+1):]
		}
	}
}

func (d *Disk) parent(name string) (*node, string) {
	return d.find(path.Dir(name)), path.Base(name)
}

// Fill makes every write fail for lack of space, or not.
func (d *Disk) Fill(full bool) { d.full = full }

// PowerLoss takes from every file and folder what was not synced, but for what keep
// says: of a folder with n changes, in order, how many of them came to the platter; of
// a file with n bytes more or other than there, how many of them. Nothing is open
// afterwards.
func (d *Disk) PowerLoss(keep func(n int) int) {
	for _, folder := range d.made {
		for _, c := range folder.pending[:keep(len(folder.pending))] {
			apply(folder.platter, c)
		}
		folder.pending = nil
		folder.names = map[string]*node{}
		for _, name := range sorted(folder.platter) {
			n := folder.platter[name]
			folder.names[name] = n
			if !n.folder && !n.synced {
				n.tear(keep)
			}
		}
	}
	d.locks = map[*node]*Mount{}
}

// tear leaves of a file the old bytes, with some of the new ones before them.
func (n *node) tear(keep func(int) int) {
	k := keep(len(n.data))
	torn := slices.Clone(n.data[:k])
	if k < len(n.durable) {
		torn = append(torn, n.durable[k:]...)
	}
	n.data, n.durable, n.synced, n.broken = torn, slices.Clone(torn), true, false
}

func apply(names map[string]*node, c change) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.to == nil {
		delete(names, c.name)
		return
	}
	names[c.name] = c.to
}

func (n *node) change(c change) {
	apply(n.names, c)
	n.pending = append(n.pending, c)
}

func sorted(names map[string]*node) []string {
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// Files lists the paths of all files below a folder, sorted.
func (d *Disk) Files(folder string) []string {
	var list []string
	var walk func(at string, n *node)
	walk = func(at string, n *node) {
		if !n.folder {
			list = append(list, at)
			return
		}
		for _, name := range sorted(n.names) {
			walk(path.Join(at, name), n.names[name])
		}
	}
	if n := d.find(folder); n != nil {
		walk(folder, n)
	}
	return list
}

// Read gives the bytes of a file, for whoever looks at the disk from outside; false
// when there is none.
func (d *Disk) Read(name string) ([]byte, bool) {
	n := d.find(name)
	if n == nil || n.folder {
		return nil, false
	}
	return n.data, true
}

// Damage replaces the bytes of a file at rest, in the cache and on the platter.
func (d *Disk) Damage(name string, data []byte) {
	n := d.find(name)
	n.data, n.durable, n.synced = data, slices.Clone(data), true
}

// Errors of a disk, as package os gives them.
var (
	errNoSpace = syscall.ENOSPC
	errIO      = syscall.EIO
)
