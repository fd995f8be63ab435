// Package world drives the pipeline through a simulated world: hub, blob service,
// ClickHouse, disk, processes and clocks, all of which go wrong as one seed decides.
//
// What flows in: a seed. What flows out: the book of what was written and what landed,
// judged by package audit, and a hash over everything that happened. The pipeline is
// the real one: engine.ByHand runs the code of the engine, the cores, the ledger, the
// decoders, the windows, the blob reader and the sweeper; the world carries out, late,
// twice or never, what goroutines and servers do otherwise.
//
// Time is simulated: what is due happens, in the order of its time, then of its making.
// There is no goroutine that runs beside another, no wall clock, no order of a map. The
// same seed gives the same hash.
package world

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/bench/simulation/audit"
	"github.com/millrace/millrace/bench/simulation/topic"
)

// Options of one run.
type Options struct {
	Seed uint64
	// Trace hears of everything that happens, one line each. Nil: nothing.
	Trace io.Writer
	// Draw, when set, changes what the seed has drawn, for tests of one kind of fault.
	Draw func(*Plan)
}

// Result of one run.
type Result struct {
	Seed    uint64
	Verdict audit.Verdict
	Book    audit.Book
	Kinds   [kinds]int
	Time    time.Duration // simulated
	Hash    uint64        // over everything that happened
	Panic   string        // a broken invariant of the pipeline ended the run
}

// Faults is how many there were.
func (r Result) Faults() int {
	n := 0
	for _, k := range r.Kinds {
		n += k
	}
	return n
}

// Bad says that the pipeline has broken a promise.
func (r Result) Bad() bool { return r.Panic != "" || !r.Verdict.Clean() }

// World is one run.
type World struct {
	rng   *rand.Rand
	plan  Plan
	epoch time.Time     // simulated wall clock at the beginning
	now   time.Duration // since then
	due   queue
	hash  uint64
	out   io.Writer
	ctx   context.Context //nolint:containedctx // the pipeline wants one everywhere; it never ends

	faulty   bool // faults happen still
	settling bool // ... and the pipeline is to finish
	count    [kinds]int

	blobs     *blobService
	hub       *hub
	target    *target
	cluster   *topic.Cluster
	lateEnds  map[string][]topic.Producer // requests to commit that are still on their way
	disk      *machine
	shared    *shared
	processes []*process

	book   audit.Book
	ledger manifests
	number uint64 // of the last tuple
	ended  bool
}

// Run runs the world of one seed to its end and judges it.
func Run(o Options) (r Result) {
	w := &World{
		rng: rand.New(rand.NewPCG(o.Seed, 0x6d696c6c72616365)), out: o.Trace, hash: 14695981039346656037, //nolint:gosec // reproducible on purpose
		ctx: context.Background(),
	}
	w.plan = draw(w.rng)
	if o.Draw != nil {
		o.Draw(&w.plan)
	}
	w.book.Seed = o.Seed
	r.Seed = o.Seed
	defer func() {
		if p := recover(); p != nil {
			r.Panic = fmt.Sprint(p)
			if o.Trace != nil {
				panic(p)
			}
		}
		r.Kinds, r.Time, r.Hash = w.count, w.now, w.hash
	}()
	w.build()
	w.live()
	w.settle()
	w.fill()
	r.Book = w.book
	r.Verdict = audit.Audit(w.book)
	return r
}

func (w *World) build() {
	hour := time.Duration(w.rng.IntN(24)) * time.Hour
	w.epoch = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).Add(hour + between(w.rng, 0, time.Hour))
	w.blobs, w.hub, w.target, w.disk = newBlobs(w), newHub(w), newTarget(w), newMachine(w)
	w.cluster, w.lateEnds = topic.New(w.plan.Bumps), map[string][]topic.Producer{}
	w.ledger = manifests{}
	w.shared = newShared(w)
	for i := range max(1, w.plan.Instances) {
		w.processes = append(w.processes, &process{w: w, name: fmt.Sprint("p", i)})
	}
	w.faulty = true
	w.blobs.begin()
	for _, p := range w.processes {
		p.start()
	}
	w.schedule()
}

// live runs until the generator has written for as long as the plan says.
func (w *World) live() { w.until(w.plan.Length) }

// until runs what is due up to a time.
func (w *World) until(end time.Duration) {
	for !w.ended {
		at, ok := w.due.next()
		if !ok || at > end {
			w.now = end
			return
		}
		w.step()
	}
}

func (w *World) step() {
	it := w.due.pop()
	w.now = it.at
	it.do()
}

// after lets something happen later.
func (w *World) after(d time.Duration, do func()) { w.due.push(w.now+max(d, 0), do) }

// wall is the true time.
func (w *World) wall() time.Time { return w.epoch.Add(w.now) }

// hit says whether a fault happens now, and counts it.
func (w *World) hit(k Kind) bool {
	rate := w.plan.Rates[k]
	if !w.faulty || rate == 0 || w.rng.Float64() >= rate {
		return false
	}
	w.fault(k, "")
	return true
}

// fault counts a fault.
func (w *World) fault(k Kind, where string) {
	w.count[k]++
	w.say("FAULT "+kindNames[k], where)
}

// say enters one thing that happens into the hash, and the trace.
func (w *World) say(what, where string, numbers ...int64) {
	h := w.hash
	mix := func(v uint64) { h = (h ^ v) * 1099511628211; h ^= h >> 29 }
	mix(uint64(w.now))
	for i := range len(what) {
		mix(uint64(what[i]))
	}
	for i := range len(where) {
		mix(uint64(where[i]))
	}
	for _, n := range numbers {
		mix(uint64(n))
	}
	w.hash = h
	if w.out != nil {
		fmt.Fprintf(w.out, "%s %-24s %s %v\n", w.wall().Format("02T15:04:05.000"), what, where, numbers)
	}
}

// between draws a time.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// delay draws how long something takes: mostly about as long as usual, now and then
// much longer.
func (w *World) delay(usual time.Duration) time.Duration {
	d := between(w.rng, usual/10, 2*usual)
	if w.rng.IntN(20) == 0 {
		d *= 10
	}
	return d
}
