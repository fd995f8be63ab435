package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

// AzureWriter writes to blob storage: Azure's or a local stand-in. It is safe
// for concurrent use and starts no goroutines.
type AzureWriter struct {
	service *service.Client

	mu         sync.Mutex
	containers map[string]*container.Client
}

// NewAzureWriter returns a writer over a client that the caller configured; see
// AzureRetries for the retries that it should have.
func NewAzureWriter(client *service.Client) *AzureWriter {
	return &AzureWriter{service: client, containers: map[string]*container.Client{}}
}

// DialAzure returns a writer for a storage account, by its shared key (base64).
// serviceURL is for instance http://127.0.0.1:10000/devstoreaccount1. Nothing is
// sent yet.
func DialAzure(serviceURL, account, key string) (*AzureWriter, error) {
	cred, err := azblob.NewSharedKeyCredential(account, key)
	if err != nil {
		return nil, fmt.Errorf("blob storage %q: shared key of account %q: %w", serviceURL, account, err)
	}
	options := &service.ClientOptions{ClientOptions: azcore.ClientOptions{Retry: AzureRetries()}}
	client, err := service.NewClientWithSharedKeyCredential(serviceURL, cred, options)
	if err != nil {
		return nil, fmt.Errorf("blob storage %q: %w", serviceURL, err)
	}
	return NewAzureWriter(client), nil
}

// AzureRetries is how transient errors (408, 429, 5xx, broken connections) are
// retried: 8 times over about 30 s. Every request of the writer may be repeated.
func AzureRetries() policy.RetryOptions {
	return policy.RetryOptions{MaxRetries: 8, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 5 * time.Second}
}

// EnsureContainer makes a container unless it exists.
func (a *AzureWriter) EnsureContainer(ctx context.Context, name string) error {
	_, err := a.container(name).Create(ctx, nil)
	if err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		return fmt.Errorf("create container %q: %w", name, err)
	}
	return nil
}

func (a *AzureWriter) container(name string) *container.Client {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.containers[name]
	if c == nil {
		c = a.service.NewContainerClient(name)
		a.containers[name] = c
	}
	return c
}

func (a *AzureWriter) client(name BlobName) *blockblob.Client {
	return a.container(name.Container).NewBlockBlobClient(name.Path)
}

// Stage is Put Block.
func (a *AzureWriter) Stage(ctx context.Context, name BlobName, id string, data []byte) error {
	body := streaming.NopCloser(bytes.NewReader(data))
	if _, err := a.client(name).StageBlock(ctx, id, body, nil); err != nil {
		return fmt.Errorf("put block of %q: %w", name.Path, err)
	}
	return nil
}

// Commit is Put Block List. If its answer was lost the committed list tells
// what happened; the blob has no other writer.
func (a *AzureWriter) Commit(ctx context.Context, name BlobName, ids []string) (string, error) {
	client := a.client(name)
	answer, err := client.CommitBlockList(ctx, ids, nil)
	if err == nil {
		return bareETag(answer.ETag), nil
	}
	err = fmt.Errorf("put block list of %q: %w", name.Path, err)
	var refused *azcore.ResponseError
	if errors.As(err, &refused) && refused.StatusCode >= 400 && refused.StatusCode < 500 {
		return "", err
	}
	list, look := client.GetBlockList(ctx, blockblob.BlockListTypeCommitted, nil)
	switch {
	case bloberror.HasCode(look, bloberror.BlobNotFound):
		return "", err
	case look != nil:
		return "", fmt.Errorf("%w: %w: get block list: %w", ErrDoubt, err, look)
	}
	var have []string
	for _, b := range list.CommittedBlocks {
		have = append(have, *b.Name)
	}
	if !slices.Equal(have, ids) {
		return "", err
	}
	return bareETag(list.ETag), nil
}

func bareETag(tag *azcore.ETag) string {
	if tag == nil {
		return ""
	}
	return strings.Trim(string(*tag), `"`)
}
