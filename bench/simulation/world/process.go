package world

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/millrace/millrace/bench/simulation/disk"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/shard"
	"github.com/millrace/millrace/pipeline/source/listing"
	"github.com/millrace/millrace/pipeline/source/lowwater"
)

// killed unwinds a process that dies within a call.
type killed struct{}

// process is one instance of the pipeline, life after life.
type process struct {
	w     *World
	name  string
	life  int // rises with every end: what was begun before does not come back
	up    bool
	clock clock

	frozen  bool
	backlog []func() // what happens when it is woken
	fuse    int      // it dies at this point of its own doing; 0: it does not

	mount   *disk.Mount
	engine  *engine.ByHand
	sweeper *listing.Source
	writes  [][]write // of each shard to the ledger, in order
	reads   [][]read  // of each shard, whose chunks wait
	next    []int64   // message of each partition
	marks   []*lowwater.Tracker[int64]

	failures int // starts in a row that went wrong
	last     error
	draining bool
	drained  bool
}

func newProcess(w *World) *process { return &process{w: w, name: "p"} }

// point is a place where the process can die.
func (p *process) point(string) {
	if p.fuse == 0 {
		return
	}
	if p.fuse--; p.fuse == 0 {
		p.w.fault(ProcessKilledInside, p.name)
		if p.mount != nil {
			p.mount.Unmount() // nothing that is deferred happens any more
		}
		panic(killed{})
	}
}

// run lets the process do something, in which it may die.
func (p *process) run(f func()) {
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
		case killed:
			p.end()
			p.restart()
		default:
			panic(r)
		}
	}()
	f()
}

// after lets the process do something later, if it lives then.
func (p *process) after(d time.Duration, f func()) {
	life := p.life
	p.w.after(d, func() { p.resume(life, f) })
}

func (p *process) resume(life int, f func()) {
	switch {
	case p.life != life:
	case p.frozen:
		p.backlog = append(p.backlog, f)
	default:
		p.run(f)
	}
}

// end is the end of a life, whatever its cause.
func (p *process) end() {
	p.life++
	p.up, p.frozen, p.backlog, p.fuse, p.draining = false, false, nil, 0, false
	if p.mount != nil {
		p.mount.Unmount()
	}
	p.w.say("ended", p.name)
}

func (p *process) kill() {
	p.end()
	p.restart()
}

// restart is what a supervisor does.
func (p *process) restart() {
	life := p.life
	p.w.after(between(p.w.rng, 500*time.Millisecond, 10*time.Second), func() {
		if p.life == life {
			p.start()
		}
	})
}

// temporary matches names that differ from run to run.
var temporary = regexp.MustCompile(`[0-9]+-[0-9]+\.tmp`)

// exit is an end of its own accord.
func (p *process) exit(err error) {
	p.w.say("exit", temporary.ReplaceAllString(err.Error(), "TEMPORARY"))
	if !p.up {
		p.failures++
		p.last = err
		if p.w.disk.restore() {
			p.failures = 0
		}
	}
	p.end()
	p.restart()
}

func (p *process) freeze() {
	p.frozen = true
	life := p.life
	p.w.after(between(p.w.rng, time.Second, 5*time.Minute), func() {
		if p.life == life {
			p.thaw()
		}
	})
}

// thaw wakes a frozen process: everything that had come to it meanwhile comes at once.
func (p *process) thaw() {
	if !p.frozen {
		return
	}
	p.w.say("thaw", p.name)
	p.frozen = false
	backlog := p.backlog
	p.backlog = nil
	for _, f := range backlog {
		p.after(between(p.w.rng, 0, 10*time.Millisecond), f)
	}
}

// start begins a new life.
func (p *process) start() {
	p.w.say("start", p.name, int64(p.life))
	p.run(func() {
		if err := p.open(); err != nil {
			p.exit(err)
			return
		}
		p.up, p.failures = true, 0
		for id := range p.engine.Shards() {
			p.step(id, shard.Tick{})
		}
		p.tick()
		p.listen()
		p.sweep()
	})
}

func (p *process) open() error {
	w := p.w
	p.mount = w.disk.mount(p)
	store, err := ledger.OpenDirectoryOn(p.mount, state)
	if err != nil {
		return err
	}
	fresh := ledger.Info{Shards: w.plan.Shards, Created: w.epoch, Start: w.epoch.Add(-time.Hour)}
	book, err := ledger.Open(w.ctx, store, fresh, ledger.OneLedger(1))
	if err != nil {
		return err
	}
	w.ledger.adopt(w.disk)
	shards := book.Info().Shards
	p.writes, p.reads = make([][]write, shards), make([][]read, shards)
	p.engine, err = engine.NewByHand(w.ctx, engine.Config{Shard: w.plan.Core, Tick: w.plan.Tick}, p.parts(book), p)
	if err != nil {
		return err
	}
	cfg := listing.DefaultConfig(book.Info().Start, listing.Container{Account: account, Container: container})
	cfg.Interval, cfg.Discover, cfg.Workers, cfg.Now = w.plan.Sweep, 6*w.plan.Sweep, 1, p.now
	p.sweeper, err = listing.New(cfg, w.blobs)
	return err
}

func (p *process) now() time.Time { return p.clock.time(p.w) }

func (p *process) parts(book *ledger.Ledger) engine.Parts {
	cfg := blob.DefaultConfig(decode.SplitRecords)
	cfg.ChunkBytes, cfg.MaxTries = p.w.plan.Chunk, p.w.plan.Tries
	cfg.BackoffMin, cfg.BackoffMax, cfg.RetryAfterMax = 1, 1, 1
	reader, err := blob.New(cfg, p.w.blobs)
	if err != nil {
		panic(err)
	}
	return engine.Parts{
		Ledger: book, Reader: reader, Checkpoints: sink{p}, Sinks: []engine.NamedSink{{Sink: sink{p}}}, Now: p.now,
		Operators: func() ([]pipeline.Operator, error) {
			op, err := window.New(p.w.plan.Windows, nil)
			return []pipeline.Operator{op}, err
		},
	}
}

// step passes an event to a shard, then does what follows from it at once.
func (p *process) step(id int, ev shard.Event) {
	p.engine.Step(p.w.ctx, id, ev)
	p.flush(id)
}

// flush gives a shard the chunks that it has room for, and notices its end.
func (p *process) flush(id int) {
	p.takeChunks(id)
	stopped, err := p.engine.Stopped(id)
	switch {
	case !stopped:
	case err != nil:
		p.exit(err)
	default:
		p.finished()
	}
}

// finished: all shards have drained.
func (p *process) finished() {
	for id := range p.engine.Shards() {
		if stopped, err := p.engine.Stopped(id); !stopped || err != nil {
			return
		}
	}
	p.saveMarks()
	p.drained = true
	p.w.say("drained", p.name)
	p.end()
	if !p.w.settling {
		p.drained = false
		p.restart()
	}
}

// tick lets the shards look at the clock, often while they have something to do.
func (p *process) tick() {
	busy := false
	for id := range p.engine.Shards() {
		p.step(id, shard.Tick{})
		if !p.up {
			return
		}
		s := p.engine.Status(id)
		busy = busy || !s.Live || s.Queued+s.Reading+s.InFlight > 0 || s.OpenBytes > 0
	}
	wait := p.w.plan.Tick
	switch {
	case busy:
	case p.w.now > p.w.plan.Length && !p.w.settling:
		wait = max(wait, 30*time.Second)
	default:
		wait = max(wait, 3*time.Second)
	}
	p.after(wait, p.tick)
}

// quiet says that the process has nothing to do.
func (p *process) quiet() bool {
	if !p.up || p.frozen {
		return false
	}
	for id := range p.engine.Shards() {
		if s := p.engine.Status(id); !s.Live || s.Queued+s.Reading+s.InFlight > 0 || s.OpenBytes > 0 {
			return false
		}
	}
	return true
}

// forgot says that no recovery will read the blob again.
func (p *process) forgot(id pipeline.BlobID) bool {
	return p.quiet() && !p.w.ledger.needs(p.w.disk, id)
}

// drain is the soft stop of the engine; with endOfInput after a last look at
// everything.
func (p *process) drain(endOfInput bool) {
	p.draining = true
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
