package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
)

// transactor writes under one transactional id, one transaction at a time. After
// any error it is spent: its owner closes it and begins a new one.
type transactor struct {
	client  *kgo.Client
	timeout time.Duration
	// unclear is set when some request got no answer. The client repeats it, so what
	// is committed is right; but the first copy may still be on its way, and on a
	// cluster with transaction.version below 2 it could end a later transaction.
	unclear atomic.Bool
}

// begin makes a transactor. When it returns, the open transaction of whoever wrote
// under the id before has ended, and that writer is shut out.
func begin(ctx context.Context, c Config, options []kgo.Opt, id string) (*transactor, error) {
	x := &transactor{timeout: c.TransactionTimeout}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.TransactionalID(id), kgo.TransactionTimeout(c.TransactionTimeout), kgo.WithHooks((*answers)(x)),
	}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("BUG: %w", err)
	}
	x.client = client
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	if _, _, err := client.ProducerID(bounded); err != nil {
		client.Close()
		if why := context.Cause(bounded); why != nil {
			err = why
		}
		return nil, fmt.Errorf("begin to write as %q: %w", id, classify(err))
	}
	return x, nil
}

func (x *transactor) close() { x.client.Close() }

// answers is a hook that notices requests without an answer.
type answers transactor

var _ kgo.HookBrokerE2E = (*answers)(nil)

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (a *answers) OnBrokerE2E(_ kgo.BrokerMetadata, _ int16, e2e kgo.BrokerE2E) {
	if e2e.Err() != nil {
		a.unclear.Store(true)
	}
}

// run makes one transaction of what send emits.
//
// Errors: errShutOut when another writer has begun, nothing is committed then;
// ErrInDoubt when the commit's answer is lost; any other says that nothing is
// committed, nor will be.
func (x *transactor) run(ctx context.Context, send func(emit func(*kgo.Record) error) error) error {
	// The broker ends the transaction after the timeout; there is no use in waiting.
	ctx, cancel := context.WithTimeoutCause(ctx, x.timeout, fmt.Errorf("not landed within the transaction timeout of %v", x.timeout))
	defer cancel()
	if err := x.client.BeginTransaction(); err != nil {
		return notCommitted(ctx, err)
	}
	var failed firstError
	promise := func(_ *kgo.Record, err error) { failed.set(err) }
	err := send(func(r *kgo.Record) error {
		x.client.Produce(ctx, r, promise)
		return failed.get()
	})
	if err == nil {
		err = x.client.Flush(ctx)
	}
	if cause := failed.get(); cause != nil {
		err = cause
	}
	if err != nil {
		return notCommitted(ctx, err)
	}
	switch err := x.client.EndTransaction(ctx, kgo.TryCommit); {
	case err == nil:
		return nil
	case errors.Is(err, kerr.OperationNotAttempted):
		return notCommitted(ctx, err)
	default:
		return fmt.Errorf("%w: commit: %w", pipeline.ErrInDoubt, err)
	}
}

// errShutOut says that another writer has begun under our transactional id.
var errShutOut = errors.New("another writer has begun")

func notCommitted(ctx context.Context, err error) error {
	switch why := context.Cause(ctx); {
	case shutOut(err):
		return fmt.Errorf("%w: %w", errShutOut, err)
	case why != nil:
		return fmt.Errorf("%w: %w", pipeline.ErrTransient, why)
	}
	return classify(err)
}

// firstError keeps the first error of many.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) set(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
