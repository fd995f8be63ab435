package listing

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/pipeline"
)

// Period is a walk over the blobs of some hours of the past, hour by hour: all
// network interfaces of an hour come before the next one, so that the windows of
// whoever reads them close in order.
//
// Memory: the folders of days, and the names of one hour.
type Period struct {
	Containers []Container
	// From and To bound the hours that names say: From <= hour < To. Zero: no bound.
	From, To time.Time
	// Hourless says that names without an hour are given, too, before all others.
	Hourless bool
	// Suffix is what names of flow logs end with. Default /PT1H.json.
	Suffix string
	// Workers is how many prefixes are listed at a time. Default 4.
	Workers int
	// Log hears of containers that do not exist. Default: none.
	Log *slog.Logger

	pages, strange atomic.Int64
}

// Blob is one that a walk found.
type Blob struct {
	ID   pipeline.BlobID
	Size int64 // bytes
}

// PeriodStats are counts of a walk.
type PeriodStats struct {
	Pages   int64 // answers of the store
	Strange int64 // names of flow logs below folders of hours that name no hour themselves
}

// Stats gives the counts of all walks so far.
func (p *Period) Stats() PeriodStats {
	return PeriodStats{Pages: p.pages.Load(), Strange: p.strange.Load()}
}

// place is a folder of some container.
type place struct {
	Container
	folder string
}

// Walk calls visit with the blobs of each hour, sorted by name; the zero hour is
// that of names without one. A name that sorts before the place that the walk has
// reached is found by the next walk.
//
// Errors: those of the lister, which has tried again itself; those of visit and ctx
// as they are.
func (p *Period) Walk(ctx context.Context, lister Lister, visit func(ctx context.Context, hour time.Time, blobs []Blob) error) error {
	w := &walker{Period: p, lister: lister, visit: visit, days: map[time.Time][]place{}}
	if w.Suffix == "" {
		w.Suffix = DefaultConfig(p.From).Suffix
	}
	if w.Workers == 0 {
		w.Workers = DefaultConfig(p.From).Workers
	}
	for _, c := range p.Containers {
		err := w.container(ctx, c)
		if errors.Is(err, fs.ErrNotExist) {
			if p.Log != nil {
				p.Log.Warn("container does not exist", slog.String("account", c.Account), slog.String("container", c.Container))
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := w.give(ctx, time.Time{}, w.hourless); err != nil {
		return err
	}
	w.hourless = nil
	for _, day := range slices.SortedFunc(maps.Keys(w.days), time.Time.Compare) {
		if err := w.day(ctx, day, w.days[day]); err != nil {
			return err
		}
		delete(w.days, day)
	}
	return nil
}

type walker struct {
	*Period
	lister   Lister
	visit    func(ctx context.Context, hour time.Time, blobs []Blob) error
	days     map[time.Time][]place
	hourless []Blob
}

func (w *walker) list(ctx context.Context, at place, delimiter string, blob func(string, int64, string), folder func(string)) error {
	return pages(ctx, w.lister, at.Container, &w.pages, at.folder, delimiter, blob, folder)
}

// container finds the days of a container.
func (w *walker) container(ctx context.Context, c Container) error {
	var roots []string
	folders, err := walk(c.Prefix, func(at string, folder func(string)) error {
		return w.list(ctx, place{c, at}, "/", func(path string, size int64, _ string) {
			if w.Hourless && strings.HasSuffix("/"+path, w.Suffix) {
				w.hourless = append(w.hourless, Blob{pipeline.BlobID{Account: c.Account, Container: c.Container, Path: path}, size})
			}
		}, folder)
	}, func(root string) {
		if len(roots) == 0 || roots[len(roots)-1] != root {
			roots = append(roots, root)
		}
	})
	if err != nil {
		return err
	}
	if folders == MaxFolders {
		return c.tooMany()
	}
	var mu sync.Mutex
	return w.each(ctx, roots, func(ctx context.Context, root string) error {
		days, err := w.daysOf(ctx, c, root)
		mu.Lock()
		defer mu.Unlock()
		for day, at := range days {
			w.days[day] = append(w.days[day], at...)
		}
		return err
	})
}

// each runs f for all, a few at a time.
func (w *walker) each(ctx context.Context, all []string, f func(ctx context.Context, s string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.Workers)
	for _, s := range all {
		group.Go(func() error { return f(ctx, s) })
	}
	return group.Wait()
}

// daysOf goes from a root down to the days of the period.
func (w *walker) daysOf(ctx context.Context, c Container, root string) (map[time.Time][]place, error) {
	found := map[time.Time][]place{}
	// down lists the folders key=N below at, and goes on with each.
	down := func(at, key string, next func(folder string, n int) error) error {
		folders, err := w.numbered(ctx, place{c, at}, key)
		for _, n := range slices.Sorted(maps.Keys(folders)) {
			for _, folder := range folders[n] {
				if err == nil {
					err = next(folder, n)
				}
			}
		}
		return err
	}
	err := down(root, "y=", func(folder string, year int) error {
		if !w.overlaps(date(year, 1, 1), date(year+1, 1, 1)) {
			return nil
		}
		return down(folder, "m=", func(folder string, month int) error {
			if !w.overlaps(date(year, month, 1), date(year, month+1, 1)) {
				return nil
			}
			return down(folder, "d=", func(folder string, d int) error {
				if day := date(year, month, d); w.overlaps(day, day.AddDate(0, 0, 1)) {
					found[day] = append(found[day], place{c, folder})
				}
				return nil
			})
		})
	})
	return found, err
}

func date(year, month, day int) time.Time {
	return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
}

// overlaps says whether the span has a part in the period.
func (w *walker) overlaps(start, end time.Time) bool {
	return (w.To.IsZero() || start.Before(w.To)) && (w.From.IsZero() || end.After(w.From))
}

// numbered gives the folders key=N below a place by N. More than one may have the
// same number: h=7 and h=07.
func (w *walker) numbered(ctx context.Context, at place, key string) (map[int][]string, error) {
	found := map[int][]string{}
	err := w.list(ctx, at, "/", nil, func(folder string) {
		text, ok := strings.CutPrefix(lastSegment(folder), key)
		if n, err := strconv.Atoi(text); ok && err == nil && n >= 0 {
			found[n] = append(found[n], folder)
		}
	})
	return found, err
}

// day visits the hours of one day.
func (w *walker) day(ctx context.Context, day time.Time, places []place) error {
	hours := map[int][]place{}
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(w.Workers)
	for _, at := range places {
		group.Go(func() error {
			folders, err := w.numbered(gctx, at, "h=")
			mu.Lock()
			defer mu.Unlock()
			for h, names := range folders {
				for _, folder := range names {
					hours[h] = append(hours[h], place{at.Container, folder})
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, h := range slices.Sorted(maps.Keys(hours)) {
		hour := day.Add(time.Duration(h) * time.Hour)
		if !w.overlaps(hour, hour.Add(time.Hour)) {
			continue
		}
		if err := w.hour(ctx, hour, hours[h]); err != nil {
			return err
		}
	}
	return nil
}

// hour lists one hour of all places and gives it away.
func (w *walker) hour(ctx context.Context, hour time.Time, places []place) error {
	var found []Blob
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(w.Workers)
	for _, at := range places {
		group.Go(func() error {
			return w.list(gctx, at, "", func(path string, size int64, _ string) {
				if !strings.HasSuffix(path, w.Suffix) {
					return
				}
				id := pipeline.BlobID{Account: at.Account, Container: at.Container.Container, Path: path}
				if named, ok := id.Hour(); !ok || !named.Equal(hour) {
					w.strange.Add(1)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				found = append(found, Blob{id, size})
			}, nil)
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("list the hour of %s: %w", hour.Format(time.RFC3339), err)
	}
	return w.give(ctx, hour, found)
}

func (w *walker) give(ctx context.Context, hour time.Time, found []Blob) error {
	if len(found) == 0 {
		return nil
	}
	slices.SortFunc(found, func(a, b Blob) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	found = slices.CompactFunc(found, func(a, b Blob) bool { return a.ID == b.ID })
	return w.visit(ctx, hour, found)
}
