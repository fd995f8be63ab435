package traffic

import (
	"context"
	"errors"
	"fmt"
)

// Accounts is a BlobWriter over several storage accounts, by their names.
type Accounts map[string]BlobWriter

// EnsureContainer makes the container in every account.
func (a Accounts) EnsureContainer(ctx context.Context, container string) error {
	var errs []error
	for _, w := range a {
		errs = append(errs, w.EnsureContainer(ctx, container))
	}
	return errors.Join(errs...)
}

// Stage uploads a block in the blob's account.
func (a Accounts) Stage(ctx context.Context, name BlobName, id string, data []byte) error {
	w, err := a.of(name)
	if err != nil {
		return err
	}
	return w.Stage(ctx, name, id, data)
}

// Commit commits in the blob's account.
func (a Accounts) Commit(ctx context.Context, name BlobName, ids []string) (string, error) {
	w, err := a.of(name)
	if err != nil {
		return "", err
	}
	return w.Commit(ctx, name, ids)
}

func (a Accounts) of(name BlobName) (BlobWriter, error) {
	w := a[name.Account]
	if w == nil {
		return nil, fmt.Errorf("blob %q: nobody writes to account %q", name.Path, name.Account)
	}
	return w, nil
}
