package traffic

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// MemoryWriter keeps blobs in memory, for tests and small runs. The zero value
// is ready; it is safe for concurrent use.
type MemoryWriter struct {
	mu         sync.Mutex
	containers map[string]bool
	blobs      map[BlobName]*memoryBlob
	commits    uint64
}

type memoryBlob struct {
	blocks    map[string][]byte
	committed []string
}

// EnsureContainer makes a container unless it exists.
func (m *MemoryWriter) EnsureContainer(_ context.Context, container string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.containers == nil {
		m.containers = map[string]bool{}
		m.blobs = map[BlobName]*memoryBlob{}
	}
	m.containers[container] = true
	return nil
}

// Stage keeps a copy of one block.
func (m *MemoryWriter) Stage(_ context.Context, name BlobName, id string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.containers[name.Container] {
		return fmt.Errorf("stage block: no container %q", name.Container)
	}
	b := m.blobs[name]
	if b == nil {
		b = &memoryBlob{blocks: map[string][]byte{}}
		m.blobs[name] = b
	}
	b.blocks[id] = bytes.Clone(data)
	return nil
}

// Commit refuses ids that were not staged, and as the service does drops the
// blocks that are not in the list.
func (m *MemoryWriter) Commit(_ context.Context, name BlobName, ids []string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.blobs[name]
	if b == nil {
		return "", fmt.Errorf("commit %q: no block was staged", name.Path)
	}
	keep := make(map[string][]byte, len(ids))
	for _, id := range ids {
		data, ok := b.blocks[id]
		if !ok {
			return "", fmt.Errorf("commit %q: block %q was not staged", name.Path, id)
		}
		keep[id] = data
	}
	b.blocks, b.committed = keep, slices.Clone(ids)
	m.commits++
	return "0x8D" + strings.ToUpper(hex(0, mix(m.commits), 12)), nil
}

// Names lists the committed blobs in order.
func (m *MemoryWriter) Names() []BlobName {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Collect(maps.Keys(m.blobs))
	names = slices.DeleteFunc(names, func(n BlobName) bool { return m.blobs[n].committed == nil })
	slices.SortFunc(names, func(a, b BlobName) int {
		return strings.Compare(a.Container+"/"+a.Path, b.Container+"/"+b.Path)
	})
	return names
}

// Blocks returns the committed blocks of a blob in order; nil if there is none.
func (m *MemoryWriter) Blocks(name BlobName) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.blobs[name]
	if b == nil {
		return nil
	}
	var blocks [][]byte
	for _, id := range b.committed {
		blocks = append(blocks, b.blocks[id])
	}
	return blocks
}

// Content returns the committed bytes of a blob; nil if there is none.
func (m *MemoryWriter) Content(name BlobName) []byte { return bytes.Join(m.Blocks(name), nil) }
