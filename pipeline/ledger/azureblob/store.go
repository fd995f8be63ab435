// Package azureblob keeps a ledger in a container of Azure Blob Storage, so that
// several instances can share it and one of them own it.
//
// In flow the objects of package ledger, out flow block blobs of one Put each:
// Create with If-None-Match, Swap with If-Match. It starts no goroutine; calls block
// while they are tried again.
package azureblob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/ledger"
)

// Config of a Store.
type Config struct {
	// Account says where, and carries the credential.
	Account blob.AccountConfig
	// Container that holds the ledger; made at the first start where the credential
	// may do so.
	Container string
	// Prefix of every object's name, such as "prod/eastus": two pipelines may share a
	// container. Letters, digits, '-', '_' and '/'. Default "".
	Prefix string

	// Tries bounds the attempts of a call; between them it waits RetryMin, doubled up
	// to RetryMax, or as long as the service says. Tries 6, 200 ms, 5 s.
	Tries    int
	RetryMin time.Duration
	RetryMax time.Duration
	// AttemptTimeout bounds one attempt. 15 s.
	AttemptTimeout time.Duration
}

// DefaultConfig gives the defaults.
func DefaultConfig(account blob.AccountConfig, container string) Config {
	return Config{Account: account, Container: container, Tries: 6, RetryMin: 200 * time.Millisecond, RetryMax: 5 * time.Second, AttemptTimeout: 15 * time.Second}
}

var validPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.Prefix != "" && (len(c.Prefix) > 200 || !validPrefix.MatchString(c.Prefix)) {
		faults = append(faults, fmt.Errorf("prefix %q: want up to 200 letters, digits, '-' and '_', parted by '/'", c.Prefix))
	}
	if c.Tries < 1 || c.RetryMin <= 0 || c.RetryMax < c.RetryMin || c.AttemptTimeout <= 0 {
		faults = append(faults, fmt.Errorf("%d tries, waits from %v to %v, %v an attempt: want at least one try and times above 0", c.Tries, c.RetryMin, c.RetryMax, c.AttemptTimeout))
	}
	return errors.Join(faults...)
}

// Store implements ledger.Shared.
type Store struct {
	cfg       Config
	container atomic.Pointer[blob.AzureContainer]
	prefix    string // "" or ending in "/"
}

var _ ledger.Shared = (*Store)(nil)

// New checks the configuration and makes a store. It does no I/O.
func New(cfg Config) (*Store, error) {
	fail := func(err error) (*Store, error) { return nil, fmt.Errorf("ledger container: %w", err) }
	if err := cfg.Validate(); err != nil {
		return fail(err)
	}
	c, err := blob.NewAzureContainer(cfg.Account, cfg.Container)
	if err != nil {
		return fail(err)
	}
	s := &Store{cfg: cfg}
	s.container.Store(c)
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	return s, nil
}

// Renew makes a client with another credential, of the same container. Each attempt
// after the call of apply uses it; those under way end as they began.
//
// Errors: as New.
func (s *Store) Renew(account blob.AccountConfig) (apply func(), err error) {
	fresh, err := blob.NewAzureContainer(account, s.cfg.Container)
	if err != nil {
		return nil, fmt.Errorf("ledger container: %w", err)
	}
	return func() { s.container.Swap(fresh).Close() }, nil
}

// Close drops idle connections.
func (s *Store) Close() { s.container.Load().Close() }

// String names the place for people.
func (s *Store) String() string { return s.container.Load().Object(strings.TrimSuffix(s.prefix, "/")) }

// Prepare makes the container where it is missing. It asks by listing, which the
// ledger needs the right for anyway: a SAS of a container may not look at the
// container itself.
func (s *Store) Prepare(ctx context.Context) error {
	_, err := s.list(ctx, "info", 1)
	var missing *blob.Error
	if err == nil || !errors.As(err, &missing) || missing.Kind != blob.KindMissing {
		return err
	}
	err = s.retry(ctx, "create ledger container", "", func(ctx context.Context, client *container.Client) error {
		_, err := client.Create(ctx, nil)
		return err
	})
	if e, ok := errors.AsType[*blob.Error](err); ok && e.Code == "ContainerAlreadyExists" {
		return nil // somebody else was faster, or our own first attempt
	}
	if err != nil {
		return fmt.Errorf("%w (or create the container yourself)", err)
	}
	return nil
}

// absentName is no object of a ledger.
const absentName = "nothing"

// Examine asks whether the container is there, and whether the credential may list,
// read, write and delete in it. It writes nothing: a Put on condition of a version
// that is not there, and a Delete of what is not there, are refused by the service
// after it has looked at the rights.
//
// Errors: what Prepare, or a ledger, would meet. A container that is missing is none:
// Prepare makes it, if the credential may do so.
func (s *Store) Examine(ctx context.Context) (missing bool, err error) {
	_, err = s.list(ctx, "info", 1)
	if e, ok := errors.AsType[*blob.Error](err); ok && e.Kind == blob.KindMissing {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if _, _, err = s.Load(ctx, absentName); !errors.Is(err, ledger.ErrNotExist) {
		return false, unexpected(err)
	}
	conditions := &azblob.ModifiedAccessConditions{IfMatch: to.Ptr(azcore.ETag(`"0x0"`))}
	if _, err = s.put(ctx, "write ledger object", absentName, nil, conditions); !refused(err) {
		return false, unexpected(err)
	}
	err = s.Delete(ctx, absentName)
	return false, err
}

// unexpected is said of a service that finds what cannot be there.
func unexpected(err error) error {
	if err == nil {
		return fmt.Errorf("there is an object %q: this container, or this prefix, is somebody else's", absentName)
	}
	return err
}

// retry makes attempts until one works, the error is not transient, or all tries
// are used up.
func (s *Store) retry(ctx context.Context, op, name string, attempt func(context.Context, *container.Client) error) error {
	for n := 0; ; n++ {
		err := s.try(ctx, op, name, attempt)
		if err == nil {
			return nil
		}
		if n+1 >= s.cfg.Tries || !passing(err) {
			return err
		}
		wait := max(min(s.cfg.RetryMin<<min(n, 20), s.cfg.RetryMax), err.Wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%s %q: %w", op, s.container.Load().Object(s.prefix+name), ctx.Err())
		}
	}
}

func (s *Store) try(ctx context.Context, op, name string, attempt func(context.Context, *container.Client) error) *blob.Error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.AttemptTimeout)
	defer cancel()
	at := s.container.Load()
	err := attempt(bounded, at.Client())
	if err == nil {
		return nil
	}
	// Convert looks at the caller's context: the deadline of one attempt is ours, and
	// to the caller it is a service that is slow.
	e := at.Convert(ctx, op, s.prefix+name, err)
	if e.Kind == blob.KindRefused && strings.HasSuffix(e.Code, "Mismatch") && e.Code != "AuthorizationSourceIPMismatch" {
		e.Detail = "the credential lacks the right; give it the role Storage Blob Data Contributor on the container, or a SAS with read, add, create, write, delete and list"
	}
	return e
}

// passing says whether another attempt may help. Conditions that are not met and
// names that are taken are answers.
func passing(e *blob.Error) bool {
	switch e.Kind {
	case blob.KindThrottled, blob.KindUnavailable:
		return !errors.Is(e, context.Canceled) && !errors.Is(e, context.DeadlineExceeded)
	case blob.KindConflict:
		return !taken(e)
	default:
		return false
	}
}

func taken(e *blob.Error) bool {
	return e.Code == "BlobAlreadyExists" || e.Code == "ContainerAlreadyExists" || e.Code == "UnauthorizedBlobOverwrite"
}

// refused says that the condition of a Put was not met: there is another version,
// or there is one at all. A SAS that may create but not write says it in its way.
func refused(err error) bool {
	e, ok := errors.AsType[*blob.Error](err)
	return ok && (e.Kind == blob.KindChanged || e.Kind == blob.KindConflict && taken(e) || absent(err))
}

// absent says that the blob is not there; a container that is gone is another thing.
func absent(err error) bool {
	e, ok := errors.AsType[*blob.Error](err)
	return ok && e.Code == "BlobNotFound"
}

func (s *Store) blob(client *container.Client, name string) *blockblob.Client {
	return client.NewBlockBlobClient(s.prefix + name)
}

// put writes the whole blob in one request.
func (s *Store) put(ctx context.Context, op, name string, data []byte, conditions *azblob.ModifiedAccessConditions) (version string, err error) {
	options := &blockblob.UploadOptions{HTTPHeaders: &azblob.HTTPHeaders{BlobContentType: to.Ptr("text/plain; charset=utf-8")}}
	if conditions != nil {
		options.AccessConditions = &azblob.AccessConditions{ModifiedAccessConditions: conditions}
	}
	err = s.retry(ctx, op, name, func(ctx context.Context, client *container.Client) error {
		answer, err := s.blob(client, name).Upload(ctx, streaming.NopCloser(bytes.NewReader(data)), options)
		if err == nil && answer.ETag != nil {
			version = string(*answer.ETag)
		}
		return err
	})
	return version, err
}

// Create implements ledger.Store. An answer that was lost leaves our own object
// behind, and the next attempt is told that the name is taken; so is a caller who
// repeats the call. The bytes tell it from another owner's.
func (s *Store) Create(ctx context.Context, name string, data []byte) error {
	_, err := s.put(ctx, "create ledger object", name, data, &azblob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)})
	if !refused(err) {
		return err
	}
	there, err := s.Get(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, data) {
		return fmt.Errorf("create ledger object %q: %w", name, ledger.ErrExists)
	}
	return nil
}

// Put implements ledger.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	_, err := s.put(ctx, "write ledger object", name, data, nil)
	return err
}

// Swap implements ledger.Shared. A lost answer is resolved as in Create.
func (s *Store) Swap(ctx context.Context, name string, data []byte, version string) (string, error) {
	conditions := &azblob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}
	if version != "" {
		conditions = &azblob.ModifiedAccessConditions{IfMatch: to.Ptr(azcore.ETag(version))}
	}
	next, err := s.put(ctx, "replace ledger object", name, data, conditions)
	if !refused(err) {
		return next, err
	}
	there, next, err := s.Load(ctx, name)
	switch {
	case errors.Is(err, ledger.ErrNotExist), err == nil && !bytes.Equal(there, data):
		return "", fmt.Errorf("replace ledger object %q: %w", name, ledger.ErrChanged)
	case err != nil:
		return "", err
	}
	return next, nil
}

// maxObject bounds what is read: a base of a very large estate has some 40 MiB.
const maxObject = 1 << 30

// Load implements ledger.Shared.
func (s *Store) Load(ctx context.Context, name string) (data []byte, version string, err error) {
	err = s.retry(ctx, "read ledger object", name, func(ctx context.Context, client *container.Client) error {
		answer, err := s.blob(client, name).DownloadStream(ctx, nil)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.ETag != nil {
			version = string(*answer.ETag)
		}
		if data, err = io.ReadAll(io.LimitReader(answer.Body, maxObject)); err != nil {
			return err
		}
		if answer.ContentLength != nil && *answer.ContentLength != int64(len(data)) {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	if absent(err) {
		return nil, "", fmt.Errorf("read ledger object %q: %w", name, ledger.ErrNotExist)
	}
	return data, version, err
}

// Get implements ledger.Store.
func (s *Store) Get(ctx context.Context, name string) ([]byte, error) {
	data, _, err := s.Load(ctx, name)
	return data, err
}

// List implements ledger.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := s.list(ctx, prefix, 0)
	sort.Strings(names)
	return names, err
}

// list gives all names, or only some of the first when most is not 0.
func (s *Store) list(ctx context.Context, prefix string, most int32) ([]string, error) {
	options := &container.ListBlobsFlatOptions{Prefix: to.Ptr(s.prefix + prefix)}
	if most > 0 {
		options.MaxResults = &most
	}
	var names []string
	for {
		var page container.ListBlobsFlatResponse
		err := s.retry(ctx, "list ledger objects", prefix, func(ctx context.Context, client *container.Client) (err error) {
			// A pager that has failed once fails for ever, so each page has its own.
			page, err = client.NewListBlobsFlatPager(options).NextPage(ctx)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, item := range page.Segment.BlobItems {
			names = append(names, strings.TrimPrefix(*item.Name, s.prefix))
		}
		if most > 0 || page.NextMarker == nil || *page.NextMarker == "" {
			return names, nil
		}
		options.Marker = page.NextMarker
	}
}

// Delete implements ledger.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	err := s.retry(ctx, "delete ledger object", name, func(ctx context.Context, client *container.Client) error {
		_, err := s.blob(client, name).Delete(ctx, nil)
		return err
	})
	if absent(err) {
		return nil
	}
	return err
}
