package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// AtLeastOnce lands batches in topics of brokers that have no transactions. It is a
// type of its own because it keeps less: it cannot be asked what has landed, and
// shuts no older owner out. Rows come again after a crash, after doubt, and while two
// owners live; never fewer times than once.
type AtLeastOnce struct {
	*target
	client *kgo.Client

	mu    sync.Mutex
	lines map[string]*line // by progressKey
}

var (
	_ pipeline.Repeats = (*AtLeastOnce)(nil)
	_ pipeline.Planner = (*AtLeastOnce)(nil)
)

// NewAtLeastOnce gives a sink for the tables that the pipeline writes. It connects
// when it is first used. Config.ProgressTopic is not used.
//
// Errors: every fault of the configuration at once.
func NewAtLeastOnce(c Config, tables []schemas.Table, deps Deps) (*AtLeastOnce, error) {
	t, err := newTarget(c, tables, deps, atLeastOnce)
	if err != nil {
		return nil, err
	}
	// Idempotent writes are not everywhere either; one request at a time keeps order.
	options := append([]kgo.Opt{kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1)}, t.producerOptions()...)
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	t.log.Warn("kafka lands rows at least once: after a crash some come again, to be told by their headers", slog.Any("headers", []string{HeaderBatch, HeaderRows}))
	return &AtLeastOnce{target: t, client: client, lines: map[string]*line{}}, nil
}

// Repeats implements pipeline.Repeats.
func (*AtLeastOnce) Repeats() {}

// Close ends the client.
func (s *AtLeastOnce) Close() error {
	s.client.Close()
	return nil
}

func (s *AtLeastOnce) line(batch pipeline.BatchID) *line {
	key := progressKey(batch.Ledger(), batch.Shard())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines[key] == nil {
		s.lines[key] = newLine()
	}
	return s.lines[key]
}

// Plan makes one piece of a batch; see pipeline.Planner.
func (s *AtLeastOnce) Plan(batch pipeline.BatchID, pieces []pipeline.Piece, recorded []pipeline.PieceRef) ([]pipeline.Piece, error) {
	planned, err := s.target.Plan(batch, pieces, recorded)
	if len(planned) > 0 && recorded == nil { // at a replay nobody knows whether it will come
		s.line(batch).plan(batch.Seq())
	}
	return planned, err
}

// Land sends the piece's rows and waits until all in-sync replicas have them.
//
// Errors: ErrTransient, although some rows may be there: they come again. Anything
// else is fatal and says what to do.
func (s *AtLeastOnce) Land(ctx context.Context, batch pipeline.BatchID, _ uint64, piece pipeline.Piece) error {
	wrap := func(err error) error {
		return fmt.Errorf("land batch %v in topics of %q: %w", batch, piece.Table, err)
	}
	if err := s.check(piece); err != nil {
		return wrap(err)
	}
	if piece.Rows == 0 {
		return nil
	}
	l := s.line(batch)
	leave, err := l.enter(ctx, batch.Seq(), func() error { return nil })
	if err != nil {
		return wrap(err)
	}
	defer leave()
	began := time.Now()
	err = s.send(ctx, batch, piece)
	s.metrics.transaction(ctx, piece, time.Since(began), err)
	if err != nil {
		return wrap(err)
	}
	l.landed(func(planned uint64) bool { return planned == batch.Seq() })
	return nil
}

func (s *AtLeastOnce) send(ctx context.Context, batch pipeline.BatchID, piece pipeline.Piece) error {
	bounded, cancel := context.WithTimeoutCause(ctx, s.config.TransactionTimeout, fmt.Errorf("not landed within the transaction timeout of %v", s.config.TransactionTimeout))
	defer cancel()
	var failed firstError
	var sent sync.WaitGroup // the client is shared by all shards: Flush would wait for theirs
	err := s.messages(batch, piece, func(r *kgo.Record) error {
		sent.Add(1)
		s.client.Produce(bounded, r, func(_ *kgo.Record, err error) {
			failed.set(err)
			sent.Done()
		})
		return failed.get()
	})
	sent.Wait()
	if err == nil {
		err = failed.get()
	}
	if err != nil {
		return notCommitted(bounded, err)
	}
	return nil
}

// Probe knows nothing: no row is there as far as anybody can tell.
func (s *AtLeastOnce) Probe(_ context.Context, _ pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	for _, ref := range pieces {
		if _, err := s.tablesOf(ref); err != nil {
			return nil, err
		}
	}
	return make([]int64, len(pieces)), nil
}

// Fence shuts nobody out.
func (s *AtLeastOnce) Fence(context.Context, uint16, int, uint64) error { return nil }
