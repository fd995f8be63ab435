package main

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/bench/simulation/audit"
	"github.com/millrace/millrace/bench/simulation/world"
)

// The first bad seed is the answer, however many workers there are.
func TestHunt(t *testing.T) {
	try := func(seed uint64) world.Result {
		r := world.Result{Seed: seed}
		if seed == 17 || seed == 18 || seed == 30 {
			r.Verdict = audit.Verdict{Lost: 2, Stuck: 1, Findings: []string{fmt.Sprint("found in ", seed)}}
		}
		return r
	}
	for workers := range 8 {
		r, seeds, found := hunt{first: 10, seeds: 100, workers: workers, try: try}.run()
		if !found || seeds != 8 || r.Seed != 17 {
			t.Errorf("%d workers: seed %d after %d seeds, found %t; want seed 17 after 8", workers, r.Seed, seeds, found)
		}
		if got := kinds(r) + "; " + proof(r); got != "lost 2, stuck 1; found in 17" {
			t.Errorf("it says %q", got)
		}
		if _, seeds, found := (hunt{first: 31, seeds: 100, workers: workers, try: try}).run(); found || seeds != 100 {
			t.Errorf("%d workers: found %t after %d seeds where there is nothing", workers, found, seeds)
		}
	}
}
