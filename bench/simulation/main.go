// Command simulation runs the pipeline through simulated worlds, one a seed, and judges
// what each has left.
//
//	simulation -seeds 10000 -first 1     many; the last line is one JSON object
//	simulation -seed 17 -trace           one, told line by line
//	simulation -mutants -seeds 500       seeded bugs, each of which a seed must find
//
// The exit code is 1 when anything was lost, doubled, altered or stuck, or when the
// seeds together prove too little.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/millrace/millrace/bench/simulation/world"
)

func main() { os.Exit(run()) }

func run() int {
	seeds := flag.Int("seeds", 100, "how many `seeds` to run")
	first := flag.Uint64("first", 1, "the first `seed`")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "seeds at one `time`")
	one := flag.Uint64("seed", 0, "run this `seed` alone")
	trace := flag.Bool("trace", false, "with -seed: tell everything that happens")
	profile := flag.String("profile", "", "write a CPU profile to this `file`")
	hunting := flag.Bool("mutants", false, "find the mutants that are named, or all of them")
	flag.Parse()
	debug.SetGCPercent(400)
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			fmt.Fprintln(os.Stderr, "simulation:", err)
			return 2
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			fmt.Fprintln(os.Stderr, "simulation:", err)
			return 2
		}
		defer pprof.StopCPUProfile()
	}
	if *one > 0 {
		*first, *seeds, *workers = *one, 1, 1
	}
	if *hunting {
		try := func(seed uint64) world.Result { return world.Run(world.Options{Seed: seed}) }
		return mutants(flag.Args(), hunt{first: *first, seeds: *seeds, workers: *workers, try: try}, os.Stdout, os.Stderr)
	}
	var out io.Writer
	if *trace && *one > 0 {
		out = os.Stdout
	}
	s := newSummary()
	most := 3 // findings that are told of a seed
	if *one > 0 {
		most = 1000
	}
	began := time.Now()
	all(*first, *seeds, *workers, out, func(r world.Result) {
		s.add(r)
		if r.Bad() {
			tell(os.Stderr, r, most)
		}
		if n := s.Seeds; n%500 == 0 {
			fmt.Fprintf(os.Stderr, "%d seeds, %d faults, %d bad, %.0f s\n", n, s.Faults, s.bad, time.Since(began).Seconds())
		}
	})
	s.Seconds = time.Since(began).Seconds()
	line, err := json.Marshal(s.done())
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulation:", err)
		return 2
	}
	fmt.Println(string(line))
	for _, why := range s.misses() {
		fmt.Fprintln(os.Stderr, "FAIL:", why)
	}
	if len(s.misses()) > 0 {
		return 1
	}
	return 0
}

// all runs the seeds, several at a time, and gives the results in the order of the
// seeds.
func all(first uint64, seeds, workers int, trace io.Writer, each func(world.Result)) {
	results := make([]chan world.Result, seeds)
	for i := range results {
		results[i] = make(chan world.Result, 1)
	}
	next := make(chan int)
	var group sync.WaitGroup
	for range max(workers, 1) {
		group.Go(func() {
			for i := range next {
				results[i] <- world.Run(world.Options{Seed: first + uint64(i), Trace: trace})
			}
		})
	}
	go func() {
		for i := range seeds {
			next <- i
		}
		close(next)
	}()
	for _, r := range results {
		each(<-r)
	}
	group.Wait()
}

// tell says what is wrong with a seed, and how to see it again.
func tell(to io.Writer, r world.Result, most int) {
	v := r.Verdict
	fmt.Fprintf(to, "seed %d: lost %d, doubled %d, altered %d, stuck %d, windows %d, batches %d, early acknowledgements %d\n",
		r.Seed, v.Lost, v.Dup, v.Altered, v.Stuck, v.Windows, v.Batches, v.Acks)
	if r.Panic != "" {
		fmt.Fprintln(to, "  panic:", r.Panic)
	}
	for i, f := range v.Findings {
		if i == most {
			break
		}
		fmt.Fprintln(to, "  "+f)
	}
	fmt.Fprintf(to, "  again: go run ./bench/simulation -seed %d -trace\n", r.Seed)
}
