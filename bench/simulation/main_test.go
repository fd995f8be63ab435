package main

import (
	"runtime"
	"testing"

	"github.com/millrace/millrace/bench/simulation/world"
)

// Law: whatever dies, is lost, comes late or twice, at the end every tuple has landed
// exactly once, every window is right, and nothing was acknowledged before it was
// durable. `make sim` runs more seeds.
func TestExactlyOnce(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 30
	}
	s := newSummary()
	all(1, seeds, runtime.GOMAXPROCS(0), nil, func(r world.Result) {
		s.add(r)
		if r.Bad() {
			tell(t.Output(), r, 3)
			t.Fail()
		}
	})
	if s.Faults < 100*seeds || s.done().Hours < float64(seeds) {
		t.Errorf("%d faults in %.0f simulated hours: the seeds prove too little", s.Faults, s.Hours)
	}
	for _, k := range world.Kinds() {
		if s.Kinds[k.String()] == 0 && !testing.Short() {
			t.Errorf("no fault of kind %v", k)
		}
	}
}

// The same seeds give the same hash, however many run at one time.
func TestDeterminism(t *testing.T) {
	run := func(workers int) (string, []uint64) {
		s := newSummary()
		var hashes []uint64
		all(1000, 16, workers, nil, func(r world.Result) {
			s.add(r)
			hashes = append(hashes, r.Hash)
		})
		return s.done().Trace, hashes
	}
	one, hashes := run(1)
	four, again := run(4)
	for i, h := range hashes {
		if h != again[i] {
			t.Errorf("seed %d gives %x, then %x", 1000+i, h, again[i])
		}
	}
	if one != four {
		t.Errorf("the hash over all seeds is %s with one worker, %s with four", one, four)
	}
}
