package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/millrace/millrace/bench/simulation/table"
)

// group is some scripts on one server.
type group struct {
	options
	out     io.Writer
	first   uint64
	size    int
	sum     *summary
	engine  *engine
	random  *rand.Rand
	scripts []*script
	mu      sync.Mutex
}

func (g *group) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "millrace-proof-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if g.engine, err = startEngine(ctx, g.bin, g.lib, dir); err != nil {
		return err
	}
	defer func() { g.engine.ch.Kill() }()
	g.random = rand.New(rand.NewPCG(g.first, 6))
	if err := g.open(ctx); err != nil {
		return err
	}
	for range g.rounds {
		if err := g.each(func(s *script) error { return g.play(ctx, s) }); err != nil {
			return err
		}
		if err := g.event(ctx); err != nil {
			return err
		}
	}
	err = g.each(func(s *script) error { return errors.Join(g.play(ctx, s), s.db.close()) })
	g.tally()
	return err
}

func (g *group) open(ctx context.Context) error {
	g.scripts = make([]*script, g.size)
	for i := range g.scripts {
		seed := g.first + uint64(i)
		s := &script{seed: seed, generator: newGenerator(seed)}
		if g.trace {
			s.log = g.print
		}
		g.scripts[i] = s
	}
	return g.each(func(s *script) error { return s.open(ctx, g.engine, fmt.Sprintf("script_%d", s.seed)) })
}

// open makes database and model.
func (s *script) open(ctx context.Context, e *engine, name string) error {
	m := table.New(table.Options{Tokens: table.TokenFirst})
	for _, t := range []string{plain, windowed} {
		m.CreateWindow(t, windowOf(t, s.window))
	}
	s.models = []*table.Server{m}
	var err error
	s.db, err = openDatabase(ctx, e, name, s.window, s.seed%2 == 1)
	return err
}

func (g *group) print(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintf(g.out, format, args...)
}

// each runs something for all scripts, some at once.
func (g *group) each(do func(s *script) error) error {
	faults := make([]error, len(g.scripts))
	var wg sync.WaitGroup
	free := make(chan struct{}, g.workers)
	for i, s := range g.scripts {
		free <- struct{}{}
		wg.Go(func() {
			faults[i] = do(s)
			<-free
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// play takes a few steps.
func (g *group) play(ctx context.Context, s *script) error {
	for range 3 + s.random.IntN(4) {
		for _, a := range s.next() {
			if err := s.do(ctx, a); err != nil {
				return fmt.Errorf("script %d: %s: %w", s.seed, a, err)
			}
		}
	}
	return nil
}

// event ends a round: the server goes down in one way or another and comes back.
func (g *group) event(ctx context.Context) error {
	var err error
	var after [][]pending
	switch n := g.random.IntN(10); {
	case n < 1:
		err = g.stop(ctx)
	case n < 2:
		g.engine.kill()
	case n < 6:
		after, err = g.killDuring(ctx)
	default:
		after, err = g.killAt(ctx)
	}
	if err != nil {
		return err
	}
	if after == nil {
		after = make([][]pending, len(g.scripts))
	}
	if err := g.whileDown(ctx); err != nil {
		return err
	}
	if err := g.engine.restart(ctx); err != nil {
		return err
	}
	place := map[*script]int{}
	for i, s := range g.scripts {
		place[s] = i
	}
	return g.each(func(s *script) error { return s.revive(ctx, after[place[s]]) })
}

// pending is an action that the end of the server met.
type pending struct {
	action action
	answer error
	// exact gives the state that a kill at a chosen point leaves; nil when any is
	// possible.
	exact func(m *table.Server)
}

// stop ends the server softly: nothing may be lost.
func (g *group) stop(ctx context.Context) error {
	for _, s := range g.scripts {
		if err := s.db.close(); err != nil { // Idle connections would hold it back.
			return err
		}
	}
	return g.engine.stop(ctx)
}

// killDuring kills the server at a random moment, while all scripts insert.
func (g *group) killDuring(ctx context.Context) ([][]pending, error) {
	after := make([][]pending, len(g.scripts))
	var wg sync.WaitGroup
	for i, s := range g.scripts {
		switch {
		case s.diff != "":
		case s.chance(5):
			a := s.dying()
			after[i] = []pending{{action: a, exact: (*table.Server).Kill}}
			h, err := a.begin(ctx, s.db.overHTTP(), listedAfter)
			if err != nil {
				return nil, err
			}
			defer h.end()
			if err := h.listed(ctx, s.db); err != nil {
				return nil, err
			}
			wg.Go(func() { after[i][0].answer = <-h.landed })
		default:
			a := s.mortal()
			after[i] = []pending{{action: a}}
			wg.Go(func() { after[i][0].answer = a.run(ctx, s.db) })
		}
		g.sum.KillsDuring += len(after[i])
	}
	select { // The random moment.
	case <-time.After(time.Duration(g.random.IntN(20_000)) * time.Microsecond):
	case <-ctx.Done():
	}
	g.engine.kill()
	wg.Wait()
	return after, nil
}

// whileDown lets scripts find the server down, and tears token logs.
func (g *group) whileDown(ctx context.Context) error {
	return g.each(func(s *script) error {
		if s.diff != "" {
			return nil
		}
		if s.chance(10) {
			a := s.landing()
			if err := a.run(ctx, s.db); classOf(err) != table.Transient {
				s.differ(a.String()+" while the server is down", fmt.Sprintf("class %v: %v", classOf(err), err), table.Transient.String())
			}
		}
		if !s.chance(15) {
			return nil
		}
		s.torn = true
		return s.db.tear(windowed, 1+s.random.Int64N(8))
	})
}

// revive compares after a restart.
func (s *script) revive(ctx context.Context, met []pending) error {
	if s.diff != "" {
		return nil
	}
	if err := s.db.follow(); err != nil {
		return err
	}
	torn := s.torn
	s.torn = false
	what := "restart"
	if torn {
		what = "torn token log, restart"
	}
	up := func(o outcome) []outcome {
		o.model.Kill()
		if torn {
			o.model.TearTokens(windowed)
		}
		o.model.Restart()
		return opened(o)
	}
	if len(met) == 0 {
		return s.compare(ctx, what, nil, func(m *table.Server) []outcome { return up(outcome{m, table.Landed}) })
	}
	p := met[0]
	class := classOf(p.answer)
	err := s.compare(ctx, fmt.Sprintf("killed: %s, %s", p.action, what), p.answer, func(m *table.Server) []outcome {
		var all []outcome
		for _, o := range p.states(m, class) {
			all = append(all, up(o)...)
		}
		return all
	})
	if err != nil || s.diff != "" {
		return err
	}
	if in, is := p.action.(inserting); is {
		return s.probe(ctx, in)
	}
	return nil
}

// states gives what the end of the server may leave, by what the sender saw.
func (p pending) states(m *table.Server, class table.Class) []outcome {
	unheard := class == table.InDoubt
	if _, fence := p.action.(raising); fence {
		unheard = class == table.Transient // The sink raises it again, whatever became of it.
	}
	in, insert := p.action.(inserting)
	switch {
	case unheard && p.exact != nil:
		p.exact(m)
		return []outcome{{m, class}}
	case unheard:
		all := []outcome{{m.Clone(), class}} // It never arrived.
		if !insert {
			_ = p.action.model(m) // Or it did.
			return append(all, outcome{m, class})
		}
		for _, c := range m.Outcomes(in.insert()) {
			all = append(all, outcome{c, class})
		}
		return all
	case class == table.Transient:
		return []outcome{{m, class}} // Nothing was sent, or it was refused.
	}
	return []outcome{{m, table.ClassOf(p.action.model(m))}}
}

// tally counts what the group did and prints differences.
func (g *group) tally() {
	g.sum.Kills += g.engine.kills
	g.sum.Restarts += g.engine.restarts
	for _, s := range g.scripts {
		g.sum.Scripts++
		g.sum.Statements += s.steps
		if s.diff != "" {
			g.sum.Differences++
			g.print("%s\nafter (window %d):\n", s.diff, s.window)
			for _, line := range s.trail {
				g.print("  %s\n", line)
			}
			g.print("again: -first %d -scripts %d -group %[2]d\n", g.first, g.size)
		}
	}
}
