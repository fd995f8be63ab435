package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/telemetry"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/azureblob"
)

// Role is what a process does with its pipeline just now.
type Role string

// Roles.
const (
	Starting Role = "starting" // nothing was opened yet
	Standby  Role = "standby"  // another instance owns the ledger
	Owning   Role = "owner"    // the pipeline is being opened, or runs
	Stopping Role = "stopping" // the ledger is lost, and the pipeline is being ended
)

// ErrStopped: a start was stopped before the pipeline ran.
var ErrStopped = errors.New("stopped while starting")

// State is how a Server stands, for people.
type State struct {
	Role Role `json:"role"`
	// Instance is this process, Owner the instance that owns the ledger as this one
	// saw it last. Both are empty for a ledger in a folder.
	Instance string `json:"instance,omitempty"`
	Owner    string `json:"owner,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"` // of the owner
}

// Server runs a pipeline for as long as its process lives. With the ledger in a
// folder that is one run. With a shared ledger the process stands by until it owns
// the ledger, runs the pipeline, and stands by again when another instance took
// over:
//
//	starting -> standby -> owner -> standby -> owner ... -> Run returns
//
// Run starts every goroutine and waits for it; the other methods may be called from
// anywhere at any time.
type Server struct {
	cfg   config.Config
	deps  Deps
	store *azureblob.Store // nil for a folder
	owner ledger.OwnerConfig
	// Started, when set before Run, hears of every pipeline that begins to run.
	Started func(*Pipeline)
	// StandingBy, when set before Run, hears of it.
	StandingBy func()

	mu       sync.Mutex
	state    State
	running  *Pipeline
	draining bool
	eoi      bool
	idle     func() // ends what is before a run: the wait of a standby, a start
}

// NewServer makes a server. It does no I/O.
func NewServer(cfg config.Config, deps Deps) (*Server, error) {
	s := &Server{cfg: cfg, deps: deps, state: State{Role: Starting}}
	if cfg.Ledger.Azure == nil {
		return s, nil
	}
	var err error
	if s.store, err = openContainer(cfg); err != nil {
		return nil, err
	}
	s.owner = ledger.OwnerConfig{Instance: instanceName(), Expiry: cfg.Ledger.Expiry}
	s.state.Instance = s.owner.Instance
	return s, s.instrument()
}

// openContainer makes the store of a shared ledger; it connects nothing.
func openContainer(cfg config.Config) (*azureblob.Store, error) {
	if err := cfg.CheckSecrets(); err != nil {
		return nil, err
	}
	return LedgerContainer(cfg)
}

// LedgerContainer is openContainer where other sections may be at fault.
func LedgerContainer(cfg config.Config) (*azureblob.Store, error) {
	account, err := ledgerAccount(cfg)
	if err != nil {
		return nil, err
	}
	c := azureblob.DefaultConfig(account, cfg.Ledger.Azure.Container)
	c.Prefix = cfg.Ledger.Azure.Prefix
	// A sign of life must not hang for as long as the owner is left alone.
	c.AttemptTimeout = min(c.AttemptTimeout, cfg.Ledger.Expiry/4)
	return azureblob.New(c)
}

func (s *Server) instrument() error {
	gauge := func(name, text string, read func(State) int64) error {
		_, err := s.deps.Meter.Int64ObservableGauge(name, metric.WithUnit("1"), metric.WithDescription(text),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(read(s.State()))
				return nil
			}))
		return err
	}
	return errors.Join(
		gauge("millrace.ledger.owner", "1 when this instance owns the shared ledger, 0 when it stands by.", func(s State) int64 {
			if s.Role == Owning {
				return 1
			}
			return 0
		}),
		gauge("millrace.ledger.epoch", "Epoch of the shared ledger's owner as this instance saw it last; it rises when the ledger changes hands.",
			func(s State) int64 { return int64(s.Epoch) }),
	)
}

// Run works until the pipeline has drained, ctx ends (a hard stop), or something
// happens that only people can mend.
//
// Errors: as Open and Pipeline.Run; ErrStopped.
func (s *Server) Run(ctx context.Context) error {
	if s.store == nil {
		s.become(State{Role: Owning})
		return s.once(ctx, s.deps, nil)
	}
	defer s.store.Close()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for {
		lease, err := s.standBy(ctx)
		if err != nil {
			return err
		}
		if lease == nil {
			return nil
		}
		err = s.own(ctx, lease)
		if !errors.Is(err, pipeline.ErrFenced) || ctx.Err() != nil {
			return err
		}
		s.deps.Logger.Warn("the ledger is another instance's: standing by", slog.Any("cause", err))
	}
}

// prepare waits for the container.
func (s *Server) prepare(ctx context.Context) error {
	waiting, stop := s.interruptible(ctx)
	defer stop(nil)
	err := patiently(waiting, s.deps.Logger, "ledger", func() error { return s.store.Prepare(waiting) })
	if errors.Is(context.Cause(waiting), ErrStopped) {
		return ErrStopped
	}
	return err
}

// interruptible gives a context that a soft stop ends, with ErrStopped as its cause.
func (s *Server) interruptible(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, stop := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = func() { stop(ErrStopped) }
	if s.draining {
		s.idle()
	}
	return ctx, stop
}

// standBy waits for the ledger; nil when the process is to end.
func (s *Server) standBy(ctx context.Context) (*ledger.Lease, error) {
	waiting, stop := s.interruptible(ctx)
	defer stop(nil)
	said := false
	lease, err := ledger.Own(waiting, s.store, s.owner, func(o ledger.Owner) {
		s.become(State{Role: Standby, Instance: s.owner.Instance, Owner: o.Instance, Epoch: o.Epoch})
		if !said {
			said = true
			s.deps.Logger.Info("standing by", slog.String("owner", o.Instance), slog.Uint64("epoch", o.Epoch), slog.Duration("expiry", s.owner.Expiry))
			if s.StandingBy != nil {
				s.StandingBy()
			}
		}
	})
	switch {
	case waiting.Err() == nil:
		return lease, err
	case lease != nil:
		s.release(ctx, lease) // taken and asked to stop at one time
	}
	return nil, nil
}

// fencedStarts bounds runs that are fenced before they did anything, by somebody
// who does not take the ledger over.
const fencedStarts = 3

// own runs the pipeline as the owner, again after each time that it met the traces
// of an older one: a manifest that came late is adopted by recovering again.
func (s *Server) own(ctx context.Context, lease *ledger.Lease) error {
	for barren := 0; ; {
		s.become(State{Role: Owning, Instance: s.owner.Instance, Owner: s.owner.Instance, Epoch: lease.Epoch()})
		s.deps.Logger.Info("owner of the ledger", slog.String("instance", s.owner.Instance), slog.Uint64("epoch", lease.Epoch()))
		meter, end := telemetry.Generation(s.deps.Meter)
		deps := s.deps
		deps.Meter = meter
		live, err := s.keep(ctx, deps, lease)
		end()
		if live {
			barren = 0
		}
		if !errors.Is(err, pipeline.ErrFenced) || ctx.Err() != nil {
			s.release(ctx, lease)
			return err
		}
		if err := lease.Raise(ctx); err != nil {
			return err // another instance owns it
		}
		if barren++; barren > fencedStarts {
			s.release(ctx, lease)
			return fmt.Errorf("shut out %d times by an epoch that no instance owns: find out who wrote to the table fence: %v", barren, err) //nolint:errorlint // it must not look like a loss of the ledger
		}
		s.deps.Logger.Warn("an older owner came first: recovering again", slog.Any("cause", err))
	}
}

// keep runs the pipeline while signs of life can be given.
func (s *Server) keep(ctx context.Context, deps Deps, lease *ledger.Lease) (live bool, err error) {
	alive, die := context.WithCancelCause(ctx)
	defer die(nil)
	kept := make(chan error, 1)
	go func() {
		err := lease.Keep(alive)
		if err != nil {
			s.become(State{Role: Stopping, Instance: s.owner.Instance, Epoch: lease.Epoch()})
			die(err)
		}
		kept <- err
	}()
	err = s.once(alive, deps, lease)
	s.mu.Lock()
	live = s.running != nil && s.running.Engine.Ready()
	s.running = nil
	s.mu.Unlock()
	die(nil)
	if lost := <-kept; lost != nil {
		return live, lost
	}
	return live, err
}

// once opens the pipeline and runs it to its end.
func (s *Server) once(ctx context.Context, deps Deps, lease *ledger.Lease) error {
	starting, stop := s.interruptible(ctx)
	defer stop(nil)
	s.mu.Lock()
	cfg := s.cfg
	s.mu.Unlock()
	p, err := openAs(starting, cfg, deps, holding{store: s.held(), lease: lease})
	if err != nil {
		if cause := context.Cause(starting); errors.Is(cause, ErrStopped) {
			return ErrStopped
		}
		return err
	}
	defer p.Close()
	s.mu.Lock()
	s.running, s.idle = p, nil
	if s.draining {
		p.Engine.Drain(s.eoi)
	}
	s.mu.Unlock()
	if s.Started != nil {
		s.Started(p)
	}
	return p.Run(ctx)
}

// held gives the store of a shared ledger; nil for a folder, which Open locks.
func (s *Server) held() ledger.Store {
	if s.store == nil {
		return nil
	}
	return s.store
}

// releaseTimeout bounds what an owner that ends does for the next one.
const releaseTimeout = 5 * time.Second

// release lets the next owner in, also after a hard stop. One that cannot be told
// waits for the expiry.
func (s *Server) release(ctx context.Context, lease *ledger.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := lease.Release(ctx); err != nil {
		s.deps.Logger.Warn("the ledger could not be released: the next owner waits for its expiry", slog.Any("cause", err))
	}
}

func (s *Server) become(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// State says how the server stands.
func (s *Server) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Pipeline gives the one that runs, or nil.
func (s *Server) Pipeline() *Pipeline {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// Drain is the soft stop: a pipeline that runs drains, a standby ends, and so does a
// start that is not finished.
func (s *Server) Drain(endOfInput bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining, s.eoi = true, endOfInput
	switch {
	case s.running != nil:
		s.running.Engine.Drain(endOfInput)
	case s.idle != nil:
		s.idle()
	}
}

// Ready says why the process does no work, for /readyz.
func (s *Server) Ready(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state.Role == Standby:
		return fmt.Errorf("%w: instance %q owns the ledger", telemetry.ErrStandby, s.state.Owner)
	case s.running == nil:
		return errors.New("starting")
	case !s.running.Engine.Ready():
		return errors.New("recovering what the last run left")
	}
	if err := s.running.Engine.Trouble(); err != nil {
		return fmt.Errorf("the ledger cannot be written, which is tried again: %w", err)
	}
	return nil
}
