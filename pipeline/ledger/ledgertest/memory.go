package ledgertest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/pipeline/ledger"
)

// Memory is a Store in memory, its objects by name. One goroutine at a time uses it.
type Memory map[string][]byte

var _ ledger.Store = Memory{}

// Create implements ledger.Store.
func (m Memory) Create(_ context.Context, name string, data []byte) error {
	if _, ok := m[name]; ok {
		return ledger.ErrExists
	}
	m[name] = data
	return nil
}

// Put implements ledger.Store.
func (m Memory) Put(_ context.Context, name string, data []byte) error {
	m[name] = data
	return nil
}

// Get implements ledger.Store.
func (m Memory) Get(_ context.Context, name string) ([]byte, error) {
	data, ok := m[name]
	if !ok {
		return nil, fmt.Errorf("read ledger object %q: %w", name, ledger.ErrNotExist)
	}
	return data, nil
}

// List implements ledger.Store.
func (m Memory) List(_ context.Context, prefix string) ([]string, error) {
	var names []string
	for name := range m {
		if strings.HasPrefix(name, prefix) && !strings.Contains(name[len(prefix):], "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Delete implements ledger.Store.
func (m Memory) Delete(_ context.Context, name string) error {
	delete(m, name)
	return nil
}

// Exclude implements ledger.Excluder: nobody else uses it.
func (m Memory) Exclude(context.Context) (func(), error) { return func() {}, nil }
