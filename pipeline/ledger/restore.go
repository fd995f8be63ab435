package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/pipeline"
)

// Restored is what a lost ledger begins again with.
type Restored struct {
	Info  Info
	Epoch uint64 // every later owner has a higher one
	// Shards, one for each, in order. The manifests are Warm, and follow the base
	// without a gap.
	Shards []State
}

// Empty says whether store holds no ledger.
func Empty(ctx context.Context, store Store) (bool, error) {
	_, err := store.Get(ctx, "info")
	if errors.Is(err, ErrNotExist) {
		return true, nil
	}
	return false, err
}

// Restore writes a lost ledger into an empty store, which the caller owns. The info
// is written last: until then there is no ledger, and the same call goes on after a
// crash. With a lease, the epoch is the lease's, which must have been raised.
func Restore(ctx context.Context, store Store, lease *Lease, r Restored) error {
	l := &Ledger{store: store, info: r.Info}
	if empty, err := Empty(ctx, store); err != nil || !empty {
		return errors.Join(err, errors.New("restore ledger: there is one already"))
	}
	if len(r.Shards) != r.Info.Shards {
		return fmt.Errorf("BUG: %d shards to restore, of %d", len(r.Shards), r.Info.Shards)
	}
	for shard, s := range r.Shards {
		if err := l.clear(ctx, shard, false, 0); err != nil { // of an attempt before
			return err
		}
		last := s.NextSeq() - 1
		s.Base.Shard = shard
		if err := l.put(ctx, object(shard, "base", s.Base.Seq), "base", s.Base); err != nil {
			return err
		}
		for i, m := range s.Manifests {
			m.Ledger, m.Shard, m.Seq, m.DoneSeq, m.Warm = r.Info.ID, shard, s.Base.Seq+1+uint64(i), last, true
			m.Batch = pipeline.NewBatchID(m.Ledger, shard, m.Seq)
			if err := l.WriteManifest(ctx, m); err != nil {
				return err
			}
		}
	}
	if lease == nil {
		if err := l.put(ctx, "epoch", "epoch", epochObject{Epoch: r.Epoch}); err != nil {
			return err
		}
	}
	if err := l.put(ctx, "name", "name", nameObject{r.Info.Name}); err != nil {
		return err
	}
	data, err := encode("info", r.Info)
	if err != nil {
		return err
	}
	return l.store.Create(ctx, "info", data)
}
