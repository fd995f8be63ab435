package ledger

import (
	"context"
	"errors"
)

// ErrChanged: Swap found another version than the one it was given.
var ErrChanged = errors.New("object was changed by someone else")

// Shared is a Store that several processes open at once, and that therefore needs
// an owner; see Own.
type Shared interface {
	Store
	// Load reads an object with its version, or gives ErrNotExist.
	Load(ctx context.Context, name string) (data []byte, version string, err error)
	// Swap writes an object in place of the given version ("" where there was none)
	// and gives the new one, or gives ErrChanged and changes nothing.
	Swap(ctx context.Context, name string, data []byte, version string) (string, error)
}
