package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
)

// writer lands the batches of one shard. Its line lets one caller in at a time,
// who owns everything else.
type writer struct {
	s      *Sink
	ledger uint16
	shard  int
	line   *line

	x     *transactor // nil until opened, and after an error
	state progress    // what is committed, while x is not nil
	epoch uint64      // the highest that this process has seen
}

// open makes sure that nobody else can commit under the shard's id, and knows what
// has been committed.
//
// The epoch is looked at twice. Before: a late owner must not shut out its
// successor. After: the successor may have come in between, as in
//
//	A reads epoch 4, its own; B fences at 5 and lands; A shuts B out, reads 5, and
//	stops; B is shut out, finds its own 5 as the highest, and begins anew.
func (w *writer) open(ctx context.Context, epoch uint64) error {
	if w.x != nil {
		return w.admit(w.state, epoch)
	}
	if err := w.read(ctx, epoch); err != nil {
		return err
	}
	x, err := begin(ctx, w.s.config, w.s.producerOptions(), w.s.shardID(w.ledger, w.shard))
	if err != nil {
		return err
	}
	if err := w.read(ctx, epoch); err != nil {
		x.close()
		return err
	}
	w.x = x
	return nil
}

// settle opens and tells the line what needs not come any more.
func (w *writer) settle(ctx context.Context, epoch uint64) error {
	if err := w.open(ctx, epoch); err != nil {
		return err
	}
	w.line.landed(w.state.done)
	return nil
}

// read asks the progress topic.
func (w *writer) read(ctx context.Context, epoch uint64) error {
	bounded, cancel := w.s.config.bounded(ctx)
	defer cancel()
	state, err := w.s.shardProgress(bounded, w.ledger, w.shard)
	if err != nil {
		return err
	}
	w.state = state
	return w.admit(state, epoch)
}

// admit refuses an epoch that is over.
func (w *writer) admit(state progress, epoch uint64) error {
	w.epoch = max(w.epoch, state.Epoch)
	if w.epoch > epoch {
		return fmt.Errorf("%w: epoch %d is there", pipeline.ErrFenced, w.epoch)
	}
	return nil
}

// reset makes the next open begin anew.
func (w *writer) reset() {
	if w.x != nil {
		w.x.close()
		w.x = nil
	}
}

// fence shuts out whoever wrote before and makes the epoch known.
func (w *writer) fence(ctx context.Context, epoch uint64) error {
	if err := w.admit(w.state, epoch); err != nil {
		return err
	}
	w.reset()
	if err := w.open(ctx, epoch); err != nil {
		return err
	}
	if w.state.Epoch == epoch {
		return nil
	}
	next := w.state
	next.Version, next.Epoch = progressVersion, epoch
	err := w.commit(ctx, epoch, next, func(func(*kgo.Record) error) error { return nil })
	if errors.Is(err, pipeline.ErrInDoubt) {
		// Written twice, it says the same.
		err = fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	}
	return err
}

// land commits the batch, unless it is there.
func (w *writer) land(ctx context.Context, batch pipeline.BatchID, epoch uint64, piece pipeline.Piece) error {
	seq := batch.Seq()
	if found, err := w.state.find(seq, piece.PieceRef); err != nil || found > 0 {
		return err
	}
	return w.commit(ctx, epoch, w.state.with(epoch, seq, piece.PieceRef), func(emit func(*kgo.Record) error) error {
		return w.s.messages(batch, piece, emit)
	})
}

// commit writes what send emits and the progress record in one transaction.
func (w *writer) commit(ctx context.Context, epoch uint64, next progress, send func(emit func(*kgo.Record) error) error) error {
	value, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("BUG: encode progress: %w", err)
	}
	err = w.x.run(ctx, func(emit func(*kgo.Record) error) error {
		if err := send(emit); err != nil {
			return err
		}
		return emit(&kgo.Record{Topic: w.s.config.ProgressTopic, Key: []byte(progressKey(w.ledger, w.shard)), Value: value})
	})
	if err == nil {
		w.state = next
		w.epoch = max(w.epoch, next.Epoch)
		if w.x.unclear.Load() {
			w.reset()
		}
		return nil
	}
	w.reset()
	if errors.Is(err, errShutOut) {
		// The epoch tells by whom: a successor, or a late owner that stops by itself.
		if readErr := w.read(ctx, epoch); readErr != nil {
			return fmt.Errorf("%w: %w", readErr, err)
		}
		return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	}
	return err
}
