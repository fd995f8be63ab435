package listing

import (
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/pipeline"
)

// memory keeps length and version of the blobs of the last hours. The zero value
// is ready.
type memory struct {
	mu    sync.Mutex
	hours map[int64]map[uint64]known // by the hour's Unix time, and the hash of the name
	n     int64
}

// known takes 24 bytes with its key. Two names of one hash would have to have one
// length and one version, too, before a blob could be missed.
type known struct {
	size int64
	etag uint64 // hash
}

// compare says whether the blob has news and which length to announce: -1, which
// makes the reader look, when it did not grow but is another version.
func (m *memory) compare(id pipeline.BlobID, size int64, etag string) (length int64, news bool) {
	key, tag := xxh3.HashString(id.String()), xxh3.HashString(etag)
	m.mu.Lock()
	defer m.mu.Unlock()
	hour, _ := id.Hour()
	was, ok := m.hours[hour.Unix()][key]
	switch {
	case !ok || size > was.size:
		return size, true
	case size == was.size && tag == was.etag:
		return 0, false
	}
	return -1, true
}

// remember keeps what was announced, unless the memory is full.
func (m *memory) remember(id pipeline.BlobID, hour time.Time, size int64, etag string) {
	key := xxh3.HashString(id.String())
	m.mu.Lock()
	defer m.mu.Unlock()
	of := m.hours[hour.Unix()]
	if _, ok := of[key]; !ok {
		if m.n >= MaxRemembered {
			return
		}
		m.n++
	}
	if of == nil {
		if m.hours == nil {
			m.hours = map[int64]map[uint64]known{}
		}
		of = map[uint64]known{}
		m.hours[hour.Unix()] = of
	}
	of[key] = known{size: size, etag: xxh3.HashString(etag)}
}

// forget drops the hours that began before t.
func (m *memory) forget(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for hour, of := range m.hours {
		if time.Unix(hour, 0).Before(t) {
			m.n -= int64(len(of))
			delete(m.hours, hour)
		}
	}
}

func (m *memory) len() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// clear forgets everything.
func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hours, m.n = nil, 0
}
