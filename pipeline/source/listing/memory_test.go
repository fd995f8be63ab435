package listing_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// crowd is a container with a million flow logs in the current hour, made up page
// by page.
type crowd struct{ blobs int }

func (c crowd) ListPage(_ context.Context, _, _, prefix, delimiter, marker string,
	blob func(string, int64, string), folder func(string),
) (string, error) {
	root := layouts[0]
	if delimiter != "" {
		rest := strings.TrimPrefix(root+"y=2000/", prefix)
		at := strings.Index(rest, "/")
		folder(prefix + rest[:at+1])
		return "", nil
	}
	from := 0
	if marker != "" {
		if _, err := fmt.Sscan(marker, &from); err != nil {
			return "", err
		}
	}
	to := min(c.blobs, from+5000)
	for i := from; i < to; i++ {
		blob(fmt.Sprintf("%sm=00/macAddress=%012X/PT1H.json", prefix, i), int64(i), "etag")
	}
	if to == c.blobs {
		return "", nil
	}
	return fmt.Sprint(to), nil
}

// Listing a million names takes no more than 64 MiB.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("a million names take seconds")
	}
	const blobs = crowdSize
	s, err := listing.New(listing.Config{
		Start: began, Interval: 100 * time.Millisecond, Now: func() time.Time { return began },
		Containers: []listing.Container{{Account: account, Container: container}},
	}, crowd{blobs})
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := heap(), uint64(0)
	// The second pass begins with those again that did not fit into the memory.
	n, want := 0, blobs+max(0, min(10_000, blobs-listing.MaxRemembered))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = s.Run(ctx, func(context.Context, pipeline.Delivery) error {
		if n++; n%(blobs/5) == 0 {
			most = max(most, heap())
		}
		if n < want {
			return nil
		}
		cancel()
		if n == want {
			return nil
		}
		return ctx.Err()
	})
	if err != nil || n < want {
		t.Errorf("%d announced, want %d; %v", n, want, err)
	}
	if stats := s.Stats(); stats.Remembered != min(blobs, listing.MaxRemembered) {
		t.Errorf("%+v", stats)
	}
	t.Logf("heap grew by %.1f MiB over %d names", float64(most-before)/(1<<20), blobs)
	if most-before > 64<<20 {
		t.Errorf("heap grew by %d bytes", most-before)
	}
}
