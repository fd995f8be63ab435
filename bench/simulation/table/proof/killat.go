package main

import (
	"context"
	"slices"

	"github.com/millrace/millrace/bench/simulation/table"
)

// place is a system call of an INSERT to die at, and what that leaves.
type place struct {
	name, call string
	point      table.Point
}

var places = []place{
	{"before the token is written", "write", table.BeforeToken},
	{"before the part is renamed into its place", "rename", table.BetweenTokenAndPart},
	{"before the answer", "sendto", table.BeforeAnswer},
}

// killAt kills the server at a chosen system call of one script's INSERT; the others
// see a kill between statements.
func (g *group) killAt(ctx context.Context) ([][]pending, error) {
	after := make([][]pending, len(g.scripts))
	for _, i := range g.random.Perm(len(g.scripts)) {
		s := g.scripts[i]
		if s.diff != "" {
			continue
		}
		met, err := s.dieAt(ctx, places[g.random.IntN(len(places))])
		if err != nil {
			return nil, err
		}
		if met == nil {
			continue // Nothing would be written there.
		}
		after[i] = []pending{*met}
		g.sum.KillsDuring++
		g.sum.ExactKills++
		return after, nil
	}
	g.engine.kill()
	return after, nil
}

// dieAt runs an INSERT in which the server dies at the place. It gives nil, having
// done nothing, when the INSERT would not come there.
func (s *script) dieAt(ctx context.Context, at place) (*pending, error) {
	a := s.inserting()
	nth := 0
	if n := len(s.writes(a)); n > 0 && at.point != table.BeforeAnswer {
		nth = s.random.IntN(n)
	}
	return s.dieAtPart(ctx, a, at, nth)
}

// dieAtPart is dieAt for the nth of the parts that the INSERT writes.
func (s *script) dieAtPart(ctx context.Context, a inserting, at place, nth int) (*pending, error) {
	writes := s.writes(a)
	if len(writes) == 0 {
		return nil, nil
	}
	in, path := a.insert(), ""
	number := writes[nth]
	switch at.point {
	case table.BeforeToken:
		if path = s.db.tokenFile(in.Table); path == "" || in.Token == "" && !in.Content {
			return nil, nil
		}
	case table.BeforeAnswer:
		number = writes[len(writes)-1]
	case table.BetweenTokenAndPart, table.AfterPart:
	}
	t, err := s.db.engine.trap(ctx, at.call, nth+1, path)
	if err != nil {
		return nil, err
	}
	s.note("%s, killed at part %d of %d, %s", a, nth+1, len(writes), at.name)
	answer := a.run(ctx, s.db.overHTTP()) // Native TCP sends before the answer too.
	s.db.engine.kill()                    // It did not come to the place: then the kill is after the answer.
	t.remove()
	return &pending{action: a, answer: answer, exact: func(m *table.Server) {
		_ = m.InsertKilledIn(in, number, at.point) // It says what the sender sees.
	}}, nil
}

// writes gives the numbers of the parts that an INSERT would write, if all states of
// the model agree on them.
func (s *script) writes(a inserting) []int {
	var agreed []int
	for i, m := range s.models {
		numbers := m.Writes(a.insert())
		if i > 0 && !slices.Equal(agreed, numbers) {
			return nil
		}
		agreed = numbers
	}
	return agreed
}
