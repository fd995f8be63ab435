package check

import (
	"context"
	"errors"
	"io"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
)

// firstBlob names a blob of the container's first page, "" when there is none.
func firstBlob(ctx context.Context, store *blob.AzureStore, account, container string) (string, error) {
	first := ""
	_, err := store.ListPage(ctx, account, container, "", "", "", func(path string, _ int64, _ string) {
		if first == "" {
			first = path
		}
	}, nil)
	return first, err
}

// readOne reads a byte of a blob.
func readOne(ctx context.Context, store *blob.AzureStore, account, container, path string) error {
	resp, err := store.Get(ctx, pipeline.BlobID{Account: account, Container: container, Path: path}, 0, 1, "")
	var e *blob.Error
	switch {
	case errors.As(err, &e) && e.Kind == blob.KindOutOfRange:
		return nil // it is empty, and may be read
	case err != nil:
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}
