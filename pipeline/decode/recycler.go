package decode

import (
	"math/bits"
	"sync"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

// Recycler is an allocator that keeps freed buffers for the next batch: getting
// fresh pages from the system costs as much as decoding into them. A buffer's old
// content stays in it; Arrow's builders clear what they need.
//
// Safe for many goroutines: record batches may be released anywhere.
type Recycler struct {
	mu    sync.Mutex
	under memory.Allocator
	free  [bits.UintSize][][]byte // by the power of two of the capacity
	held  int                     // bytes in free
	limit int
}

// NewRecycler makes an allocator over under that keeps at most limit bytes.
func NewRecycler(under memory.Allocator, limit int) *Recycler {
	return &Recycler{under: under, limit: limit}
}

// smallest is the power of two of the smallest buffer.
const smallest = 10

func sizeClass(size int) int { return max(smallest, bits.Len(uint(max(size, 1)-1))) }

// Allocate gives a buffer of size bytes.
func (r *Recycler) Allocate(size int) []byte {
	class := sizeClass(size)
	r.mu.Lock()
	if n := len(r.free[class]); n > 0 {
		b := r.free[class][n-1]
		r.free[class] = r.free[class][:n-1]
		r.held -= 1 << class
		r.mu.Unlock()
		return b[:size]
	}
	r.mu.Unlock()
	return r.under.Allocate(1 << class)[:size]
}

// Reallocate gives a buffer of size bytes that begins with what b holds.
func (r *Recycler) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	out := r.Allocate(size)
	copy(out, b)
	r.Free(b)
	return out
}

// Free takes a buffer back.
func (r *Recycler) Free(b []byte) {
	size := cap(b)
	if size == 0 {
		return
	}
	b = b[:size]
	r.mu.Lock()
	if r.held+size <= r.limit {
		r.held += size
		class := sizeClass(size)
		r.free[class] = append(r.free[class], b)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	r.under.Free(b)
}

// Close gives everything that is kept back to the allocator below.
func (r *Recycler) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for class := range r.free {
		for _, b := range r.free[class] {
			r.under.Free(b)
		}
		r.free[class] = nil
	}
	r.held = 0
}
