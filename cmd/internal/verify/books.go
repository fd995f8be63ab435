package verify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/cmd/internal/quarantine"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// Role says who writes under a ledger.
type Role string

// Roles.
const (
	RolePipeline   Role = "pipeline"
	RoleBackfill   Role = "backfill"
	RoleQuarantine Role = "quarantine replay"
	RoleRepair     Role = "repair"
	roleElsewhere  Role = "" // its ledger is not here
)

// Ledger is one of this pipeline's.
type Ledger struct {
	Role  Role
	Place string // for people
	Store ledger.Store
}

// account is what is known of one ledger.
type account struct {
	role       Role
	name       string
	registered bool
	shards     []shardBook // empty when the ledger is not here
}

// shardBook is how far a shard had come when its ledger was read.
type shardBook struct {
	done      uint64 // every batch up to here has landed
	watermark pipeline.Watermark
}

// books are what the ledgers and the target's register say.
type books struct {
	accounts map[uint16]*account
	// manifests that are done and that the table batches may lack.
	manifests []pipeline.Manifest
	// last batch that the table batches has of shards whose ledger is not here.
	last map[pipeline.BatchID]uint64 // by shardOf
}

// shardOf is a batch id without its sequence: one for each shard of each ledger.
func shardOf(id pipeline.BatchID) pipeline.BatchID { return id >> 36 }

// standing says what may be expected of a batch.
type standing int

const (
	settled  standing = iota // all of it has landed
	pending                  // it may be on its way
	stranger                 // of a ledger that nobody registered
)

func (b *books) standing(id pipeline.BatchID) standing {
	a := b.accounts[id.Ledger()]
	switch {
	case a == nil || !a.registered:
		return stranger
	case len(a.shards) == 0:
		if id.Seq() > b.last[shardOf(id)] {
			return pending
		}
	case id.Shard() < len(a.shards) && id.Seq() > a.shards[id.Shard()].done:
		return pending
	}
	return settled
}

// replays says that the batches of the ledger lie within byte ranges of others.
func (b *books) replays(id pipeline.BatchID) bool {
	a := b.accounts[id.Ledger()]
	return a != nil && (a.role == RoleQuarantine || a.role == roleElsewhere)
}

// readBooks reads the ledgers, then the register of the target.
func (v *verifier) readBooks(ctx context.Context) error {
	v.books = &books{accounts: map[uint16]*account{}, last: map[pipeline.BatchID]uint64{}}
	for _, l := range v.Ledgers {
		if err := v.readLedger(ctx, l); err != nil {
			return fmt.Errorf("read the ledger in %s: %w", l.Place, err)
		}
	}
	if err := v.readRegister(ctx); err != nil {
		return err
	}
	for id, a := range v.books.accounts {
		if !a.registered {
			v.result.add(Finding{
				Kind: ForeignLedger, Table: "ledgers", Batch: uint64(pipeline.NewBatchID(id, 0, 0)), Count: 1,
				Detail: fmt.Sprintf("the target does not know ledger %d (%s) by its name %q", id, a.role, a.name),
				Todo:   "this ledger belongs to another target: check clickhouse.url and clickhouse.database, or restore the table ledgers",
			})
		}
	}
	return v.readLast(ctx)
}

func (v *verifier) readLedger(ctx context.Context, l Ledger) error {
	book, err := ledger.View(ctx, l.Store)
	if errors.Is(err, ledger.ErrNotExist) {
		if l.Role == RolePipeline {
			v.result.note(fmt.Sprintf("there is no ledger in %s: what is pending cannot be told from what is missing behind the last checkpoint", l.Place))
		}
		return nil
	}
	if err != nil {
		return err
	}
	states, err := book.States(ctx)
	if err != nil {
		return err
	}
	a := &account{role: l.Role, name: book.Info().Name, shards: make([]shardBook, len(states))}
	if l.Role == RolePipeline {
		v.live = book.Info()
	}
	for i, s := range states {
		a.shards[i] = shardBook{done: s.DoneSeq, watermark: s.Base.Watermark}
		for _, m := range s.Manifests {
			if err := v.readManifest(l.Role, m, &a.shards[i]); err != nil {
				return err
			}
		}
		if l.Role != RolePipeline && len(s.Manifests) == 0 && len(s.Base.Positions) == 0 {
			a.shards[i].watermark = pipeline.EndOfInput // it has ended, and closed every window
		}
	}
	v.books.accounts[book.Info().ID] = a
	return nil
}

// readManifest enters one behind the newest base.
func (v *verifier) readManifest(role Role, m pipeline.Manifest, s *shardBook) error {
	if m.Warm {
		return nil // its units are those of other batches
	}
	if m.Seq > s.done {
		v.result.Pending.Batches++
		return nil
	}
	s.watermark = max(s.watermark, m.Watermark)
	if role == RoleQuarantine {
		var err error
		if m.Units, err = quarantine.UnitsOf(m); err != nil {
			return err
		}
	}
	v.books.manifests = append(v.books.manifests, m)
	return nil
}

// readRegister reads the table ledgers. The first claim of an id is its owner's.
func (v *verifier) readRegister(ctx context.Context) error {
	return v.each(ctx, "ledgers", "SELECT ledger, argMin(name, _block_number) FROM ledgers GROUP BY ledger", func(row ask.Row) error {
		var id uint16
		var name string
		if err := row.Scan(&id, &name); err != nil {
			return err
		}
		a := v.books.accounts[id]
		if a == nil {
			a = &account{name: name}
			v.books.accounts[id] = a
		}
		a.registered = a.name == name
		return nil
	})
}

// readLast finds how far shards came whose ledger is not here: up to a checkpoint
// the table batches says it.
func (v *verifier) readLast(ctx context.Context) error {
	var elsewhere []string
	for id, a := range v.books.accounts {
		if len(a.shards) == 0 {
			elsewhere = append(elsewhere, strconv.Itoa(int(id)))
		}
	}
	if len(elsewhere) == 0 {
		return nil
	}
	sql := fmt.Sprintf("SELECT bitShiftRight(batch_id, 36) AS s, max(bitAnd(batch_id, %d)) FROM batches WHERE bitShiftRight(batch_id, 48) IN (%s) GROUP BY s", uint64(pipeline.MaxSeq), strings.Join(elsewhere, ", "))
	return v.each(ctx, "batches", sql, func(row ask.Row) error {
		var shard, last uint64
		err := row.Scan(&shard, &last)
		v.books.last[pipeline.BatchID(shard)] = last
		return err
	})
}
