package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/bench/simulation/world"
)

// hunt is how seeds are searched for one that finds something.
type hunt struct {
	first   uint64
	seeds   int // at most
	workers int
	try     func(seed uint64) world.Result
}

// run gives the result of the first seed that is bad, and how many seeds there were up
// to it; false when none of them is. The answer does not depend on the workers.
func (h hunt) run() (r world.Result, seeds int, found bool) {
	var (
		next  atomic.Int64
		group sync.WaitGroup
		mu    sync.Mutex
		bad   = map[int64]world.Result{}
		least atomic.Int64 // of the bad ones
	)
	least.Store(int64(h.seeds))
	for range max(h.workers, 1) {
		group.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= least.Load() {
					return
				}
				r := h.try(h.first + uint64(i))
				if !r.Bad() {
					continue
				}
				mu.Lock()
				bad[i] = r
				least.Store(min(least.Load(), i))
				mu.Unlock()
			}
		})
	}
	group.Wait()
	i := least.Load()
	if r, found = bad[i]; !found {
		return r, h.seeds, false
	}
	return r, int(i) + 1, true
}

// kinds names what a bad result has broken.
func kinds(r world.Result) string {
	v := r.Verdict
	var names []string
	for _, k := range []struct {
		name string
		n    int
	}{
		{"lost", v.Lost},
		{"dup", v.Dup},
		{"altered", v.Altered},
		{"windows", v.Windows},
		{"batches", v.Batches},
		{"early ack", v.Acks},
		{"stuck", v.Stuck},
	} {
		if k.n > 0 {
			names = append(names, fmt.Sprintf("%s %d", k.name, k.n))
		}
	}
	if r.Panic != "" {
		names = append(names, "panic")
	}
	return strings.Join(names, ", ")
}

// proof gives the first thing that was found, in one line.
func proof(r world.Result) string {
	if r.Panic != "" {
		line, _, _ := strings.Cut(r.Panic, "\n")
		return line
	}
	if len(r.Verdict.Findings) == 0 {
		return ""
	}
	return r.Verdict.Findings[0]
}
