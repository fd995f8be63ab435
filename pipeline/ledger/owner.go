package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// MinExpiry is the shortest time after which an owner may count as gone.
const MinExpiry = 5 * time.Second

// OwnerConfig is how an instance owns a shared ledger.
type OwnerConfig struct {
	// Instance tells instances apart: no two that live at one time have the same.
	Instance string
	// Expiry is how long an owner is left alone that gives no sign of life. At least
	// MinExpiry. An instance waits for its own or for the owner's, whichever is longer.
	Expiry time.Duration
	// Clock is that of a simulation. Default: the machine's.
	Clock Clock
}

// Clock is what an owner needs of time.
type Clock interface {
	// Now gives a time whose differences no step of the wall clock changes.
	Now() time.Time
	// Wait returns after d, or earlier with ctx's error.
	Wait(ctx context.Context, d time.Duration) error
	// Until gives a context that ends at a time of Now.
	Until(ctx context.Context, end time.Time) (context.Context, context.CancelFunc)
}

// machineClock is the machine's clock.
type machineClock struct{}

func (machineClock) Now() time.Time { return time.Now() }

func (machineClock) Wait(ctx context.Context, d time.Duration) error { return pipeline.Wait(ctx, d) }

func (machineClock) Until(ctx context.Context, end time.Time) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, end)
}

// Validate reports every fault at once.
func (c OwnerConfig) Validate() error {
	var faults []error
	if c.Instance == "" {
		faults = append(faults, errors.New("owner of the ledger: no name for this instance"))
	}
	if c.Expiry < MinExpiry {
		faults = append(faults, fmt.Errorf("expiry of the ledger's owner %v: want at least %v", c.Expiry, MinExpiry))
	}
	return errors.Join(faults...)
}

// Owner is what the object "owner" of a shared ledger says.
type Owner struct {
	Instance string `json:"instance"`
	Epoch    uint64 `json:"epoch"` // rises with every owner
	// Renewed is the owner's clock at its last sign of life. For people: clocks of two
	// machines are never compared.
	Renewed time.Time `json:"renewed"`
	// ExpiryMS is how long the owner wants to be left alone without a sign of life.
	ExpiryMS int64 `json:"expiry_ms"`
	// Serial makes the bytes of every write its own.
	Serial uint64 `json:"serial"`
	// Released: the owner has stopped, the next one need not wait.
	Released bool `json:"released,omitempty"`
}

const ownerName = "owner"

// readOwner gives the owner and the version of the object; ErrNotExist when there
// never was one.
func readOwner(ctx context.Context, store Shared) (Owner, string, error) {
	var o Owner
	data, version, err := store.Load(ctx, ownerName)
	if err != nil {
		return o, "", err
	}
	if err := decode(ownerName, data, &o); err != nil {
		return o, "", fmt.Errorf("ledger object %q: %w", ownerName, err)
	}
	return o, version, nil
}

// CurrentOwner says who owns a shared ledger, for people; ErrNotExist when nobody ever
// did.
func CurrentOwner(ctx context.Context, store Shared) (Owner, error) {
	owner, _, err := readOwner(ctx, store)
	return owner, err
}

// Lease is the ownership of a shared ledger, from Own until it is lost or released.
// Its methods may be called from several goroutines.
//
// What the object "owner" is for, and what not: it keeps instances from working at
// one time, which would be waste. That nothing is lost or doubled when two do work
// at one time rests on the manifests, which have one creator, and on the fence in
// the target, which refuses the INSERTs of a lower epoch. So an owner that wakes up
// late does no harm, whatever it still does:
//
//	A, epoch 1        closes batch 7 and is frozen before its manifest
//	B                 sees one version of "owner" for longer than the expiry
//	B, epoch 2        swaps "owner", recovers batches up to 6, sets the fence to 2,
//	                  waits for INSERTs of epoch 1, probes, goes on reading
//	A                 wakes up. Its next sign of life finds another version: it stops.
//	                  What may come before that:
//	  manifest 7      a) B has created its own: A is told so, and stops.
//	                  b) A is first. Its batch 7 is then a promise like any other, but
//	                     its INSERTs are refused. B comes with its own batch 7, finds
//	                     the name taken, and recovers again: it adopts A's batch 7,
//	                     lands it, and reads on behind it.
//	                  c) B has pruned manifest 7 long ago: the object is one behind the
//	                     base, which nobody reads, and the next pruning takes it.
//	  head, base      say of A's batches that they are done, and of the state behind
//	                  them what it is. Both are true for ever, because each batch has
//	                  one manifest and the state is a function of them. A head that is
//	                  behind costs probes; an old base is not the newest, and goes.
//	  pruning         A keeps what its newest base needs; newer ones need less.
//	  batches, hub    the same rows again, or a position that is behind: no harm.
//	positions
type Lease struct {
	store Shared
	cfg   OwnerConfig

	mu      sync.Mutex // held while the object is written
	owner   Owner
	version string
	renewed time.Time // on this machine, before the write that holds
}

// Own waits until the ledger in store has no owner that lives, and takes it. watch
// hears of the owner that is waited for, at every look.
//
// An owner counts as gone when the version of its object has not changed for the
// expiry, by this machine's monotonic clock since it first saw that version. The
// owner itself has written it before that, so it gives up earlier.
//
// Errors: those of the store that are not transient; ctx ended.
func Own(ctx context.Context, store Shared, cfg OwnerConfig, watch func(Owner)) (*Lease, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Clock == nil {
		cfg.Clock = machineClock{}
	}
	l := &Lease{store: store, cfg: cfg}
	var since time.Time
	for first := true; ; first = false {
		owner, version, err := readOwner(ctx, store)
		if first || err == nil && version != l.version {
			since = cfg.Clock.Now()
		}
		if err == nil || errors.Is(err, ErrNotExist) {
			l.owner, l.version = owner, version
			if version == "" || owner.free(cfg, cfg.Clock.Now().Sub(since)) {
				if err = l.next(ctx); err == nil {
					return l, nil
				}
			} else {
				watch(owner)
			}
		}
		if err != nil && !errors.Is(err, ErrChanged) && !errors.Is(err, pipeline.ErrTransient) {
			return nil, fmt.Errorf("own the ledger: %w", err)
		}
		if err := cfg.Clock.Wait(ctx, min(cfg.Expiry/5, 5*time.Second)); err != nil {
			return nil, err
		}
	}
}

// free says whether the owner may be followed, unchanged for so long.
func (o Owner) free(cfg OwnerConfig, unchanged time.Duration) bool {
	return o.Released || o.Instance == cfg.Instance || unchanged >= max(cfg.Expiry, time.Duration(o.ExpiryMS)*time.Millisecond)
}

// Epoch is higher than that of every earlier owner.
func (l *Lease) Epoch() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owner.Epoch
}

// Instance is this instance's name.
func (l *Lease) Instance() string { return l.cfg.Instance }

// next writes this instance as the owner of the next epoch.
func (l *Lease) next(ctx context.Context) error {
	epoch := l.owner.Epoch + 1
	if mutant.On(mutant.LeaseEpochKept) {
		epoch = l.owner.Epoch
	}
	return l.write(ctx, Owner{Instance: l.cfg.Instance, Epoch: epoch, ExpiryMS: l.cfg.Expiry.Milliseconds(), Serial: l.owner.Serial + 1})
}

// write swaps the object. Tried again, it writes the same bytes, so that a lost
// answer does not look like another owner.
func (l *Lease) write(ctx context.Context, o Owner) error {
	began := l.cfg.Clock.Now()
	o.Renewed = began.UTC()
	data, err := encode(ownerName, o)
	if err != nil {
		return err
	}
	for {
		version, err := l.store.Swap(ctx, ownerName, data, l.version)
		switch {
		case err == nil || errors.Is(err, ErrChanged) && mutant.On(mutant.LeaseUnchecked):
			l.owner, l.version, l.renewed = o, version, began
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrChanged) && l.doubled(ctx):
			continue
		case !errors.Is(err, pipeline.ErrTransient):
			return err
		}
		if err := l.cfg.Clock.Wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// doubled says that the object holds what this owner wrote last, as another version: a
// write that was given up and tried again has come a second time. Nobody has followed,
// so the next write goes in its place.
func (l *Lease) doubled(ctx context.Context) bool {
	there, version, err := readOwner(ctx, l.store)
	same := there.Instance == l.cfg.Instance && there.Epoch == l.owner.Epoch && there.Serial == l.owner.Serial && there.Renewed.Equal(l.owner.Renewed)
	if err != nil || !same || version == l.version {
		return false
	}
	l.version = version
	return true
}

// Keep gives signs of life until ctx ends, and then gives nil. Whatever the owner
// does must end when Keep does.
//
// Errors: ErrFenced when another instance has taken over, or when for as long as
// the expiry no sign of life could be given.
func (l *Lease) Keep(ctx context.Context) error {
	for {
		if l.cfg.Clock.Wait(ctx, l.cfg.Expiry/4) != nil {
			return nil //nolint:nilerr // the caller has asked for the end
		}
		err := l.renew(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller has asked for the end
		}
		if err != nil {
			return l.lost(ctx, err)
		}
	}
}

// renew gives one sign of life, before this owner counts as gone. A process that was
// frozen finds that moment in the past, and gives up unasked.
func (l *Lease) renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := l.cfg.Clock.Until(ctx, l.renewed.Add(l.cfg.Expiry))
	defer cancel()
	o := l.owner
	o.Serial++
	return l.write(ctx, o)
}

// lost says who took over, or that for too long nobody could be told that this owner
// lives: then another one may have.
func (l *Lease) lost(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("no sign of life could be given for %v: %w", l.cfg.Expiry, pipeline.ErrFenced)
	}
	if !errors.Is(err, ErrChanged) {
		return fmt.Errorf("keep the ledger: %w", err)
	}
	if o, _, err := readOwner(ctx, l.store); err == nil {
		return fmt.Errorf("instance %q owns the ledger since epoch %d: %w", o.Instance, o.Epoch, pipeline.ErrFenced)
	}
	return fmt.Errorf("another instance owns the ledger: %w", pipeline.ErrFenced)
}

// Raise takes the next epoch, for another run of the engine by the same owner: the
// fence of the run before has risen within its own.
//
// Errors: ErrFenced when another instance has taken over, or could have: for as long
// as the expiry the epoch could not be written.
func (l *Lease) Raise(ctx context.Context) error { return l.raise(ctx, 0) }

// RaiseTo is Raise to at least this epoch.
func (l *Lease) RaiseTo(ctx context.Context, epoch uint64) error { return l.raise(ctx, epoch) }

func (l *Lease) raise(ctx context.Context, least uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	bounded, cancel := l.cfg.Clock.Until(ctx, l.cfg.Clock.Now().Add(l.cfg.Expiry))
	defer cancel()
	l.owner.Epoch = max(l.owner.Epoch, max(least, 1)-1)
	if err := l.next(bounded); err != nil {
		return l.lost(ctx, err)
	}
	return nil
}

// Release lets the next owner in at once. What the engine has begun must have
// ended, or be shut out by the next owner's fence.
//
// Errors: ErrFenced when another instance has taken over already.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.owner
	o.Serial++
	o.Released = true
	if err := l.write(ctx, o); err != nil {
		return l.lost(ctx, err)
	}
	return nil
}
