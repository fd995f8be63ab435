package world

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/shard"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// assemble opens the ledger and puts an engine together, as a start of the program
// does.
func (p *process) assemble() error {
	w := p.w
	book, err := p.openLedger()
	if err != nil {
		return err
	}
	w.ledger.adopt(w.objects())
	shards := book.Info().Shards
	p.writes, p.reads = make([][]write, shards), make([][]read, shards)
	p.transactors(shards)
	p.engine, err = engine.NewByHand(w.ctx, engine.Config{Shard: w.plan.Core, Tick: w.plan.Tick}, p.parts(book), p)
	if err != nil {
		return err
	}
	cfg := listing.DefaultConfig(book.Info().Start, listing.Container{Account: account, Container: container})
	cfg.Interval, cfg.Discover, cfg.Workers, cfg.Now = w.plan.Sweep, 6*w.plan.Sweep, 1, p.now
	p.sweeper, err = listing.New(cfg, w.blobs)
	return err
}

// openLedger takes the ledger over, once it may.
func (p *process) openLedger() (*ledger.Ledger, error) {
	w := p.w
	fresh := ledger.Info{Shards: w.plan.Shards, Created: w.epoch, Start: w.epoch.Add(-time.Hour)}
	if w.plan.Instances == 0 {
		p.mount = w.disk.mount(p)
		store, err := ledger.OpenDirectoryOn(p.mount, state)
		if err != nil {
			return nil, err
		}
		return ledger.Open(w.ctx, store, fresh, ledger.OneLedger(1))
	}
	if p.lease == nil {
		cfg := ledger.OwnerConfig{Instance: fmt.Sprint(p.name, ".", p.body), Expiry: w.plan.Expiry, Clock: leaseClock{p}}
		lease, err := ledger.Own(w.ctx, remote{w.shared, p, p.body}, cfg, func(ledger.Owner) {})
		if err != nil {
			return nil, err
		}
		p.lease = lease
	}
	p.epoch = p.lease.Epoch()
	w.say("owns", p.name, int64(p.epoch))
	return ledger.OpenOwned(w.ctx, p.lease, fresh, ledger.OneLedger(1))
}

func (p *process) parts(book *ledger.Ledger) engine.Parts {
	cfg := blob.DefaultConfig(decode.SplitRecords)
	cfg.ChunkBytes, cfg.MaxTries = p.w.plan.Chunk, p.w.plan.Tries
	cfg.BackoffMin, cfg.BackoffMax, cfg.RetryAfterMax = 1, 1, 1
	reader, err := blob.New(cfg, p.w.blobs)
	if err != nil {
		panic(err)
	}
	sinks := []engine.NamedSink{{Sink: sink{p}}}
	if p.w.plan.Topic {
		sinks = append(sinks, engine.NamedSink{Name: kafkaName, Sink: kafkaSink{p}})
	}
	return engine.Parts{
		Ledger: book, Reader: reader, Checkpoints: sink{p}, Sinks: sinks, Now: p.now,
		Operators: func() ([]pipeline.Operator, error) {
			op, err := window.New(p.w.plan.Windows, nil)
			return []pipeline.Operator{op}, err
		},
	}
}

// drain is the soft stop of the engine; with endOfInput after a last look at
// everything.
func (p *process) drain(endOfInput bool) {
	p.draining, p.final = true, endOfInput
	if endOfInput {
		if err := p.pass(p.sweeper.Sweep); err != nil {
			p.draining = false
			return
		}
	}
	for id := range p.engine.Shards() {
		p.step(id, shard.Drain{EndOfInput: endOfInput})
		if !p.up {
			return
		}
	}
}

// pressed: a read waits for memory.
func (p *process) pressed() {
	for id := range p.engine.Shards() {
		if p.up {
			p.step(id, shard.Pressure{})
		}
	}
}

// pass lists once and passes on what was found.
func (p *process) pass(list func(context.Context, func(context.Context, pipeline.Delivery) error) error) error {
	var found []pipeline.Delivery
	err := list(p.w.ctx, func(_ context.Context, d pipeline.Delivery) error {
		found = append(found, d)
		return nil
	})
	for _, d := range found {
		if !p.up {
			return errors.New("ended")
		}
		p.emit(d)
	}
	return err
}

// emit passes a delivery to the engine.
func (p *process) emit(d pipeline.Delivery) {
	_ = p.engine.Emit(p.w.ctx, d) // it has no reason to fail: nobody cancels
	for id := range p.engine.Shards() {
		if p.up {
			p.flush(id)
		}
	}
}

// sweep lists from time to time.
func (p *process) sweep() {
	p.after(p.w.plan.Sweep, func() {
		if !p.draining {
			_ = p.pass(p.sweeper.Pass) // it goes on at the next pass
		}
		if p.up {
			p.sweep()
		}
	})
}
