package listing

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// Source sweeps containers. It implements pipeline.Source.
type Source struct {
	cfg        Config
	lister     Lister
	start      time.Time // beginning of the first hour
	containers []*state
	memory     memory
	count      counters
	renewed    chan Config // at most one, that Run has not taken yet
	looked     time.Time   // beginning of the last pass
}

var _ pipeline.Source = (*Source)(nil)

// state is what is known of one container.
type state struct {
	Container
	roots      map[string]*root
	discovered time.Time // beginning of the last walk that saw everything
	missing    bool      // the container does not exist
}

// root is a folder right above the y= part of flow logs.
type root struct {
	prefix string
	next   time.Time // the first hour that has not been listed for the last time
	before time.Time // where next stood when the wall clock was set ahead; zero: it was not
}

// New checks the configuration; zero values mean the defaults. It does no I/O.
func New(cfg Config, lister Lister) (*Source, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if lister == nil {
		return nil, errors.New("sweeper: no lister")
	}
	s := &Source{cfg: cfg, lister: lister, start: cfg.Start.UTC().Truncate(time.Hour), renewed: make(chan Config, 1)}
	s.contain(cfg.Containers)
	return s, nil
}

// contain makes these the containers, and keeps what is known of those that were
// there.
func (s *Source) contain(all []Container) {
	old := s.containers
	s.containers = nil
	for _, c := range all {
		known := &state{Container: c, roots: map[string]*root{}}
		if i := slices.IndexFunc(old, func(o *state) bool { return o.Container == c }); i >= 0 {
			known = old[i]
		}
		s.containers = append(s.containers, known)
	}
}

// Renew changes the intervals and the containers. After the call of apply Run ends
// the pass that it is in, and makes one with the new ones at once. A new container
// is listed from the first hour of the source on. Call it from one goroutine at a
// time; Run may run.
//
// Errors: as New.
func (s *Source) Renew(interval, discover time.Duration, containers []Container) (apply func(), err error) {
	fresh := s.cfg
	fresh.Interval, fresh.Discover, fresh.Containers = interval, discover, containers
	if err := fresh.Validate(); err != nil {
		return nil, err
	}
	return func() {
		select {
		case <-s.renewed: // an older one
		default:
		}
		s.renewed <- fresh
	}, nil
}

func (s *Source) take(fresh Config) {
	s.cfg.Interval, s.cfg.Discover = fresh.Interval, fresh.Discover
	s.contain(fresh.Containers)
}

// Run lists until ctx ends. Faults of the store are counted, logged once a pass,
// and met again at the next one; the source never gives up.
func (s *Source) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	for {
		began := s.cfg.Now()
		faults, err := s.pass(ctx, began, emit)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is the good end, whatever it broke
		}
		if err != nil {
			return err
		}
		s.count.passes.Add(1)
		wait := s.cfg.Interval - s.cfg.Now().Sub(began)
		if faults != nil {
			s.cfg.Log.Warn("listing went wrong; it goes on at the next pass",
				slog.Int("faults", faults.n), slog.String("error", faults.last.Error()))
			wait = min(wait, retryWait)
		}
		if !s.pause(ctx, max(wait, 0)) {
			return nil
		}
	}
}

// pause waits for the next pass.
func (s *Source) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case fresh := <-s.renewed:
		s.take(fresh)
	case <-t.C:
	}
	return ctx.Err() == nil
}

// faults are the store's errors in one pass.
type faults struct {
	n    int
	last error
}

// emitError marks what emit gave: it ends Run.
type emitError struct{ error }

// pass walks the folders if it is time, then lists every root's hours.
func (s *Source) pass(ctx context.Context, now time.Time, emit func(context.Context, pipeline.Delivery) error) (*faults, error) {
	s.heed(now)
	s.memory.forget(now.Add(-rememberFor))
	var (
		mu    sync.Mutex
		found faults
	)
	// note keeps a fault of the store and gives back what ends the pass.
	note := func(err error) error {
		var ours emitError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &ours):
			return ours.error
		case ctx.Err() != nil:
			return ctx.Err()
		}
		s.count.errors.Add(1)
		mu.Lock()
		found.n, found.last = found.n+1, err
		mu.Unlock()
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(s.cfg.Workers)
	roots := 0
	for _, c := range s.containers {
		if len(c.roots) == 0 || now.Sub(c.discovered) >= s.cfg.Discover {
			err := s.discover(gctx, c, now)
			if errors.Is(err, fs.ErrNotExist) {
				// The cloud makes the container with the first log: no fault, but a name that
				// is spelled wrong looks the same, so it is said once.
				if !c.missing {
					s.cfg.Log.Info("container does not exist yet",
						slog.String("account", c.Account), slog.String("container", c.Container.Container))
				}
				c.missing = true
				continue
			}
			c.missing = false
			if err := note(err); err != nil {
				break
			}
		}
		roots += len(c.roots)
		for _, r := range c.roots {
			g.Go(func() error { return note(s.listRoot(gctx, c, r, now, emit)) })
		}
	}
	err := g.Wait()
	s.count.prefixes.Store(int64(roots))
	if found.n == 0 {
		return nil, err
	}
	return &found, err
}

// stepLimit is how far the wall clock may move against the time that passed before it
// counts as set.
const stepLimit = time.Minute

// heed looks whether the wall clock was set since the last pass. While it is ahead,
// hours seem settled that still grow; once it is set back they are listed again.
func (s *Source) heed(now time.Time) {
	last := s.looked
	if s.looked = now; last.IsZero() {
		return
	}
	switch step := now.Round(0).Sub(last.Round(0)) - now.Sub(last); {
	case step > stepLimit:
		for _, r := range s.roots() {
			if r.before.IsZero() {
				r.before = r.next
			}
		}
	case step < -stepLimit:
		for _, r := range s.roots() {
			if r.before.IsZero() {
				r.before = s.start // it was ahead from the beginning
			}
			if r.before.Before(r.next) {
				r.next = r.before
			}
			r.before = time.Time{}
		}
	}
}

func (s *Source) roots() []*root {
	var all []*root
	for _, c := range s.containers {
		all = slices.AppendSeq(all, maps.Values(c.roots))
	}
	return all
}

// discover walks the folders down to the years. A walk that saw everything also
// forgets what is gone.
func (s *Source) discover(ctx context.Context, c *state, now time.Time) error {
	s.count.walks.Add(1)
	// A root that the last walk did not see has no blob much older than that walk.
	first := s.start
	if t := c.discovered.Add(-rememberFor).Truncate(time.Hour); !c.discovered.IsZero() && t.After(first) {
		first = t
	}
	seen := map[string]bool{}
	folders, err := walk(c.Prefix, func(at string, folder func(string)) error {
		return s.pages(ctx, c, at, "/", nil, folder)
	}, func(prefix string) {
		seen[prefix] = true
		if c.roots[prefix] == nil {
			c.roots[prefix] = &root{prefix: prefix, next: first}
		}
	})
	if err != nil {
		return err
	}
	for prefix := range c.roots {
		if !seen[prefix] {
			delete(c.roots, prefix)
		}
	}
	c.discovered = now
	if folders == MaxFolders {
		return c.tooMany()
	}
	return nil
}

func (c Container) tooMany() error {
	return fmt.Errorf("walk container %q of account %q: more than %d folders; set a prefix", c.Container, c.Account, MaxFolders)
}

// walk goes down the folders below prefix, and gives to found what stands above
// folders of years. It gives the number of folders it went into, at most MaxFolders.
func walk(prefix string, list func(at string, folder func(string)) error, found func(prefix string)) (folders int, err error) {
	open := []string{prefix}
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		err := list(at, func(folder string) {
			switch {
			case isYear(folder):
				found(strings.TrimSuffix(folder, lastSegment(folder)+"/"))
			case folders < MaxFolders && strings.Count(folder, "/") <= MaxDepth:
				folders++
				open = append(open, folder)
			}
		})
		if err != nil {
			return folders, err
		}
	}
	return folders, nil
}

// listRoot lists the hours that are not settled, whole days at once where all
// their hours are.
func (s *Source) listRoot(ctx context.Context, c *state, r *root, now time.Time, emit func(context.Context, pipeline.Delivery) error) error {
	var first error
	for h := r.next; !h.After(now); {
		prefix, span := r.prefix+hourPrefix(h), time.Hour
		if day := 24 * time.Hour; h.Hour() == 0 && now.Sub(h) >= day+settled {
			prefix, span = r.prefix+dayPrefix(h), day
		}
		err := s.listHours(ctx, c, prefix, now, emit)
		var ours emitError
		if errors.As(err, &ours) || ctx.Err() != nil {
			return err
		}
		if first == nil {
			first = err
		}
		last := h.Add(span - time.Hour) // the youngest hour listed
		if h = h.Add(span); first == nil && (now.Sub(last) >= settled || mutant.On(mutant.SweepOnce)) {
			r.next = h
		}
	}
	return first
}

// listHours announces what is new below one prefix.
func (s *Source) listHours(ctx context.Context, c *state, prefix string, now time.Time, emit func(context.Context, pipeline.Delivery) error) error {
	var stopped error
	err := s.pages(ctx, c, prefix, "", func(path string, size int64, etag string) {
		s.count.listed.Add(1)
		id := pipeline.BlobID{Account: c.Account, Container: c.Container.Container, Path: path}
		hour, ok := id.Hour()
		if stopped != nil || !ok || hour.Before(s.start) || !strings.HasSuffix(path, s.cfg.Suffix) {
			return
		}
		length, news := s.memory.compare(id, size, etag)
		if !news {
			return
		}
		stopped = emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: id, ContentLength: length}}})
		if stopped == nil {
			s.count.announced.Add(1)
			if !hour.Before(now.Add(-rememberFor)) {
				s.memory.remember(id, hour, size, etag)
			}
		}
	}, nil)
	if stopped != nil {
		return emitError{stopped}
	}
	return err
}

func (s *Source) pages(ctx context.Context, c *state, prefix, delimiter string,
	blob func(string, int64, string), folder func(string),
) error {
	return pages(ctx, s.lister, c.Container, &s.count.pages, prefix, delimiter, blob, folder)
}

// pages calls the lister until the last page.
func pages(ctx context.Context, lister Lister, c Container, count *atomic.Int64, prefix, delimiter string,
	blob func(string, int64, string), folder func(string),
) error {
	for marker := ""; ; {
		next, err := lister.ListPage(ctx, c.Account, c.Container, prefix, delimiter, marker, blob, folder)
		if err != nil {
			return err
		}
		count.Add(1)
		if next == "" {
			return nil
		}
		if next == marker {
			return fmt.Errorf("list container %q of account %q: the marker of the next page does not move", c.Container, c.Account)
		}
		marker = next
	}
}

// Stats are counts since the source was made, and two gauges.
type Stats struct {
	Passes    int64 // passes over all containers
	Walks     int64 // walks over folders
	Pages     int64 // pages listed
	Listed    int64 // names seen
	Announced int64 // deliveries emitted
	Errors    int64 // listings that went wrong after all tries
	Prefixes  int64 // now: folders that hold flow logs
	// Remembered is the number of blobs whose length is known now.
	Remembered int64
}

type counters struct {
	passes, walks, pages, listed, announced, errors, prefixes atomic.Int64
}

// Stats may be called at any time.
func (s *Source) Stats() Stats {
	c := &s.count
	return Stats{
		Passes: c.passes.Load(), Walks: c.walks.Load(), Pages: c.pages.Load(), Listed: c.listed.Load(),
		Announced: c.announced.Load(), Errors: c.errors.Load(), Prefixes: c.prefixes.Load(),
		Remembered: s.memory.len(),
	}
}
