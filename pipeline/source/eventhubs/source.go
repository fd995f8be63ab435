package eventhubs

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/pipeline"
)

// discoverEvery is how often the source looks for partitions that were added.
const discoverEvery = 10 * time.Minute

// Source reads one event hub. It implements pipeline.Source.
type Source struct {
	cfg     Config
	deps    Deps
	hub     string
	metrics *metrics
	worked  atomic.Bool // a link has held

	mu         sync.Mutex
	partitions map[string]*partition
	saved      map[string]Checkpoint // what the store holds
	saving     sync.Mutex            // one Save at a time
	troubles   map[string]error      // by partition
	answered   bool                  // the hub has told of itself
	since      time.Time             // of the present health
}

var _ pipeline.Source = (*Source)(nil)

// New makes a source. It connects nothing.
func New(cfg Config, deps Deps) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	hub, err := cfg.entity()
	if err != nil {
		return nil, err
	}
	if deps.Parse == nil || deps.Checkpoints == nil {
		panic("BUG: eventhubs: a source without Parse or Checkpoints")
	}
	s := &Source{cfg: cfg, deps: deps.withDefaults(), hub: hub, partitions: map[string]*partition{}, troubles: map[string]error{}}
	s.since = s.deps.Now()
	s.deps.Logger = s.deps.Logger.With(slog.String("hub", hub), slog.String("group", cfg.ConsumerGroup))
	if s.metrics, err = newMetrics(s); err != nil {
		return nil, fmt.Errorf("event hub %q: %w", hub, err)
	}
	return s, nil
}

// Run reads all partitions until ctx ends. Acknowledgements may come after it has
// returned; Flush saves them.
//
// Errors: the service refuses the key, or knows neither the hub nor the consumer
// group, at the first try; the checkpoints cannot be read. Later the same trouble
// is taken for passing.
func (s *Source) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	saved, err := s.deps.Checkpoints.Load(ctx)
	if err != nil {
		return fmt.Errorf("event hub %q: %w", s.hub, err)
	}
	s.mu.Lock()
	s.saved = saved
	s.mu.Unlock()
	c, err := newClient(s.cfg, s.hub)
	if err != nil {
		return fmt.Errorf("event hub %q: %w", s.hub, err)
	}
	defer c.close()
	stop := make(chan struct{})
	var saver sync.WaitGroup
	saver.Go(func() { s.saveRegularly(stop) })
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.discover(gctx, c, group, emit) })
	err = group.Wait()
	close(stop)
	saver.Wait()
	if flushErr := s.Flush(context.WithoutCancel(ctx)); flushErr != nil {
		s.deps.Logger.Warn("checkpoints not saved", slog.Any("cause", flushErr))
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close takes the source out of the metrics. Run must have ended.
func (s *Source) Close() {
	_ = s.metrics.gauge.Unregister() // of a meter that may have ended
}

// discover starts a goroutine for each partition, and for those that are added
// later.
func (s *Source) discover(ctx context.Context, c *client, group *errgroup.Group, emit func(context.Context, pipeline.Delivery) error) error {
	retry := backoff{min: s.cfg.RetryMin, max: s.cfg.RetryMax}
	for known := false; ; {
		props, err := c.hub(ctx)
		wait := discoverEvery
		switch {
		case err == nil:
			known = true
			retry.reset()
			s.trouble(hubTrouble, nil)
			for _, id := range props.PartitionIDs {
				if p := s.add(id); p != nil {
					group.Go(func() error { return p.run(ctx, c, emit) })
					group.Go(func() error {
						p.watchLag(ctx, c)
						return nil
					})
				}
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case !known && classify(err) == troubleRefused:
			return fmt.Errorf("event hub %q: %w; check the names of namespace and hub, and what its credential may do", s.hub, err)
		default:
			wait = retry.next()
			s.trouble(hubTrouble, err)
			s.deps.Logger.Warn("event hub does not answer", slog.Any("cause", err), slog.Duration("wait", wait))
		}
		if err := pipeline.Wait(ctx, wait); err != nil {
			return err
		}
	}
}

// add gives a partition that is not yet read, nil for one that is.
func (s *Source) add(id string) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partitions[id] != nil {
		return nil
	}
	p := newPartition(s, id)
	if c, ok := s.saved[id]; ok {
		p.last, p.created = &c.Sequence, c.Created
	}
	s.partitions[id] = p
	return p
}

func (s *Source) saveRegularly(stop <-chan struct{}) {
	tick := time.NewTicker(s.cfg.CheckpointInterval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		err := s.Flush(context.Background())
		if err != nil && !failing {
			s.deps.Logger.Warn("checkpoints not saved", slog.Any("cause", err))
		}
		failing = err != nil
	}
}

// Flush saves the checkpoints of all acknowledgements so far. Call it once more
// when the pipeline has ended: the last acknowledgements come after Run.
func (s *Source) Flush(ctx context.Context) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	next := maps.Clone(s.saved)
	if next == nil {
		next = map[string]Checkpoint{}
	}
	for id, p := range s.partitions {
		if c, ok := p.mark(); ok {
			next[id] = c
		}
	}
	same := maps.EqualFunc(next, s.saved, func(a, b Checkpoint) bool { return a.Sequence == b.Sequence && a.Created.Equal(b.Created) })
	s.mu.Unlock()
	if same {
		return nil
	}
	if err := s.deps.Checkpoints.Save(ctx, next); err != nil {
		return fmt.Errorf("event hub %q: %w", s.hub, err)
	}
	s.mu.Lock()
	s.saved = next
	s.mu.Unlock()
	return nil
}
