package world

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/millrace/millrace/bench/simulation/disk"
	"github.com/millrace/millrace/pipeline"
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
	clock clock

	alive bool // there is a process
	up    bool // ... which runs an engine
	body  int  // rises with every process
	life  int  // rises with every engine: what was begun before does not come back

	frozen   bool
	backlog  []func() // what happens when it is woken
	fuse     int      // it dies at this point of its own doing; 0: it does not
	unsynced bool     // ... but not before a file has a name that is only in the page cache
	before   string   // the last point
	routines []*routine
	running  *routine // the one that runs now

	mount   *disk.Mount   // where the ledger is a folder
	lease   *ledger.Lease // where it is shared
	epoch   uint64
	engine  *engine.ByHand
	sweeper *listing.Source
	writes  [][]write // of each shard to the ledger, in order
	writing bool
	reads   [][]read // of each shard, whose chunks wait
	next    []int64  // message of each partition
	marks   []*lowwater.Tracker[int64]
	topics  []*transactor // of each shard

	failures int // starts in a row that went wrong
	last     error
	draining bool
	final    bool // what it drains to is the end of the input
	drained  bool
}

// point is a place where the process can die, before it does what is named there.
func (p *process) point(what string) {
	before := p.before
	p.before = what
	switch {
	case p.fuse == 0:
		return
	case p.fuse > 1:
		p.fuse--
		return
	case p.unsynced && before != "link":
		return
	}
	p.fuse = 0
	p.w.fault(ProcessKilledInside, p.name)
	if p.unsynced {
		p.w.powerSoon()
	}
	if p.mount != nil {
		p.mount.Unmount() // nothing that is deferred happens any more
	}
	panic(killed{})
}

// run lets the process do something, in which it may die.
func (p *process) run(f func()) {
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
		case killed:
			p.kill()
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

// end is the end of a process, whatever its cause.
func (p *process) end() {
	p.body++
	p.alive, p.frozen, p.backlog, p.fuse, p.lease = false, false, nil, 0, nil
	p.quit()
	if p.mount != nil {
		p.mount.Unmount()
	}
	p.w.say("ended", p.name)
}

// quit is the end of an engine.
func (p *process) quit() {
	p.life++
	p.up, p.draining, p.writing = false, false, false
	p.unwind()
}

func (p *process) kill() {
	p.end()
	p.restart()
}

// restart is what a supervisor does.
func (p *process) restart() {
	body := p.body
	p.w.after(between(p.w.rng, 500*time.Millisecond, 10*time.Second), func() {
		if p.body == body && !p.alive {
			p.start()
		}
	})
}

// temporary matches names that differ from run to run.
var temporary = regexp.MustCompile(`[0-9]+-[0-9]+\.tmp`)

// exit is an end of its own accord. The owner of a shared ledger who met the traces of
// an older one goes on under the next epoch.
func (p *process) exit(err error) {
	p.w.say("exit", p.name+": "+temporary.ReplaceAllString(err.Error(), "TEMPORARY"))
	if p.up && p.lease != nil && errors.Is(err, pipeline.ErrFenced) {
		p.raise()
		return
	}
	if !p.up && !errors.Is(err, pipeline.ErrFenced) {
		p.failures++
		p.last = err
		if p.w.disk.restore() {
			p.failures = 0
		}
	}
	p.kill()
}

// raise takes the next epoch and opens the engine again.
func (p *process) raise() {
	p.quit()
	var err error
	p.routine(func() { err = p.lease.Raise(p.w.ctx) }, func() {
		if err != nil {
			p.exit(err)
			return
		}
		p.open()
	})
}

func (p *process) freeze() {
	p.frozen = true
	body := p.body
	p.w.after(between(p.w.rng, time.Second, 5*time.Minute), func() {
		if p.body == body {
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
	if now := p.w.owner(); p.up && now != nil && now != p {
		p.w.fault(LateOwner, p.name)
	}
	p.frozen = false
	backlog := p.backlog
	p.backlog = nil
	slow := between(p.w.rng, 0, 3*time.Second)
	for _, f := range backlog {
		p.after(between(p.w.rng, 0, slow), f)
	}
}

// start begins a new process.
func (p *process) start() {
	p.w.say("start", p.name, int64(p.body))
	p.alive = true
	p.run(p.open)
}

// open begins a new engine.
func (p *process) open() {
	var err error
	p.routine(func() { err = p.assemble() }, func() {
		if err != nil {
			p.exit(err)
			return
		}
		p.began()
	})
}

// began: the engine is there.
func (p *process) began() {
	p.up, p.failures = true, 0
	p.w.say("up", p.name)
	if p.lease != nil {
		var err error
		p.routine(func() { err = p.lease.Keep(p.w.ctx) }, func() {
			p.w.say("lost", p.name+": "+fmt.Sprint(err))
			p.kill()
		})
	}
	for id := range p.engine.Shards() {
		if p.up {
			p.step(id, shard.Tick{})
		}
	}
	if p.up {
		p.listen()
		p.sweep()
		p.tick()
	}
}

func (p *process) now() time.Time { return p.clock.time(p.w) }

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

// finished: if all shards have drained, the process ends.
func (p *process) finished() {
	for id := range p.engine.Shards() {
		if stopped, err := p.engine.Stopped(id); !stopped || err != nil {
			return
		}
	}
	p.saveMarks()
	p.w.say("drained", p.name)
	if p.final {
		p.drained = true
		p.end()
		return
	}
	lease := p.lease
	p.quit()
	if lease == nil {
		p.kill()
		return
	}
	p.routine(func() { _ = lease.Release(p.w.ctx) }, p.kill) // or the next owner waits
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
