//go:build mutants

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/millrace/millrace/pipeline/mutant"
)

// leastMutants is how many there are at least, each caught within the seeds of a hunt.
const leastMutants = 30

// catch is what became of one mutant.
type catch struct {
	mutant.Mutant
	Caught  bool
	Seeds   int // until it was caught, or tried in vain
	By      string
	Proof   string
	Reached int64 // how often its code was come to
}

// tally is the last line of the output.
type tally struct {
	Mutants int     `json:"mutants"`
	Caught  int     `json:"caught"`
	Max     int     `json:"max_seeds"` // of those that were caught
	Median  int     `json:"median_seeds"`
	Seconds float64 `json:"seconds"`
}

// mutants turns the named mutants on, one after the other, all of them when none is
// named, and tells which seed finds each. The exit code is 1 when one escapes.
func mutants(names []string, h hunt, out, log io.Writer) int {
	list, err := chosen(names)
	if err != nil {
		fmt.Fprintln(log, "simulation:", err)
		return 2
	}
	began := time.Now()
	defer mutant.Choose(mutant.None)
	fmt.Fprintf(out, "%-24s %5s  %-36s %s\n", "MUTANT", "SEEDS", "FOUND AS", "WHAT IT DOES")
	var t tally
	var needed []int
	for _, m := range list {
		c := h.catch(m)
		t.Mutants++
		by := "ESCAPED"
		if c.Caught {
			t.Caught++
			needed = append(needed, c.Seeds)
			by = c.By
		}
		fmt.Fprintf(out, "%-24s %5d  %-36s %s\n", c.Name, c.Seeds, by, c.What)
		if len(names) > 0 {
			fmt.Fprintf(out, "  its code ran %d times; %s\n", c.Reached, c.Proof)
		}
	}
	if len(needed) > 0 {
		slices.Sort(needed)
		t.Max, t.Median = needed[len(needed)-1], needed[len(needed)/2]
	}
	t.Seconds = time.Since(began).Seconds()
	line, err := json.Marshal(t)
	if err != nil {
		fmt.Fprintln(log, "simulation:", err)
		return 2
	}
	fmt.Fprintln(out, string(line))
	switch {
	case t.Caught < t.Mutants:
		fmt.Fprintf(log, "FAIL: %d mutants escaped\n", t.Mutants-t.Caught)
	case len(names) == 0 && t.Mutants < leastMutants:
		fmt.Fprintf(log, "FAIL: %d mutants, want at least %d\n", t.Mutants, leastMutants)
	default:
		return 0
	}
	return 1
}

func chosen(names []string) ([]mutant.Mutant, error) {
	if len(names) == 0 {
		return mutant.All, nil
	}
	var list []mutant.Mutant
	for _, name := range names {
		m, err := mutant.Named(name)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// catch looks for a seed that finds the mutant, and finds nothing without it.
func (h hunt) catch(m mutant.Mutant) catch {
	defer mutant.Choose(mutant.None)
	c := catch{Mutant: m}
	for from := h; ; {
		mutant.Choose(m.ID)
		r, seeds, found := from.run()
		c.Seeds, c.Reached = c.Seeds+seeds, mutant.Reached()
		if !found {
			return c
		}
		mutant.Choose(mutant.None)
		if !h.try(r.Seed).Bad() {
			c.Caught, c.By, c.Proof = true, kinds(r), fmt.Sprintf("seed %d: %s", r.Seed, proof(r))
			return c
		}
		from.first, from.seeds = r.Seed+1, h.seeds-c.Seeds
	}
}
