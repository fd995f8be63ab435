package world

import (
	"testing"
	"time"
)

// only lets no other faults happen than these.
func only(rates map[Kind]float64, gaps map[Kind]time.Duration) func(*Plan) {
	return func(p *Plan) {
		p.Rates, p.Gaps = [kinds]float64{}, [kinds]time.Duration{}
		for k, r := range rates {
			p.Rates[k] = r
		}
		for k, g := range gaps {
			p.Gaps[k] = g
		}
	}
}

// Each of these once broke a promise.
func TestRegressions(t *testing.T) {
	for _, c := range []struct {
		name  string
		seeds int
		draw  func(*Plan)
	}{
		{
			// The clock was a day ahead for a while: the sweeper took the present hours for
			// settled, and never listed them again.
			"sweeper and a clock set ahead", 12,
			only(map[Kind]float64{EventLost: 1}, map[Kind]time.Duration{ClockJumped: 5 * time.Minute}),
		},
		{
			// The folder of a fresh ledger, and objects that a killed process had linked and
			// not synced, were lost with the power.
			"loss of power behind a kill", 12,
			only(nil, map[Kind]time.Duration{ProcessKilledInside: time.Minute, PowerLost: 2 * time.Minute}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := range c.seeds {
				if r := Run(Options{Seed: uint64(seed + 1), Draw: c.draw}); r.Bad() {
					t.Errorf("seed %d: %s %v", r.Seed, r.Panic, r.Verdict.Findings[:min(1, len(r.Verdict.Findings))])
				}
			}
		})
	}
}
