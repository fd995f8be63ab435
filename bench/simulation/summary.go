package main

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/millrace/millrace/bench/simulation/world"
)

// What a full run proves at least.
const (
	fullSeeds  = 10_000
	leastFault = 1_000_000
	leastHours = 10_000
	leastKind  = 1_000
)

// summary is the last line of the output.
type summary struct {
	Seeds   int            `json:"seeds"`
	Hours   float64        `json:"hours"` // simulated
	Faults  int            `json:"faults"`
	Lost    int            `json:"lost"`
	Dup     int            `json:"dup"`
	Altered int            `json:"altered"`
	Stuck   int            `json:"stuck"`
	Windows int            `json:"windows"`
	Batches int            `json:"batches"`
	Acks    int            `json:"acks"`
	Panics  int            `json:"panics"`
	Tuples  int            `json:"tuples"`
	Seconds float64        `json:"seconds"`
	Trace   string         `json:"trace"` // hash over the seeds' hashes
	Kinds   map[string]int `json:"kinds"`

	bad  int
	time time.Duration
	hash uint64
}

func newSummary() *summary {
	return &summary{Kinds: map[string]int{}, hash: fnv.New64a().Sum64()}
}

func (s *summary) add(r world.Result) {
	s.Seeds++
	s.time += r.Time
	s.Faults += r.Faults()
	v := r.Verdict
	s.Lost, s.Dup, s.Altered, s.Stuck = s.Lost+v.Lost, s.Dup+v.Dup, s.Altered+v.Altered, s.Stuck+v.Stuck
	s.Windows, s.Batches, s.Acks = s.Windows+v.Windows, s.Batches+v.Batches, s.Acks+v.Acks
	s.Tuples += len(r.Book.Written)
	if r.Panic != "" {
		s.Panics++
	}
	if r.Bad() {
		s.bad++
	}
	for _, k := range world.Kinds() {
		s.Kinds[k.String()] += r.Kinds[k]
	}
	s.hash = (s.hash ^ r.Hash) * 1099511628211
}

func (s *summary) done() *summary {
	s.Hours = s.time.Hours()
	s.Trace = fmt.Sprintf("%016x", s.hash)
	return s
}

// misses says what the run does not prove.
func (s *summary) misses() []string {
	var all []string
	if s.bad > 0 {
		all = append(all, fmt.Sprintf("%d seeds broke a promise", s.bad))
	}
	if s.Seeds < fullSeeds {
		return all
	}
	if s.Faults < leastFault {
		all = append(all, fmt.Sprintf("%d faults, want %d", s.Faults, leastFault))
	}
	if s.Hours < leastHours {
		all = append(all, fmt.Sprintf("%.0f hours, want %d", s.Hours, leastHours))
	}
	for _, k := range world.Kinds() {
		if n := s.Kinds[k.String()]; n < leastKind {
			all = append(all, fmt.Sprintf("%d faults of kind %s, want %d", n, k, leastKind))
		}
	}
	return all
}
