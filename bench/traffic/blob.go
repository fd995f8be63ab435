package traffic

import (
	"context"
	"encoding/base64"
	"errors"
)

// A log blob is header, data blocks, footer. From the second one on, a data
// block begins with a comma.
const (
	blobHeader = `{"records":[`
	blobFooter = `]}`
)

// BlobName names a blob.
type BlobName struct {
	Account   string
	Container string
	Path      string
}

// BlobWriter is where blobs grow: the part of a block blob's protocol that the
// log service uses. The calls for one blob come one after the other, those for
// different blobs at the same time.
//
// Implementations retry transient errors themselves; what they return ends the
// run. A context lives as long as one append. Data is borrowed for the call.
type BlobWriter interface {
	// EnsureContainer makes a container unless it exists.
	EnsureContainer(ctx context.Context, container string) error
	// Stage uploads one block, uncommitted.
	Stage(ctx context.Context, name BlobName, id string, data []byte) error
	// Commit makes the blocks ids, in this order, the content of the blob and
	// returns its new eTag, unquoted. After an error the blob is what it was
	// before, unless the error is ErrDoubt.
	Commit(ctx context.Context, name BlobName, ids []string) (etag string, err error)
}

// ErrDoubt says that nobody knows whether a commit took place.
var ErrDoubt = errors.New("the commit was neither confirmed nor refused")

// blockID returns a block id as the service makes them: base64 of 32 random hex
// characters, without any order. Here the seed is the source of randomness.
func blockID(key uint64, n uint64) string {
	h := place(key, forBlock, n)
	return base64.StdEncoding.EncodeToString([]byte(hex(h, mix(h+1), 32)))
}
