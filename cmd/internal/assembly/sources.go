package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// hubSet is one source made of many event hubs. A hub that says no for good, since
// it is not there or the credential may not listen, does not end the others: it is
// shown and tried again, slowly, with its secrets read anew.
//
// Run owns the goroutine of every hub; apply may be called meanwhile.
type hubSet struct {
	log    *slog.Logger
	refuse metric.Int64Counter
	gauge  metric.Registration
	// retryMin and retryMax bound the wait before a refused hub is tried again.
	retryMin, retryMax time.Duration

	mu      sync.Mutex
	members map[string]*hubMember // by name
	running *hubRun               // nil before Run and after it
}

// hubRun is what the goroutines of one Run share.
type hubRun struct {
	ctx   context.Context
	fail  context.CancelCauseFunc
	emit  func(context.Context, pipeline.Delivery) error
	group sync.WaitGroup
}

// hubMember is one hub of the set.
type hubMember struct {
	name string
	hub  Hub
	open func() (*eventhubs.Source, error)
	stop context.CancelFunc // nil before it runs
	done chan struct{}

	mu      sync.Mutex
	source  *eventhubs.Source // the present one; nil before the first try
	refusal error             // why it is not read now
	since   time.Time         // of the refusal
	retryAt time.Time
}

var _ pipeline.Source = (*hubSet)(nil)

func newHubSet(deps Deps) (*hubSet, error) {
	s := &hubSet{log: deps.Logger, members: map[string]*hubMember{}, retryMin: 30 * time.Second, retryMax: 10 * time.Minute}
	var err error
	if s.refuse, err = deps.Meter.Int64Counter("millrace.source.refusals", metric.WithUnit("{refusal}"),
		metric.WithDescription("Times that a source was refused for good, such as an event hub that is not there, by source.")); err != nil {
		return nil, err
	}
	up, err := deps.Meter.Int64ObservableGauge("millrace.source.up", metric.WithUnit("1"),
		metric.WithDescription("Whether a source is read: 1, or 0 while it is refused or in trouble, by source."))
	if err != nil {
		return nil, err
	}
	s.gauge, err = deps.Meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, h := range s.status() {
			value := int64(0)
			if h.State == StateReading {
				value = 1
			}
			o.ObserveInt64(up, value, metric.WithAttributes(attribute.String("source", h.Name)))
		}
		return nil
	}, up)
	return s, err
}

// close takes the hubs out of the metrics. Run must have ended.
func (s *hubSet) close() {
	_ = s.gauge.Unregister() // of a meter that may have ended
	for _, m := range s.list() {
		m.replace(nil)
	}
}

// add enters a hub; a set that runs starts it.
func (s *hubSet) add(name string, hub Hub, open func() (*eventhubs.Source, error)) {
	m := &hubMember{name: name, hub: hub, open: open, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[name] = m
	if s.running != nil {
		s.start(m)
	}
}

// Run reads every hub until ctx ends. It does not end by itself, whatever becomes
// of the hubs.
func (s *hubSet) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	run := &hubRun{ctx: ctx, fail: fail, emit: emit}
	s.mu.Lock()
	s.running = run
	for _, m := range s.members {
		s.start(m)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	run.group.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// start runs a hub; the caller holds the lock, and the set runs.
func (s *hubSet) start(m *hubMember) {
	run := s.running
	ctx, stop := context.WithCancel(run.ctx)
	m.stop = stop
	run.group.Go(func() {
		defer close(m.done)
		defer stop()
		s.supervise(ctx, run, m)
	})
}

// supervise runs a hub again and again until ctx ends.
func (s *hubSet) supervise(ctx context.Context, run *hubRun, m *hubMember) {
	// An error of the pipeline is not the hub's: it ends everything.
	emit := func(ctx context.Context, d pipeline.Delivery) error {
		err := run.emit(ctx, d)
		if err != nil && ctx.Err() == nil {
			run.fail(err)
		}
		return err
	}
	for wait := s.retryMin; ; wait = min(2*wait, s.retryMax) {
		began := time.Now()
		err := m.run(ctx, emit)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		if time.Since(began) > s.retryMax {
			wait = s.retryMin // it was good for long
		}
		m.refused(err, time.Now().Add(wait))
		s.refuse.Add(ctx, 1, metric.WithAttributes(attribute.String("source", m.name)))
		s.log.Error("event hub is refused; the others go on", slog.String("source", m.name), slog.Any("cause", err), slog.Duration("retry_in", wait))
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// run reads the hub with a new source.
func (m *hubMember) run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	source, err := m.open()
	if err != nil {
		return err
	}
	m.replace(source)
	return source.Run(ctx, emit)
}

// replace makes source the present one; the one before has ended.
func (m *hubMember) replace(source *eventhubs.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.source != nil {
		m.source.Close()
	}
	m.source, m.refusal = source, nil
}

func (m *hubMember) refused(err error, retryAt time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refusal, m.since, m.retryAt = err, time.Now(), retryAt
}

// flush saves what was acknowledged.
func (m *hubMember) flush(ctx context.Context) error {
	m.mu.Lock()
	source := m.source
	m.mu.Unlock()
	if source == nil {
		return nil
	}
	return source.Flush(ctx)
}

// Flush saves how far every hub is acknowledged: a soft stop acknowledges after the
// sources have ended.
func (s *hubSet) Flush(ctx context.Context) error {
	var faults []error
	for _, m := range s.list() {
		faults = append(faults, m.flush(ctx))
	}
	return errors.Join(faults...)
}

// list gives the members by name.
func (s *hubSet) list() []*hubMember {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*hubMember
	for _, name := range slices.Sorted(maps.Keys(s.members)) {
		all = append(all, s.members[name])
	}
	return all
}

// States of a source.
const (
	StateConnecting = "connecting" // nobody has answered yet
	StateReading    = "reading"
	StateTrouble    = "trouble" // part or all of it is not read just now
	StateRefused    = "refused" // it is tried again at retry_at
)

// SourceStatus is how a source stands, for people.
type SourceStatus struct {
	Name    string     `json:"name"` // namespace/hub/consumer group
	State   string     `json:"state"`
	Error   string     `json:"error,omitempty"`
	Since   time.Time  `json:"since"`
	RetryAt *time.Time `json:"retry_at,omitempty"`
}

// Sources tells how each event hub stands.
func (p *Pipeline) Sources() []SourceStatus {
	if p.hubs == nil {
		return nil
	}
	return p.hubs.status()
}

func (s *hubSet) status() []SourceStatus {
	var all []SourceStatus
	for _, m := range s.list() {
		all = append(all, m.status())
	}
	return all
}

func (m *hubMember) status() SourceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := SourceStatus{Name: m.name, State: StateConnecting}
	switch {
	case m.refusal != nil:
		retry := m.retryAt.UTC()
		st.State, st.Error, st.Since, st.RetryAt = StateRefused, m.refusal.Error(), m.since, &retry
	case m.source != nil:
		h := m.source.Health()
		st.Since = h.Since
		switch {
		case h.Err != nil:
			st.State, st.Error = StateTrouble, h.Err.Error()
		case h.Connected:
			st.State = StateReading
		}
	}
	st.Since = st.Since.UTC()
	return st
}

// hubNamed gives the name under which two entries would read the same.
func hubNamed(names map[string]int, name string, i int) error {
	if first, twice := names[name]; twice {
		return fmt.Errorf("eventhubs[%d]: the same namespace, hub and consumer group as eventhubs[%d]: each would get everything", i, first)
	}
	names[name] = i
	return nil
}
