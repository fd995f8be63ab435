package pipeline

import (
	"encoding/hex"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/zeebo/xxh3"
)

// Transform changes the flow rows of batches before operators and sinks see them.
// It is one version of settings and data and never changes: a manifest names it,
// the ledger keeps its recipe and data, and a replay gives the same rows whatever
// was configured meanwhile. Any goroutine may call it.
type Transform interface {
	// Recipe says what the transform does, with the hashes of the data that it needs.
	// Equal recipes do the same. Borrowed.
	Recipe() []byte
	// Data gives what the recipe names, by Hash. Borrowed.
	Data() map[string][]byte
	// Apply gives rows in place of flows, which is borrowed. It is a function of the
	// recipe, the data and the rows. An error is fatal for the shard.
	Apply(alloc memory.Allocator, flows arrow.Record) (Transformed, error)
}

// Transformed is what became of the rows of one batch.
type Transformed struct {
	// Flows holds the rows, in their order. The receiver releases it.
	Flows arrow.Record
	// Kept are the places, rising, of the rows that are still there, when some are
	// not; nil when all are.
	Kept []int32
	// Dropped counts the others by the name of what left them out.
	Dropped []Dropped
}

// Dropped counts rows that were left out.
type Dropped struct {
	Name string
	Rows int64
}

// TransformRef names a transform in a manifest.
type TransformRef struct {
	Name string `json:"name"`
	// Version is the Hash of the recipe.
	Version string `json:"version"`
}

// Hash names content: xxh3-128, 32 hex digits.
func Hash(data []byte) string {
	sum := xxh3.Hash128(data).Bytes()
	return hex.EncodeToString(sum[:])
}
