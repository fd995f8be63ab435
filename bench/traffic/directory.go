package traffic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// DirectoryWriter keeps each blob as a growing file, <root>/<container>/<path>.
// It is safe for concurrent use.
//
// A commit must keep all blocks of the one before, except that it puts new ones
// before the last, as the log service does. The new blocks and the footer are
// written in one call over the old footer; a reader may see that half done.
type DirectoryWriter struct {
	root string

	mu    sync.Mutex
	blobs map[BlobName]*directoryBlob
}

type directoryBlob struct {
	staged    map[string][]byte // Not yet committed, and the last block.
	committed []string
	length    int64
}

// NewDirectoryWriter returns a writer below root, which is made when needed.
func NewDirectoryWriter(root string) *DirectoryWriter {
	return &DirectoryWriter{root: root, blobs: map[BlobName]*directoryBlob{}}
}

func (d *DirectoryWriter) file(name BlobName) string {
	// One account: its name is in no path.
	return filepath.Join(d.root, name.Container, filepath.FromSlash(name.Path))
}

// EnsureContainer makes the directory of a container.
func (d *DirectoryWriter) EnsureContainer(_ context.Context, container string) error {
	if err := os.MkdirAll(filepath.Join(d.root, container), 0o755); err != nil {
		return fmt.Errorf("ensure container: %w", err)
	}
	return nil
}

// Stage keeps a copy of one block in memory.
func (d *DirectoryWriter) Stage(_ context.Context, name BlobName, id string, data []byte) error {
	b := d.blob(name)
	b.staged[id] = slices.Clone(data)
	return nil
}

func (d *DirectoryWriter) blob(name BlobName) *directoryBlob {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.blobs[name]
	if b == nil {
		b = &directoryBlob{staged: map[string][]byte{}}
		d.blobs[name] = b
	}
	return b
}

// Commit writes what is new.
func (d *DirectoryWriter) Commit(_ context.Context, name BlobName, ids []string) (string, error) {
	b := d.blob(name)
	keep := max(0, len(b.committed)-1) // All but the footer.
	if len(ids) <= keep || !slices.Equal(ids[:keep], b.committed[:keep]) {
		return "", fmt.Errorf("commit %q: only appending is supported", name.Path)
	}
	at := b.length
	if keep > 0 {
		at -= int64(len(b.staged[b.committed[keep]]))
	}
	var tail []byte
	for _, id := range ids[keep:] {
		data, ok := b.staged[id]
		if !ok {
			return "", fmt.Errorf("commit %q: block %q was not staged", name.Path, id)
		}
		tail = append(tail, data...)
	}
	if err := writeAt(d.file(name), tail, at); err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	last := ids[len(ids)-1]
	b.staged = map[string][]byte{last: b.staged[last]}
	b.committed = slices.Clone(ids)
	b.length = at + int64(len(tail))
	return "0x8D" + strings.ToUpper(hex(0, mix(uint64(b.length)), 12)), nil
}

// writeAt writes data at an offset of a file; at 0 it starts the file afresh.
func writeAt(path string, data []byte, at int64) (err error) {
	flags := os.O_WRONLY | os.O_CREATE
	if at == 0 {
		flags |= os.O_TRUNC
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	_, err = f.WriteAt(data, at)
	return err
}
