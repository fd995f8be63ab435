// Package ledger keeps what a pipeline has promised: the manifests of its
// batches, and from time to time the offsets and operator states behind them.
// It is the only authority on what has landed.
//
// A Store holds named objects; the Directory store keeps them in files, package
// azureblob in a container. Ledger gives the objects their meaning. Both are called
// from the goroutines of their users and start none.
package ledger

import (
	"context"
	"errors"
)

// Errors of a Store.
var (
	// ErrExists: Create found the name taken. The creator wins.
	ErrExists = errors.New("object exists")
	// ErrNotExist: no object has the name.
	ErrNotExist = errors.New("object does not exist")
	// ErrCorrupt: an object's length or checksum is wrong.
	ErrCorrupt = errors.New("object is corrupt")
)

// Store holds named objects durably. When a call that writes returns nil, the
// object survives a crash and the loss of power. Names are slash-separated, each
// part of letters, digits, '-' and '_'. Every call but Get and List may be repeated
// after an error of class pipeline.ErrTransient.
type Store interface {
	// Create writes a new object, or gives ErrExists and changes nothing. A store
	// that cannot tell whether its own attempt came through may take an object with
	// the same bytes for its own: no two owners write the same bytes.
	Create(ctx context.Context, name string, data []byte) error
	// Put writes an object in place of an older one, whole or not at all.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads an object, or gives ErrNotExist.
	Get(ctx context.Context, name string) ([]byte, error)
	// List gives the names that begin with prefix (a folder: "007/m/"), sorted.
	List(ctx context.Context, prefix string) ([]string, error)
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, name string) error
}
