package assembly

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/operators/filter"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
)

// filesEvery is how often the files of filters and enrichment are looked at. One
// that changed is read once it has not changed for this long.
var filesEvery = 5 * time.Second

// transforms are what rows pass before operators and sinks see them, and the files
// that they are made of.
type transforms struct {
	filters, enrich *reloaded
	every           time.Duration
}

// openTransforms reads the files of filters and enrichment.
//
// Errors: every fault of both at once.
func openTransforms(cfg config.Config, deps Deps) (*transforms, error) {
	reloads, err := deps.Meter.Int64Counter("millrace.files.reloads", metric.WithUnit("{reload}"), metric.WithDescription("Files of filters or enrichment that changed and were read again, by result: good, or refused and the old ones stay."))
	if err != nil {
		return nil, err
	}
	t := &transforms{every: filesEvery}
	t.filters = &reloaded{
		name: filter.Name, files: filter.Files(cfg.Filters), log: deps.Logger, reloads: reloads,
		open: func() (pipeline.Transform, error) {
			f, err := cfg.OpenFilters()
			if f == nil {
				return nil, err
			}
			return f, err
		},
	}
	t.enrich = &reloaded{
		name: enrich.Name, log: deps.Logger, reloads: reloads,
		open: func() (pipeline.Transform, error) {
			e, err := cfg.OpenEnrich()
			if e == nil {
				return nil, err
			}
			return e, err
		},
	}
	if cfg.Enrich != nil {
		t.enrich.files = enrich.Files(*cfg.Enrich)
	}
	return t, errors.Join(t.filters.start(), t.enrich.start())
}

// list gives them to an engine. What is off stands in it too: the ledger may hold
// batches from when it was on.
func (t *transforms) list() []engine.Transforms {
	return []engine.Transforms{
		{
			Name: filter.Name, Current: t.filters.get,
			Restore: func(recipe []byte, _ func(string) ([]byte, error)) (pipeline.Transform, error) {
				return filter.Restore(recipe)
			},
		},
		{
			Name: enrich.Name, Current: t.enrich.get,
			Restore: func(recipe []byte, data func(string) ([]byte, error)) (pipeline.Transform, error) {
				return enrich.Restore(recipe, data)
			},
		},
	}
}

// watch looks at the files until the function that it gives is called, which waits
// for its goroutine.
func (t *transforms) watch(ctx context.Context) (stop func()) {
	if len(t.filters.files)+len(t.enrich.files) == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(t.every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.filters.look(ctx)
				t.enrich.look(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// reloaded is a transform made of files that may change while the pipeline runs.
// Shards get it; one goroutine looks at the files.
type reloaded struct {
	name    string
	files   []string
	open    func() (pipeline.Transform, error) // nil when it is off
	log     *slog.Logger
	reloads metric.Int64Counter

	current atomic.Pointer[pipeline.Transform]
	read    map[string]stamp // the files as they were read, or refused
	seen    map[string]stamp // ... and as they were at the last look
}

// stamp tells two states of a file apart without reading it.
type stamp struct {
	size     int64
	modified time.Time
	missing  bool
}

func (r *reloaded) get() pipeline.Transform {
	if t := r.current.Load(); t != nil {
		return *t
	}
	return nil
}

func (r *reloaded) start() error {
	r.read = r.stamps()
	r.seen = r.read
	t, err := r.open()
	if err == nil && t != nil {
		r.current.Store(&t)
	}
	return err
}

func (r *reloaded) stamps() map[string]stamp {
	out := map[string]stamp{}
	for _, path := range r.files {
		info, err := os.Stat(path)
		if err != nil {
			out[path] = stamp{missing: true}
			continue
		}
		out[path] = stamp{size: info.Size(), modified: info.ModTime()}
	}
	return out
}

// look reads files that have changed since they were read, and not since the last
// look: somebody may still be writing them. What cannot be used is refused, and told
// once; the old content stays.
func (r *reloaded) look(ctx context.Context) {
	now := r.stamps()
	settled := maps.Equal(now, r.seen)
	r.seen = now
	if !settled || maps.Equal(now, r.read) {
		return
	}
	t, err := r.open()
	if !maps.Equal(now, r.stamps()) {
		return // changed while it was read
	}
	r.read = now
	if err != nil {
		r.count(ctx, "refused")
		r.log.Warn("files changed and cannot be used, the old ones stay", slog.String("transform", r.name), slog.Any("cause", err))
		return
	}
	version := pipeline.Hash(t.Recipe())
	if before := r.get(); before != nil && pipeline.Hash(before.Recipe()) == version {
		return // written again with the same content
	}
	r.current.Store(&t)
	r.count(ctx, "good")
	r.log.Info("files changed and are used from the next commit on", slog.String("transform", r.name), slog.String("version", version))
}

func (r *reloaded) count(ctx context.Context, result string) {
	r.reloads.Add(ctx, 1, metric.WithAttributes(attribute.String("transform", r.name), attribute.String("result", result)))
}
