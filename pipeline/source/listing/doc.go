// Package listing is the sweeper: a source that lists containers and announces
// blobs that grew, so that an event which never came loses nothing.
//
// In flow names and lengths out of a Lister; out flow deliveries without an
// acknowledgement. At the start, and once in a while, a walk over folders finds
// what is above the /y=…/m=00 part of flow logs; below that, the hours from the
// start on are listed, the current and the previous one again and again, each a
// last time two hours after its beginning. Every listing begins at the beginning
// of its prefix, so a name that sorts before one already seen is found.
//
// Run owns all goroutines. Memory does not grow with the container: pages are
// handed on as they come, and only the blobs of the last three hours are
// remembered, up to a limit, by hash and length.
package listing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Lister lists one page of names. pipeline/blob's AzureStore is one.
type Lister interface {
	// ListPage calls blob for each name below prefix and folder for each run of names
	// that go on behind delimiter, and gives the marker of the next page, "" at the
	// end. It retries transient faults itself, for about a minute.
	ListPage(ctx context.Context, account, container, prefix, delimiter, marker string,
		blob func(path string, size int64, etag string), folder func(prefix string)) (next string, err error)
}

// Limits.
const (
	// MaxFolders bounds one walk over a container's folders.
	MaxFolders = 100_000
	// MaxDepth bounds the folders above one another.
	MaxDepth = 24
	// MaxRemembered bounds the blobs whose length is remembered. Those beyond are
	// announced at every pass, which costs time and no request.
	MaxRemembered = 250_000
	// rememberFor is how long after its beginning an hour's blobs are remembered.
	rememberFor = 3 * time.Hour
	// settled is when an hour is listed for the last time.
	settled = 2 * time.Hour
	// retryWait is the longest wait after a pass with errors.
	retryWait = time.Minute
)

// Container is what is swept.
type Container struct {
	Account, Container string
	// Prefix narrows it to names that begin so; may be empty.
	Prefix string
}

// Config of a Source.
type Config struct {
	Containers []Container
	// Start is the first moment of interest: hours that end before or at it are never
	// listed or announced. Required.
	Start time.Time
	// Interval is the time from one pass to the next. Default 10 min, at least 100 ms.
	Interval time.Duration
	// Discover is the time between walks over the folders. Default 6 intervals. While
	// a container has no flow log at all it is walked at every pass.
	Discover time.Duration
	// Suffix is what names of flow logs end with. Default /PT1H.json.
	Suffix string
	// Workers is how many prefixes are listed at a time. Default 4, at least 1.
	Workers int
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log gets one line a pass at most. Default: none.
	Log *slog.Logger
}

// DefaultConfig gives the defaults for the containers from start on.
func DefaultConfig(start time.Time, containers ...Container) Config {
	const interval = 10 * time.Minute
	return Config{
		Containers: containers, Start: start, Interval: interval, Discover: 6 * interval,
		Suffix: "/PT1H.json", Workers: 4, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("sweeper: "+format, args...)) }
	if len(c.Containers) == 0 {
		fault("no container")
	}
	seen := map[Container]bool{}
	for _, k := range c.Containers {
		if k.Account == "" || k.Container == "" {
			fault("container %q of account %q has no name", k.Container, k.Account)
		}
		if seen[k] {
			fault("container %q of account %q is there twice", k.Container, k.Account)
		}
		seen[k] = true
	}
	if c.Start.IsZero() {
		fault("no start")
	}
	if c.Interval < 100*time.Millisecond {
		fault("interval of %s, want at least 100ms", c.Interval)
	}
	if c.Discover < c.Interval {
		fault("folders are walked every %s, want at least the interval of %s", c.Discover, c.Interval)
	}
	if c.Workers < 1 {
		fault("%d workers, want at least 1", c.Workers)
	}
	return errors.Join(faults...)
}

// withDefaults fills what was left at its zero value.
func (c Config) withDefaults() Config {
	d := DefaultConfig(c.Start)
	if c.Interval == 0 {
		c.Interval = d.Interval
	}
	if c.Discover == 0 {
		c.Discover = 6 * c.Interval
	}
	if c.Suffix == "" {
		c.Suffix = d.Suffix
	}
	if c.Workers == 0 {
		c.Workers = d.Workers
	}
	if c.Now == nil {
		c.Now = d.Now
	}
	if c.Log == nil {
		c.Log = d.Log
	}
	return c
}

// isYear says whether a folder's last segment is y=YYYY/.
func isYear(folder string) bool {
	segment, ok := strings.CutPrefix(lastSegment(folder), "y=")
	if !ok || len(segment) != 4 {
		return false
	}
	return strings.Trim(segment, "0123456789") == ""
}

// lastSegment gives a/b/c/ -> c.
func lastSegment(folder string) string {
	folder = strings.TrimSuffix(folder, "/")
	return folder[strings.LastIndexByte(folder, '/')+1:]
}

func hourPrefix(t time.Time) string { return t.Format("y=2006/m=01/d=02/h=15/") }

func dayPrefix(t time.Time) string { return t.Format("y=2006/m=01/d=02/") }
