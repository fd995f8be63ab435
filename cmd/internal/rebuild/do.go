package rebuild

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/schemas"
)

// Do rebuilds the ledger in an empty store, which the caller owns; lease is that of a
// shared one. It fences, looks again at what is there now, takes back, and writes.
func Do(ctx context.Context, d Deps, r Registered, store ledger.Store, lease *ledger.Lease) (*Plan, error) {
	before, err := Look(ctx, d, r)
	if err != nil {
		return nil, err
	}
	if lease != nil {
		if err := lease.RaiseTo(ctx, before.Epoch); err != nil {
			return nil, err
		}
		before.Epoch = lease.Epoch()
	}
	for shard := range r.Shards {
		if err := d.Target.Fence(ctx, r.ID, shard, before.Epoch<<20); err != nil {
			return nil, err
		}
	}
	// Behind the fence nothing more lands: this is what there is.
	p, err := Look(ctx, d, r)
	if err != nil {
		return nil, err
	}
	p.Epoch, p.restored.Epoch = before.Epoch, before.Epoch
	for _, table := range slices.Sorted(maps.Keys(p.Back)) {
		if _, err := d.Target.Exec(ctx, fmt.Sprintf("ALTER TABLE %s DELETE WHERE %s SETTINGS mutations_sync = 2", schemas.QuoteName(table), either(p.back))); err != nil {
			return nil, fmt.Errorf("take rows back from table %q: %w: run the command again", table, err)
		}
	}
	if err := ledger.Restore(ctx, store, lease, p.restored); err != nil {
		return nil, fmt.Errorf("write the rebuilt ledger: %w: run the command again", err)
	}
	return p, nil
}
