package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/bench/simulation/table"
)

// maxModels bounds how many states of the model are followed at once.
const maxModels = 64

// script is one random script with its database and the states that the model may
// be in. It has ended when it differs.
type script struct {
	seed uint64
	*generator
	db     *database
	models []*table.Server
	trail  []string
	steps  int
	torn   bool // the token log was torn while the server was down
	diff   string
	log    func(format string, args ...any)
}

// outcome is a state of the model after a step, with what the sender saw.
type outcome struct {
	model *table.Server
	class table.Class
}

// do takes a step on both sides and compares.
func (s *script) do(ctx context.Context, a action) error {
	if s.diff != "" {
		return nil
	}
	err := a.run(ctx, s.db)
	if strange, is := err.(contradiction); is { //nolint:errorlint // it is never wrapped
		s.differ(a.String(), strange.Error(), "")
		return nil
	}
	if err := s.compare(ctx, a.String(), err, func(m *table.Server) []outcome {
		o := outcome{m, table.ClassOf(a.model(m))}
		if _, is := a.(reattach); is {
			return opened(o)
		}
		return []outcome{o}
	}); err != nil || s.diff != "" {
		return err
	}
	if in, is := a.(inserting); is {
		return s.probe(ctx, in)
	}
	return nil
}

// opened gives the states of a server whose tables were just opened: each with and
// without remnants of removed parts.
func opened(o outcome) []outcome {
	all := []outcome{o}
	for _, t := range []string{plain, windowed} {
		for _, before := range slices.Clone(all) {
			if c := before.model.Clone(); c.Remnants(t) {
				all = append(all, outcome{c, before.class})
			}
		}
	}
	return all
}

// compare follows the states that agree with what the engine answered and shows.
func (s *script) compare(ctx context.Context, what string, answer error, next func(m *table.Server) []outcome) error {
	s.steps++
	class := classOf(answer)
	seen, err := s.db.look(ctx)
	if err != nil {
		return fmt.Errorf("script %d: look after %s: %w", s.seed, what, err)
	}
	s.note("%s -> %v", what, class)
	var left []*table.Server
	var expected []string
	states := map[string]bool{}
	for _, m := range s.models {
		for _, o := range next(m.Clone()) {
			if o.class != class {
				expected = append(expected, "class "+o.class.String())
				continue
			}
			agreed, shown := s.agree(o.model, seen)
			if !agreed {
				expected = append(expected, distance(shown, seen))
				continue
			}
			if state := o.model.State(); !states[state] {
				states[state] = true
				left = append(left, o.model)
			}
		}
	}
	if len(left) == 0 {
		have := fmt.Sprintf("class %v", class)
		if answer != nil {
			have += ": " + answer.Error()
		}
		s.differ(what, have, strings.Join(slices.Compact(expected), "\n  or "))
		return nil
	}
	if len(left) > maxModels {
		return fmt.Errorf("script %d: %d states of the model after %s, want at most %d", s.seed, len(left), what, maxModels)
	}
	s.models = left
	return nil
}

// agree says whether the model shows what was seen, at once or when parts without
// rows have been cleaned away, which the engine does when it likes, one by one.
func (s *script) agree(m *table.Server, seen []string) (bool, []string) {
	shown := s.db.view(m)
	if slices.Equal(shown, seen) {
		return true, shown
	}
	for _, t := range s.db.live {
		_ = m.CleanSome(t, func(name string) bool { // The table is there, as it was seen.
			return !slices.Contains(seen, "part "+t+" "+name)
		})
	}
	return slices.Equal(s.db.view(m), seen), shown
}

// distance tells the lines by which two views differ.
func distance(want, have []string) string {
	var lines []string
	count := func(all []string) map[string]int {
		n := map[string]int{}
		for _, line := range all {
			n[line]++
		}
		return n
	}
	w, h := count(want), count(have)
	for _, line := range slices.Sorted(maps.Keys(w)) {
		if n := w[line] - h[line]; n > 0 {
			lines = append(lines, fmt.Sprintf("%d more of %q", n, line))
		}
	}
	for _, line := range slices.Sorted(maps.Keys(h)) {
		if n := h[line] - w[line]; n > 0 {
			lines = append(lines, fmt.Sprintf("%d fewer of %q", n, line))
		}
	}
	return strings.Join(lines, ", ")
}

// probe compares counts by batch and partition.
func (s *script) probe(ctx context.Context, a inserting) error {
	name, batch := a.probed()
	if !slices.Contains(s.db.live, name) {
		return nil
	}
	have, err := s.db.probe(ctx, name, batch)
	if err != nil {
		return fmt.Errorf("script %d: probe after %s: %w", s.seed, a, err)
	}
	for _, m := range s.models {
		if want := m.Count(name, uint64(batch)); !maps.Equal(want, have) {
			s.differ("probe after "+a.String(), fmt.Sprint(have), fmt.Sprint(want))
		}
	}
	return nil
}

func (s *script) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	s.trail = append(s.trail, line)
	if s.log != nil {
		s.log("script %d: %s\n", s.seed, line)
	}
}

func (s *script) differ(what, have, want string) {
	s.diff = fmt.Sprintf("script %d differs at %s\nengine: %s\nmodel:  %s", s.seed, what, have, want)
}

// contradiction is an answer of the engine that no state of the model gives.
type contradiction string

func (c contradiction) Error() string { return string(c) }
