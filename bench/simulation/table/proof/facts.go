package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/millrace/millrace/bench/simulation/table"
)

// fact is something about ClickHouse that exactly-once has to know, as a script of
// its own. The numbers of those in reliability.md, section 4.5, are in their names.
type fact struct {
	name   string
	window int
	steps  []step
	// rows is how many rows the tables hold at the end.
	rows map[string]int
}

// step is an action, or something that befalls the server.
type step func(ctx context.Context, s *script) error

func act(all ...action) step {
	return func(ctx context.Context, s *script) error {
		for _, a := range all {
			if err := s.do(ctx, a); err != nil {
				return err
			}
		}
		return nil
	}
}

// restart kills the server between statements and starts it.
func restart(ctx context.Context, s *script) error {
	s.db.engine.kill()
	if err := s.db.engine.restart(ctx); err != nil {
		return err
	}
	return s.revive(ctx, nil)
}

// torn is a restart behind which the last record of the token log is cut.
func torn(ctx context.Context, s *script) error {
	s.db.engine.kill()
	if err := s.db.tear(windowed, 5); err != nil {
		return err
	}
	s.torn = true
	if err := s.db.engine.restart(ctx); err != nil {
		return err
	}
	return s.revive(ctx, nil)
}

// dies lets the server die in an INSERT, at a place of its nth part that is written.
func dies(a inserting, at place, nth int) step {
	return func(ctx context.Context, s *script) error {
		met, err := s.dieAtPart(ctx, a, at, nth)
		if err != nil {
			return err
		}
		if met == nil {
			return fmt.Errorf("%s does not come to the place", a)
		}
		if class := classOf(met.answer); class != table.InDoubt {
			return errors.Join(fmt.Errorf("%s: the server did not die", a), met.answer)
		}
		if err := s.db.engine.restart(ctx); err != nil {
			return err
		}
		return s.revive(ctx, []pending{*met})
	}
}

var (
	atWrite  = places[0]
	atRename = places[1]
	atAnswer = places[2]
)

// token gives an INSERT of rows 1, 2, ... on the days given, as one block.
func token(name string, on ...int) insertion {
	a := insertion{table: windowed, batch: 1, how: byToken, token: name, block: len(on)}
	for i, day := range on {
		a.rows = append(a.rows, row{day: day, v: uint64(i + 1)})
	}
	return a
}

func (a insertion) in(name string) insertion   { a.table = name; return a }
func (a insertion) blocks(rows int) insertion  { a.block = rows; return a }
func (a insertion) by(how tokens) insertion    { a.how = how; return a }
func (a insertion) content(v uint64) insertion { a.rows = []row{{a.rows[0].day, v, 0}}; return a }
func owner(epoch, seq uint64, v ...int) landing {
	a := landing{table: plain, batch: newBatch(0, seq), epoch: epoch}
	for _, v := range v {
		a.rows = append(a.rows, row{v: uint64(v)})
	}
	return a
}

func owned(l landing, pad int, m manner) holding {
	for i := range l.rows {
		l.rows[i].pad = pad
	}
	return holding{landing: l, manner: m, epoch: l.epoch + 1}
}

func others(n int) []action {
	all := make([]action, n)
	for i := range all {
		all[i] = token(fmt.Sprintf("other %d", i), 3)
	}
	return all
}

// facts are the first cases of the proof.
var facts = []fact{
	{"C1: a kill between token and part loses the row for ever", 100, []step{
		dies(token("a", 0), atRename, 0), act(token("a", 0)), restart, act(token("a", 0)),
	}, map[string]int{windowed: 0}},
	{"C1: of three partitions the one before the kill and the one behind it land, the one in the middle never", 100, []step{
		dies(token("a", 0, 1, 2), atRename, 1), act(token("a", 0, 1, 2)),
	}, map[string]int{windowed: 2}},
	{"C1: a kill before the token leaves nothing, and the retry lands", 100, []step{
		act(token("other", 3)), dies(token("a", 0), atWrite, 0), act(token("a", 0)),
	}, map[string]int{windowed: 2}},
	{"C1: a kill before the answer leaves all, and the retry does nothing", 100, []step{
		dies(token("a", 0, 1), atAnswer, 0), act(token("a", 0, 1)),
	}, map[string]int{windowed: 2}},
	{"C2: a torn record swallows those that follow, so that retries are duplicates", 100, []step{
		act(token("a", 0)), torn, act(token("b", 1), token("b", 1)), restart, act(token("a", 0), token("b", 1)),
	}, map[string]int{windowed: 4}},
	{"C3: the table as the sink makes it has a window of 0, which deduplicates nothing", 100, []step{
		act(token("a", 0).in(plain), token("a", 0).in(plain)),
	}, map[string]int{plain: 2}},
	{"C4: the window counts blocks of partitions: 2 is too few for three", 2, []step{
		act(token("a", 0, 1, 2), token("a", 0, 1, 2)),
	}, map[string]int{windowed: 6}},
	{"C4: the window is one queue of the table: five other tokens push one out of 5", 5, []step{
		act(token("a", 0)), act(others(5)...), act(token("a", 0)),
	}, map[string]int{windowed: 7}},
	{"C4: four do not", 5, []step{
		act(token("a", 0)), act(others(4)...), act(token("a", 0)),
	}, map[string]int{windowed: 5}},
	{"C6: the same token with other content is dropped in silence", 100, []step{
		act(token("a", 0), token("a", 0).content(7)),
	}, map[string]int{windowed: 1}},
	{"C7: one block, retried as two: half of it twice", 100, []step{
		act(token("a", 0, 0, 0, 0), token("a", 0, 0, 0, 0).blocks(2)),
	}, map[string]int{windowed: 6}},
	{"C7: two blocks, retried as one: dropped", 100, []step{
		act(token("a", 0, 0, 0, 0).blocks(2), token("a", 0, 0, 0, 0)),
	}, map[string]int{windowed: 4}},
	{"C7: two blocks, killed behind the first, retried as one: half of it lost", 100, []step{
		dies(token("a", 0, 0, 0, 0).blocks(2), atRename, 1), act(token("a", 0, 0, 0, 0)),
	}, map[string]int{windowed: 2}},
	{"C8: on a live server a retry completes the missing partitions", 100, []step{
		act(token("a", 0), token("a", 0, 1, 2)),
	}, map[string]int{windowed: 3}},
	{"C9: DROP PARTITION forgets the tokens of its parts", 100, []step{
		act(token("a", 0), dropPartition(windowed, 0), token("a", 0)),
	}, map[string]int{windowed: 1}},
	{"C9: but not a token whose part never came about", 100, []step{
		act(token("b", 0)), dies(token("a", 0), atRename, 0), act(dropPartition(windowed, 0), token("a", 0), token("b", 0)),
	}, map[string]int{windowed: 1}},
	{"C9: ALTER DELETE does not forget", 100, []step{
		act(token("a", 0, 0), deleteRest(windowed, 2, 0), token("a", 0, 0)), restart, act(token("a", 0, 0)),
	}, map[string]int{windowed: 1}},
	{"C9: ALTER DELETE of whole parts forgets, once they are cleaned away", 100, []step{
		act(token("a", 0), deleteRest(windowed, 1, 0), token("a", 0), dropPartition(windowed, 3), token("a", 0)),
	}, map[string]int{windowed: 1}},
	{"C9: TRUNCATE forgets", 100, []step{
		act(token("a", 0), truncate(windowed), token("a", 0)),
	}, map[string]int{windowed: 1}},
	{"C9: a merge does not forget, and dropping what was merged does", 100, []step{
		act(token("a", 0), token("b", 0), merge(windowed, 0), token("a", 0), dropPartition(windowed, 0), token("b", 0)),
	}, map[string]int{windowed: 1}},
	{"C14: a first try without deduplication leaves no token", 100, []step{
		act(token("a", 0).by(off), token("a", 0), token("a", 0)),
	}, map[string]int{windowed: 2}},
	{"tokens survive a kill between statements", 100, []step{
		act(token("a", 0)), restart, act(token("a", 0)),
	}, map[string]int{windowed: 1}},
	{"rows themselves are a token where none is given, by the number of their block", 100, []step{
		act(token("", 0, 0).by(byContent).blocks(1), token("", 0, 0).by(byContent).blocks(1), token("", 0).by(byContent)),
	}, map[string]int{windowed: 2}},
	{"a window that was 0 for a while has its tokens back after a restart", 100, []step{
		act(token("a", 0), setWindow(windowed, 0), setWindow(windowed, 100), token("a", 0)), restart, act(token("a", 0)),
	}, map[string]int{windowed: 2}},
	{"drops count in the token log: a start may know less than the window", 2, []step{
		act(token("a", 0), token("b", 0), token("c", 1), dropPartition(windowed, 1)),
		act(token("d", 2), dropPartition(windowed, 2), token("e", 2), dropPartition(windowed, 2), token("b", 0)), restart, act(token("b", 0)),
	}, map[string]int{windowed: 3}},
	{"an INSERT is refused behind a higher epoch, not behind its own", 0, []step{
		act(raising{0, 2}, owner(2, 1, 1), owner(1, 2, 2), raising{0, 1}, raising{0, 2}, raising{0, 3}, owner(2, 3, 3)),
	}, map[string]int{plain: 1}},
	{"the fence waits for an INSERT that runs, which lands", 0, []step{
		act(raising{0, 2}, owned(owner(2, 1, 1, 2, 3), heavyPad, fenced), owner(2, 2, 4)),
	}, map[string]int{plain: 3}},
	{"an INSERT that arrives after its sender was fenced is refused", 0, []step{
		act(raising{0, 2}, owned(owner(2, 1, 1), 0, late)),
	}, map[string]int{plain: 0}},
	{"an INSERT whose connection breaks in the middle leaves nothing", 0, []step{
		act(owned(owner(1, 1, 1, 2, 3), heavyPad, cut), owner(1, 1, 1, 2, 3)),
	}, map[string]int{plain: 3}},
	{"an INSERT whose answer is lost has landed", 0, []step{
		act(owned(owner(1, 1, 1), 0, mute)),
	}, map[string]int{plain: 1}},
	{"a piece is there or not, by the place of the kill", 0, []step{
		act(raising{0, 2}), dies(owner(2, 1, 1), atRename, 0), act(owner(2, 1, 1)), dies(owner(2, 2, 2), atAnswer, 0),
	}, map[string]int{plain: 2}},
	{"too many parts: refused, nothing written; behind the fence", 0, []step{
		act(raising{0, 2}, owner(2, 1, 1), setLimit(plain, 1), owner(2, 2, 2), owner(1, 3, 3), setLimit(plain, unlimited), owner(2, 2, 2)),
	}, map[string]int{plain: 2}},
}

// check runs the fact in a database of its own.
func (f fact) check(ctx context.Context, e *engine, name string) (err error) {
	g := newGenerator(1)
	g.window = f.window
	s := &script{generator: g}
	if err := s.open(ctx, e, name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.db.drop(ctx)) }()
	for _, do := range f.steps {
		if err := do(ctx, s); err != nil {
			return err
		}
		if s.diff != "" {
			return errors.New(s.diff)
		}
	}
	for t, want := range f.rows {
		if have := len(s.models[0].Rows(t)); have != want {
			return fmt.Errorf("table %s has %d rows, want %d: %q", t, have, want, s.models[0].Rows(t))
		}
	}
	return nil
}

// checkFacts runs all of them on one server.
func checkFacts(ctx context.Context, o options, out io.Writer, sum *summary) (err error) {
	dir, err := os.MkdirTemp("", "millrace-proof-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e, err := startEngine(ctx, o.bin, o.lib, dir)
	if err != nil {
		return err
	}
	defer func() { e.ch.Kill() }()
	for i, f := range facts {
		sum.Facts++
		if err := f.check(ctx, e, fmt.Sprintf("fact_%d", i)); err != nil {
			sum.Differences++
			fmt.Fprintf(out, "fact %q: %v\n", f.name, err)
		}
	}
	sum.Kills, sum.Restarts = sum.Kills+e.kills, sum.Restarts+e.restarts
	return nil
}
