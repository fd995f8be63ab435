package ledger

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Files is what a Directory needs of a file system: that of package os, or one of a
// simulation that loses what was not synced. The methods are those of package os.
type Files interface {
	MkdirAll(path string, perm fs.FileMode) error
	Stat(path string) (fs.FileInfo, error)
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	ReadFile(path string) ([]byte, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	WalkDir(root string, visit fs.WalkDirFunc) error
	Link(from, to string) error
	Rename(from, to string) error
	Remove(path string) error
}

// File is an open file or folder.
type File interface {
	io.WriteCloser
	// Sync makes what was written, or the names in a folder, survive the loss of power.
	Sync() error
	// Lock takes the file for this process until it is closed. Without wait it fails when
	// another process has it.
	Lock(wait bool) error
}

// osFiles is the file system of this machine.
type osFiles struct{}

func (osFiles) MkdirAll(path string, perm fs.FileMode) error { return os.MkdirAll(path, perm) }
func (osFiles) Stat(path string) (fs.FileInfo, error)        { return os.Stat(path) }
func (osFiles) ReadFile(path string) ([]byte, error)         { return os.ReadFile(path) }
func (osFiles) ReadDir(path string) ([]fs.DirEntry, error)   { return os.ReadDir(path) }
func (osFiles) Link(from, to string) error                   { return os.Link(from, to) }
func (osFiles) Rename(from, to string) error                 { return os.Rename(from, to) }
func (osFiles) Remove(path string) error                     { return os.Remove(path) }

func (osFiles) WalkDir(root string, visit fs.WalkDirFunc) error {
	return filepath.WalkDir(root, visit)
}

func (osFiles) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

func (f osFile) Lock(wait bool) error {
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	return unix.Flock(int(f.Fd()), how)
}
