package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// claimName is the object that says which hours were given away.
const claimName = "claim"

type claimObject struct {
	// Before: the owner of the ledger commits no bytes of blobs whose hour ends at or
	// before it, and somebody else may.
	Before time.Time `json:"before"`
}

// Excluder is a Store whose owner and others can keep each other out for a moment.
type Excluder interface {
	// Exclude waits until nobody else is in between Exclude and release, in any process.
	Exclude(ctx context.Context) (release func(), err error)
}

// ErrClaimed: a batch has bytes of hours that were given away; it was not written.
var ErrClaimed = errors.New("the hour was given to a backfill")

// Claim takes the hours that end at or before the given time from the owner of the
// ledger in store, for good, and calls look while no manifest can be written. So
// look finds every batch with bytes of these hours that there will ever be.
//
// The caller need not own the ledger, and may run while its owner does. It claims
// hours that the owner does not read any more: those before its start, or behind its
// age limit. The claim matters to a read that began before the limit was reached.
func Claim(ctx context.Context, store Store, before time.Time, look func() error) error {
	l := Ledger{store: store}
	release, err := l.exclude(ctx)
	if err != nil {
		return err
	}
	defer release()
	had, err := l.claimed(ctx)
	if err != nil {
		return err
	}
	if before.After(had) {
		if err := l.put(ctx, claimName, claimName, claimObject{Before: before.UTC()}); err != nil {
			return err
		}
	}
	return look()
}

// claimed gives the end of the hours that were given away. Where the owner cannot be
// kept out none are.
func (l *Ledger) claimed(ctx context.Context) (time.Time, error) {
	if _, ok := l.store.(Excluder); !ok {
		return time.Time{}, nil
	}
	var c claimObject
	err := l.get(ctx, claimName, claimName, &c)
	if errors.Is(err, ErrNotExist) {
		return time.Time{}, nil
	}
	return c.Before, err
}

func (l *Ledger) exclude(ctx context.Context) (release func(), err error) {
	e, ok := l.store.(Excluder)
	if !ok {
		return nil, errors.New("claim hours: the ledger's store cannot keep its owner out: backfill a pipeline whose ledger is a folder")
	}
	return e.Exclude(ctx)
}

// createManifest writes a manifest unless it has bytes of hours that were given away.
func (l *Ledger) createManifest(ctx context.Context, m pipeline.Manifest, data []byte) error {
	if _, ok := l.store.(Excluder); ok {
		release, err := l.exclude(ctx)
		if err != nil {
			return err
		}
		defer release()
		before, err := l.claimed(ctx)
		if err != nil {
			return err
		}
		for _, u := range m.Units {
			if hour, ok := u.Blob.Hour(); ok && !hour.Add(time.Hour).After(before) {
				return fmt.Errorf("batch %v has bytes of blob %q: %w while it was being read: start the pipeline again, it goes on behind that hour", m.Batch, u.Blob, ErrClaimed)
			}
		}
	}
	name := object(m.Shard, "m", m.Seq)
	if mutant.On(mutant.ManifestOverwritten) {
		return l.store.Put(ctx, name, data)
	}
	err := l.store.Create(ctx, name, data)
	if errors.Is(err, ErrExists) && mutant.On(mutant.LoserGoesOn) {
		return nil
	}
	return err
}

// View reads the ledger in store without taking it over. Its owner may run. Only
// Info, Manifests and States may be called.
//
// Errors: ErrNotExist when there is no ledger.
func View(ctx context.Context, store Store) (*Ledger, error) {
	l := &Ledger{store: store}
	if err := l.get(ctx, "info", "info", &l.info); err != nil {
		return nil, err
	}
	return l, l.respectClaim(ctx)
}

// respectClaim moves the start behind the hours that were given away.
func (l *Ledger) respectClaim(ctx context.Context) error {
	before, err := l.claimed(ctx)
	if before.After(l.info.Start) {
		l.info.Start = before
	}
	return err
}

// viewTries is how often a ledger is read whose owner prunes it meanwhile: objects
// go between their listing and their reading.
const viewTries = 10

// Manifests gives the batches of all shards that the newest base of each does not
// cover, while the owner may go on. The table of batches has those that it covers.
func (l *Ledger) Manifests(ctx context.Context) ([]pipeline.Manifest, error) {
	var all []pipeline.Manifest
	for shard := range l.info.Shards {
		for try := 1; ; try++ {
			state, err := l.Recover(ctx, shard)
			if err != nil && try < viewTries {
				continue
			}
			if err != nil {
				return nil, err
			}
			all = append(all, state.Manifests...)
			break
		}
	}
	return all, nil
}
