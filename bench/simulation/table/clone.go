package table

import (
	"fmt"
	"slices"
)

// Clone gives a server in the same state.
func (s *Server) Clone() *Server {
	c := *s
	c.runs, c.faults = slices.Clone(s.runs), slices.Clone(s.faults)
	c.tables = make(map[string]*contents, len(s.tables))
	for name, t := range s.tables {
		c.tables[name] = t.clone()
	}
	return &c
}

func (t *contents) clone() *contents {
	c := *t
	c.log = t.log.clone()
	c.parts = make([]*part, len(t.parts))
	for i, p := range t.parts {
		c.parts[i] = p.clone()
	}
	return &c
}

func (p *part) clone() *part {
	c := *p
	c.rows, c.seen = slices.Clone(p.rows), slices.Clone(p.seen)
	return &c
}

// State gives everything that the server has, as text: two servers of the same
// state behave alike.
func (s *Server) State() string {
	text := fmt.Sprint(s.down, s.now, s.faults)
	for _, r := range s.runs {
		text += fmt.Sprintf("\nrun %+v", *r)
	}
	for _, t := range s.sorted() {
		text += fmt.Sprintf("\n%s %d %d %d %d %+v", t.name, t.numbers, t.mutated, t.gone, t.limit, t.log)
		for _, p := range t.parts {
			text += fmt.Sprintf("\n\t%v %v %v %+v", p, p.synced, p.seen, p.rows)
		}
	}
	return text
}

// Outcomes gives every state in which a kill at any moment of the INSERT can leave
// the server, each once, down.
func (s *Server) Outcomes(in Insert) []*Server {
	var all []*Server
	states := map[string]bool{}
	keep := func(c *Server) {
		if state := c.State(); !states[state] {
			states[state] = true
			all = append(all, c)
		}
	}
	for number := range in.steps() {
		for at := BeforeToken; at <= BeforeAnswer; at++ {
			c := s.Clone()
			_ = c.InsertKilledIn(in, number, at) // It says what the sender sees.
			keep(c)
		}
	}
	return all
}
