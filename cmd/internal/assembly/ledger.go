package assembly

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/rebuild"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/schemas"
)

// holding is a ledger that somebody has taken before it is opened.
type holding struct {
	store   ledger.Store  // nil: the folder of the configuration, not locked yet
	lease   *ledger.Lease // of a shared ledger
	reshard bool          // between ledger.BeginReshard and ledger.FinishReshard
}

// ledgerAccount resolves the account of a shared ledger and its credential.
func ledgerAccount(cfg config.Config) (blob.AccountConfig, error) {
	return resolveAccount("ledger.azure", cfg.LedgerAccounts()[0])
}

// instanceName tells processes apart that share a ledger.
func instanceName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:8])
}

// InspectLedger reads the ledger of a pipeline, which may run.
//
// Errors: there is no ledger.
func InspectLedger(ctx context.Context, cfg config.Config) (ledger.Summary, error) {
	var store ledger.Store
	if cfg.Ledger.Azure != nil {
		s, err := openContainer(cfg)
		if err != nil {
			return ledger.Summary{}, err
		}
		defer s.Close()
		store = s
	} else {
		s, err := ledger.ReadDirectory(cfg.State)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("there is no ledger in %s: it is made when the pipeline starts first; one that was lost is made again by millrace ledger rebuild: %w", cfg.LedgerPlace(), ledger.ErrNotExist)
		}
		if err != nil {
			return ledger.Summary{}, err
		}
		store = s
	}
	s, err := ledger.Inspect(ctx, store)
	if errors.Is(err, ledger.ErrNotExist) {
		err = fmt.Errorf("there is no ledger in %s: it is made when the pipeline starts first; one that was lost is made again by millrace ledger rebuild: %w", cfg.LedgerPlace(), err)
	}
	return s, err
}

// hold takes the ledger for a command. release gives it back; the context ends when
// another instance takes it.
//
// Errors: a pipeline has it. The owner of a shared one is waited for until it could
// have expired.
func hold(parent context.Context, cfg config.Config, log *slog.Logger) (ctx context.Context, held holding, release func(), err error) {
	fail := func(err error) (context.Context, holding, func(), error) { return nil, holding{}, nil, err }
	if cfg.Ledger.Azure == nil {
		d, err := ledger.OpenDirectory(cfg.State)
		if err != nil {
			return fail(err)
		}
		return parent, holding{store: d}, func() { _ = d.Close() }, nil // gives the lock back
	}
	s, err := openContainer(cfg)
	if err != nil {
		return fail(err)
	}
	if err := s.Prepare(parent); err != nil {
		s.Close()
		return fail(err)
	}
	const looks = 15 * time.Second // some looks more than the expiry
	bounded, cancel := context.WithTimeout(parent, cfg.Ledger.Expiry+looks)
	defer cancel()
	var owner ledger.Owner
	lease, err := ledger.Own(bounded, s, ledger.OwnerConfig{Instance: instanceName(), Expiry: cfg.Ledger.Expiry}, func(o ledger.Owner) {
		if owner.Instance == "" {
			log.Warn("waiting until the owner of the ledger stops, or has given no sign of life for its expiry", slog.String("owner", o.Instance))
		}
		owner = o
	})
	if err != nil {
		s.Close()
		if bounded.Err() != nil && parent.Err() == nil {
			err = fmt.Errorf("instance %q owns the ledger, and lives: stop every instance first", owner.Instance)
		}
		return fail(err)
	}
	ctx, stop := context.WithCancelCause(parent)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		stop(lease.Keep(ctx))
	}()
	return ctx, holding{store: s, lease: lease}, func() {
		stop(nil)
		<-kept
		ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), releaseTimeout)
		defer cancel()
		if err := lease.Release(ctx); err != nil {
			log.Warn("the ledger could not be released: the next owner waits for its expiry", slog.Any("cause", err))
		}
		s.Close()
	}, nil
}

// Reshard changes the number of shards of a ledger that no pipeline has. It lands
// what is pending, closes every window, and moves offsets to their new shards. After
// an error or a kill the same call goes on.
func Reshard(ctx context.Context, cfg config.Config, deps Deps, shards int) error {
	ctx, held, release, err := hold(ctx, cfg, deps.Logger)
	if err != nil {
		return err
	}
	defer release()
	closed, err := ledger.BeginReshard(ctx, held.store, shards)
	if err != nil {
		return err
	}
	held.reshard = true
	if !closed {
		if err := closeWindows(ctx, cfg, deps, held); err != nil {
			return fmt.Errorf("land what is pending and close the windows: %w: run the command again", err)
		}
	}
	sink, err := OpenSink(cfg)
	if err != nil {
		return err
	}
	defer sink.Close()
	return ledger.FinishReshard(ctx, held.store, func(ctx context.Context, info ledger.Info, seq uint64) error {
		_, err := sink.Exec(ctx, fmt.Sprintf("ALTER TABLE %s UPDATE shards = %d, resharded_seq = %d WHERE ledger = %d AND name = %s SETTINGS mutations_sync = 2",
			schemas.QuoteName(schemas.Ledgers.Name), info.Shards, seq, info.ID, schemas.QuoteString(info.Name)))
		if err != nil {
			return fmt.Errorf("tell the target the number of shards: %w: run the command again", err)
		}
		return nil
	})
}

// closeWindows runs the pipeline without sources: what is pending lands, and that is
// the end of the input.
func closeWindows(ctx context.Context, cfg config.Config, deps Deps, held holding) error {
	p, err := openAs(ctx, cfg, deps, held)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Run(ctx); err != nil {
		return err
	}
	return ctx.Err() // a hard stop is no error to the engine
}

// Rebuild makes a lost ledger again out of the target, or only says how. id 0 is the
// only one; see rebuild.Choose.
func Rebuild(ctx context.Context, cfg config.Config, deps Deps, id uint16, skipWindows, dry bool) (*rebuild.Plan, error) {
	p := &Pipeline{}
	defer p.Close()
	if err := p.openStore(cfg); err != nil {
		return nil, err
	}
	var err error
	if p.Sink, err = OpenSink(cfg); err != nil {
		return nil, err
	}
	d := rebuild.Deps{
		Target: p.Sink, Blobs: p.Reader, Windows: cfg.Windows, Start: cfg.StartTime,
		Keep: engineConfig(cfg).Shard.KeepOffsets, Now: time.Now(),
	}
	if skipWindows {
		d.Windows = nil
	}
	if dry {
		r, err := rebuild.Choose(ctx, p.Sink, id)
		if err != nil {
			return nil, err
		}
		return rebuild.Look(ctx, d, r)
	}
	ctx, held, release, err := hold(ctx, cfg, deps.Logger)
	if err != nil {
		return nil, err
	}
	defer release()
	empty, err := ledger.Empty(ctx, held.store)
	if err != nil {
		return nil, err
	}
	if !empty {
		return nil, fmt.Errorf("%s holds a ledger: rebuilding is for one that is lost; move it away first, if it is damaged", cfg.LedgerPlace())
	}
	if err := p.Prepare(ctx, cfg, deps); err != nil {
		return nil, err
	}
	r, err := rebuild.Choose(ctx, p.Sink, id)
	if err != nil {
		return nil, err
	}
	return rebuild.Do(ctx, d, r, held.store, held.lease)
}
