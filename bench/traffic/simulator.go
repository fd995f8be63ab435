package traffic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// appendTimeout bounds one append; it goes on when the run is told to stop.
const appendTimeout = 2 * time.Minute

// Deps are what a simulator works with.
type Deps struct {
	// Blobs is where the logs go. Required.
	Blobs BlobWriter
	// Publish takes one event body, a JSON array with one event. Required. An
	// empty key means any partition. It may block, is called by several
	// goroutines at once, and is tried again after an error. The body must not
	// be changed.
	Publish func(ctx context.Context, key string, body []byte) error
	// Clock defaults to the system's.
	Clock Clock
	// Logger defaults to none.
	Logger *slog.Logger
}

// Simulator writes the logs of an estate over time.
type Simulator struct {
	cfg     Config
	deps    Deps
	estate  *Estate
	order   []*nic // By phase: the order in which a minute's records are due.
	book    *ledger
	courier *courier

	started                                           atomic.Bool
	tuples, malformed, records, appends, blobs, bytes atomic.Uint64
	sequence                                          atomic.Uint64
	position                                          atomic.Int64
	live                                              atomic.Bool
}

// New builds the estate. It starts nothing.
func New(cfg Config, deps Deps) (*Simulator, error) {
	if deps.Blobs == nil || deps.Publish == nil {
		return nil, errors.New("traffic: a blob writer and a publish function are required")
	}
	if deps.Clock == nil {
		deps.Clock = systemClock{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	estate, err := NewEstate(cfg)
	if err != nil {
		return nil, err
	}
	s := &Simulator{cfg: cfg, deps: deps, estate: estate, book: newLedger(cfg)}
	s.order = slices.Clone(estate.nics)
	slices.SortStableFunc(s.order, func(a, b *nic) int { return int(a.phase - b.phase) })
	s.courier = &courier{
		cfg: &s.cfg, publish: deps.Publish, clock: deps.Clock, log: deps.Logger,
		wake: make(chan struct{}, 1),
	}
	return s, nil
}

// Stats is where a simulation stands.
type Stats struct {
	Tuples, Malformed, Records, Appends, Blobs uint64 // Committed.
	Bytes                                      uint64 // Committed, headers and footers included.
	Events                                     EventTruth
	Position                                   time.Time // Simulated time; zero before the first append.
	Live                                       bool      // The past was replayed, the clock sets the pace.
}

// Snapshot is cheap and may be called at any time.
func (s *Simulator) Snapshot() Stats {
	st := Stats{
		Tuples:    s.tuples.Load(),
		Malformed: s.malformed.Load(),
		Records:   s.records.Load(),
		Appends:   s.appends.Load(),
		Blobs:     s.blobs.Load(),
		Bytes:     s.bytes.Load(),
		Events:    s.courier.events(),
		Live:      s.live.Load(),
	}
	if p := s.position.Load(); p != 0 {
		st.Position = time.UnixMilli(p).UTC()
	}
	return st
}

// Truth copies what is known about everything committed so far. It may be called
// at any time; while Run runs, events may lag behind appends.
func (s *Simulator) Truth() Truth { return s.book.snapshot(s.courier.events()) }

// task is one append: some consecutive windows of one interface.
type task struct {
	nic     *nic
	window  int64
	windows int64
}

// Run replays the past from Start, then follows the clock, until ctx is cancelled
// or Until is reached. It then finishes the appends in flight, publishes what was
// held back, leaves TruthFile and returns when all its goroutines are gone.
//
// Blobs are written from their beginning: over those of an earlier run with the
// same seed and account, which a reader sees as rewritten.
//
// Errors: nil after a cancelled ctx; otherwise what the BlobWriter returned. It
// may be called once.
func (s *Simulator) Run(ctx context.Context) (err error) {
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("traffic: a simulator runs once")
	}
	if s.cfg.TruthFile != "" {
		defer func() { err = errors.Join(err, s.Truth().WriteFile(s.cfg.TruthFile)) }()
	}
	s.sequence.Store(uint64(s.deps.Clock.Now().UnixMilli()) << 20)
	if err := s.ensureContainers(ctx); err != nil {
		return err
	}
	held, stopCourier := context.WithCancel(context.WithoutCancel(ctx))
	couriers := errgroup.Group{}
	couriers.Go(func() error { s.courier.run(held); return nil })

	writers, work := errgroup.WithContext(ctx)
	queues := make([]chan task, min(s.cfg.Writers, len(s.estate.nics)))
	for i := range queues {
		queues[i] = make(chan task, 1)
		writers.Go(func() error { return s.newWriter().run(work, queues[i]) })
	}
	s.dispatch(work, queues)
	for _, q := range queues {
		close(q)
	}
	err = writers.Wait()
	stopCourier()
	_ = couriers.Wait() // It has no errors.
	return err
}

func (s *Simulator) ensureContainers(ctx context.Context) error {
	done := map[string]bool{}
	for _, n := range s.estate.nics {
		name := n.format.container()
		if done[name] {
			continue
		}
		done[name] = true
		if err := s.deps.Blobs.EnsureContainer(ctx, name); err != nil {
			return fmt.Errorf("start simulation: %w", err)
		}
	}
	return nil
}

// dispatch hands out appends in the order in which they are due, each interface
// always to the same writer, so that a blob has one writer.
func (s *Simulator) dispatch(ctx context.Context, queues []chan task) {
	start := s.cfg.Start
	if start.IsZero() {
		start = s.deps.Clock.Now().Add(-time.Hour)
	}
	next := make([]int64, len(s.estate.nics))
	first := s.order[0].firstWindow(start.UnixMilli())
	for _, n := range s.order {
		next[n.index] = n.firstWindow(start.UnixMilli())
		first = min(first, next[n.index])
	}
	p := pacer{s: s, began: s.deps.Clock.Now()}
	for w := first; ; w++ {
		if !s.within(w * minuteMS) { // Every interface's window ends later still.
			return
		}
		for _, n := range s.order {
			if next[n.index] > w || !s.within(n.windowStart(w)) {
				continue
			}
			if !p.wait(ctx, n.due(w)) {
				return
			}
			t := task{nic: n, window: w, windows: s.batch(n, w)}
			next[n.index] = w + t.windows
			select {
			case <-ctx.Done():
				return
			case queues[n.index%len(queues)] <- t:
			}
			s.position.Store(n.due(w + t.windows - 1))
		}
	}
}

// within tells whether a window that starts then ends by Until.
func (s *Simulator) within(start int64) bool {
	return s.cfg.Until.IsZero() || start+minuteMS <= s.cfg.Until.UnixMilli()
}

// batch is how many windows go into one append: one, unless the past is replayed
// and the configuration allows more.
func (s *Simulator) batch(n *nic, w int64) int64 {
	now := s.deps.Clock.Now().UnixMilli()
	k := int64(1)
	for k < int64(s.cfg.MinutesPerAppend) && n.due(w+k) <= now && n.hour(w+k) == n.hour(w) && s.within(n.windowStart(w+k)) {
		k++
	}
	return k
}

// pacer decides when an append may start.
type pacer struct {
	s     *Simulator
	began time.Time
}

// wait returns true when the append that is due then may start: never before the
// clock reaches it, and in the replay of the past not faster than wanted.
func (p *pacer) wait(ctx context.Context, due int64) bool {
	s := p.s
	for ctx.Err() == nil {
		now := s.deps.Clock.Now()
		ahead := time.Duration(due-now.UnixMilli()) * time.Millisecond
		if ahead > 0 {
			if s.live.CompareAndSwap(false, true) {
				s.deps.Logger.Info("simulation is live", slog.Uint64("tuples", s.tuples.Load()))
			}
			_ = sleep(ctx, s.deps.Clock, ahead) // The loop looks at ctx.
			continue
		}
		if s.live.Load() || s.cfg.TuplesPerSecond == 0 {
			return true
		}
		early := time.Duration(float64(s.tuples.Load())/s.cfg.TuplesPerSecond*1e9) - now.Sub(p.began)
		if early <= 0 {
			return true
		}
		_ = sleep(ctx, s.deps.Clock, min(early, 100*time.Millisecond))
	}
	return false
}
