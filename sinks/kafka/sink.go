package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Sink lands batches exactly once. It is safe for concurrent use.
type Sink struct {
	*target
	progress *progressReader

	mu      sync.Mutex
	writers map[string]*writer // by progressKey
}

var (
	_ pipeline.Sink    = (*Sink)(nil)
	_ pipeline.Planner = (*Sink)(nil)
)

// New gives a sink for the tables that the pipeline writes. It connects when it is
// first used.
//
// Errors: every fault of the configuration at once.
func New(c Config, tables []schemas.Table, deps Deps) (*Sink, error) {
	t, err := newTarget(c, tables, deps, exactlyOnce)
	if err != nil {
		return nil, err
	}
	reader, err := newProgressReader(c.ProgressTopic, t.options)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return &Sink{target: t, progress: reader, writers: map[string]*writer{}}, nil
}

// Close ends the clients. Calls that still run fail; a transaction that is open is
// ended by the next owner, or by the broker after its timeout.
func (s *Sink) Close() error {
	s.progress.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.writers {
		w.reset()
	}
	return nil
}

// transactionalID names a writer. The progress topic stands in it because ids of
// ledgers are unique only within one.
func (s *Sink) transactionalID(name string) string { return s.config.ProgressTopic + "/" + name }

// shardID is the transactional id of a shard.
func (s *Sink) shardID(ledger uint16, shard int) string {
	return s.transactionalID(fmt.Sprintf("%d/%d", ledger, shard))
}

func (s *Sink) writer(ledger uint16, shard int) *writer {
	key := progressKey(ledger, shard)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writers[key]
	if w == nil {
		w = &writer{s: s, ledger: ledger, shard: shard, line: newLine()}
		s.writers[key] = w
	}
	return w
}

// Plan makes one piece of a batch; see pipeline.Planner.
func (s *Sink) Plan(batch pipeline.BatchID, pieces []pipeline.Piece, recorded []pipeline.PieceRef) ([]pipeline.Piece, error) {
	planned, err := s.target.Plan(batch, pieces, recorded)
	if len(planned) > 0 {
		s.writer(batch.Ledger(), batch.Shard()).line.plan(batch.Seq())
	}
	return planned, err
}

// Land commits the piece in one transaction; see pipeline.Sink. A batch that is there
// already is not landed again.
//
// Errors: ErrFenced, ErrTransient, ErrInDoubt; anything else is fatal and says what
// to do.
func (s *Sink) Land(ctx context.Context, batch pipeline.BatchID, epoch uint64, piece pipeline.Piece) error {
	wrap := func(err error) error {
		return fmt.Errorf("land batch %v in topics of %q: %w", batch, piece.Table, err)
	}
	if err := s.check(piece); err != nil {
		return wrap(err)
	}
	if piece.Rows == 0 {
		return nil
	}
	w := s.writer(batch.Ledger(), batch.Shard())
	leave, err := w.line.enter(ctx, batch.Seq(), func() error { return w.settle(ctx, epoch) })
	if err != nil {
		return wrap(err)
	}
	defer leave()
	began := time.Now()
	err = w.land(ctx, batch, epoch, piece)
	s.metrics.transaction(ctx, piece, time.Since(began), err)
	if err != nil {
		return wrap(err)
	}
	return nil
}

// shardProgress asks what has landed of a shard.
func (s *Sink) shardProgress(ctx context.Context, ledger uint16, shard int) (progress, error) {
	return s.progress.shard(ctx, s.shardID(ledger, shard), ledger, shard)
}

// Probe reads the progress topic to its end; see pipeline.Sink. A batch lands as a
// whole, so a count is 0 or the piece's rows.
func (s *Sink) Probe(ctx context.Context, batch pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	wrap := func(err error) error { return fmt.Errorf("probe batch %v: %w", batch, err) }
	if len(pieces) == 0 {
		return nil, nil
	}
	bounded, cancel := s.config.bounded(ctx)
	defer cancel()
	state, err := s.shardProgress(bounded, batch.Ledger(), batch.Shard())
	if err != nil {
		return nil, wrap(err)
	}
	rows := make([]int64, len(pieces))
	for i, ref := range pieces {
		if _, err := s.tablesOf(ref); err != nil {
			return nil, wrap(err)
		}
		if rows[i], err = state.find(batch.Seq(), ref); err != nil {
			return nil, wrap(err)
		}
	}
	return rows, nil
}

// Fence shuts out every older owner of the shard and ends its open transaction; see
// pipeline.Sink. It waits for a landing of this process.
//
// Errors: ErrFenced when a later epoch is there already; ErrTransient, then the
// caller calls again.
func (s *Sink) Fence(ctx context.Context, ledger uint16, shard int, epoch uint64) error {
	w := s.writer(ledger, shard)
	leave, err := w.line.alone(ctx)
	if err != nil {
		return errors.Join(pipeline.ErrTransient, err)
	}
	defer leave()
	if err := w.fence(ctx, epoch); err != nil {
		return fmt.Errorf("fence shard %d of ledger %d at epoch %d: %w", shard, ledger, epoch, err)
	}
	return nil
}
