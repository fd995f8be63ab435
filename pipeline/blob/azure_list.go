package blob

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// Limits and waits of listing.
const (
	// PageSize is the number of names asked for in one page: the service's own limit.
	PageSize       = 5000
	listTries      = 5
	listTimeout    = time.Minute
	listBackoffMin = 500 * time.Millisecond
	listBackoffMax = 10 * time.Second
	listAskedMax   = time.Minute
)

type listCounters struct{ requests, retries atomic.Int64 }

// ListStats are counts of ListPage since the store was made.
type ListStats struct{ Requests, Retries int64 }

// ListStats gives the counts; they only rise.
func (s *AzureStore) ListStats() ListStats {
	return ListStats{Requests: s.lists.requests.Load(), Retries: s.lists.retries.Load()}
}

// ListPage lists one page of the names that begin with prefix, in the service's
// order. With a delimiter, names that go on behind the next one after the prefix
// are folded: folder gets them once, with the delimiter at their end. marker is ""
// for the first page, then what the last call gave; "" is the end. Either function
// may be nil.
//
// Transient faults are retried a few times with back-off. Errors: *Error.
func (s *AzureStore) ListPage(ctx context.Context, account, containerName, prefix, delimiter, marker string,
	blob func(path string, size int64, etag string), folder func(prefix string),
) (next string, err error) {
	object := account + "/" + containerName + "/" + prefix
	if !validContainer(containerName) {
		return "", &Error{Op: "list container", Object: object, Offset: -1, Detail: "no name of a container"}
	}
	for try := 1; ; try++ {
		a, err := s.account("list container", object, account) // each time: see Renew
		if err != nil {
			return "", err
		}
		s.lists.requests.Add(1)
		page, err := a.listPage(ctx, containerName, prefix, delimiter, marker)
		if err == nil {
			return page.visit(blob, folder), nil
		}
		e := a.convert(ctx, "list container", object, -1, err)
		if !e.transient() || e.context != nil || try >= listTries {
			return "", e
		}
		s.lists.retries.Add(1)
		if err := sleep(ctx, wait(listBackoffMin, listBackoffMax, listAskedMax, try, e.Wait)); err != nil {
			return "", err
		}
	}
}

// listing is a page of either kind.
type listing struct {
	items    []*container.BlobItem
	prefixes []*container.BlobPrefix
	next     *string
}

func (a *account) listPage(ctx context.Context, name, prefix, delimiter, marker string) (listing, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listTimeout, errIdle)
	defer cancel()
	client := a.service.NewContainerClient(name)
	size := int32(PageSize)
	var from *string
	if marker != "" {
		from = &marker
	}
	if delimiter == "" {
		pager := client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix, Marker: from, MaxResults: &size})
		page, err := pager.NextPage(ctx)
		if err != nil {
			return listing{}, err
		}
		if page.Segment == nil {
			return listing{}, errNoSegment
		}
		return listing{items: page.Segment.BlobItems, next: page.NextMarker}, nil
	}
	pager := client.NewListBlobsHierarchyPager(delimiter, &container.ListBlobsHierarchyOptions{Prefix: &prefix, Marker: from, MaxResults: &size})
	page, err := pager.NextPage(ctx)
	if err != nil {
		return listing{}, err
	}
	if page.Segment == nil {
		return listing{}, errNoSegment
	}
	return listing{items: page.Segment.BlobItems, prefixes: page.Segment.BlobPrefixes, next: page.NextMarker}, nil
}

var errNoSegment = errors.New("the answer is no list of blobs")

func (l listing) visit(blob func(string, int64, string), folder func(string)) (next string) {
	for _, item := range l.items {
		if blob == nil || item == nil || item.Name == nil || item.Properties == nil || item.Properties.ContentLength == nil {
			continue
		}
		etag := ""
		if item.Properties.ETag != nil {
			etag = string(*item.Properties.ETag)
		}
		blob(*item.Name, *item.Properties.ContentLength, etag)
	}
	for _, p := range l.prefixes {
		if folder != nil && p != nil && p.Name != nil {
			folder(*p.Name)
		}
	}
	if l.next == nil {
		return ""
	}
	return *l.next
}
