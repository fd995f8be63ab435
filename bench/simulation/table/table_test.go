package table

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func insert(token string, rows ...Row) Insert {
	return Insert{Query: token, Table: "t", Partition: "a", Batch: 1, Rows: rows, Token: token}
}

// A kill between token and part loses, doubles or does neither, by the order.
func TestKillBetweenTokenAndPart(t *testing.T) {
	for mode, want := range map[TokenLog]int64{None: 1, TokenFirst: 0, PartFirst: 2, Torn: 1} {
		s := New(Options{Tokens: mode, Window: 10})
		s.Create("t")
		if err := s.InsertKilled(insert("x", "1"), BetweenTokenAndPart); ClassOf(err) != InDoubt {
			t.Fatal(err)
		}
		if err := s.Insert(insert("x", "1")); ClassOf(err) != Transient {
			t.Fatal(err)
		}
		s.Restart()
		if err := s.Insert(insert("x", "1")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.Count("t", 1)["a"], want); diff != "" {
			t.Errorf("order %d: %s", mode, diff)
		}
	}
}

func TestWindowIsOneQueue(t *testing.T) {
	s := New(Options{Tokens: TokenFirst, Window: 2})
	s.Create("t")
	in := Insert{Table: "t", Batch: 1, Token: "x", Blocks: [][]Part{{{"a", []Row{"1"}}, {"b", []Row{"2"}}, {"c", []Row{"3"}}}}}
	for range 2 {
		if err := s.Insert(in); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(s.Count("t", 1), map[string]int64{"a": 2, "b": 2, "c": 2}); diff != "" {
		t.Error(diff)
	}
}

func TestFenceWaitsForWhatRuns(t *testing.T) {
	s := New(Options{})
	s.Create("t")
	old, late := insert("old", "1"), insert("late", "2")
	old.Epoch, late.Epoch = 1, 1
	for _, err := range []error{s.Fence(0, 0, 1), s.Begin(old), s.Fence(0, 0, 2)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(s.Running(0, 0, 2), []string{"old"}); diff != "" {
		t.Error(diff)
	}
	if err := s.Insert(late); !errors.Is(err, ErrFenced) {
		t.Errorf("late INSERT: %v", err)
	}
	if err := s.End("old"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Rows("t"), []Row{"1"}); diff != "" || len(s.Running(0, 0, 2)) > 0 {
		t.Error(diff)
	}
}

func TestEveryClassOfAnInsert(t *testing.T) {
	for name, c := range map[string]struct {
		before func(s *Server)
		want   Class
		rows   int // afterwards
	}{
		"landed":           {func(*Server) {}, Landed, 1},
		"fenced":           {func(s *Server) { _ = s.Fence(0, 0, 2) }, Fenced, 0},
		"down":             {func(s *Server) { s.Kill() }, Transient, 0},
		"read-only":        {func(s *Server) { s.Refuse(ErrReadOnly, 1) }, Transient, 0},
		"lost, unwritten":  {func(s *Server) { s.Doubt(ErrLost, false) }, InDoubt, 0},
		"memory, written":  {func(s *Server) { s.Doubt(ErrMemory, true) }, InDoubt, 1},
		"unknown status":   {func(s *Server) { s.Doubt(ErrUnknownStatus, true) }, InDoubt, 1},
		"no right":         {func(s *Server) { s.Refuse(ErrAccess, 1) }, Fatal, 0},
		"table is gone":    {func(s *Server) { _ = s.Drop("t") }, Fatal, 0},
		"too many parts":   {func(s *Server) { _ = s.Limit("t", 1); s.tables["t"].parts = []*part{{seen: []bool{true}}} }, Transient, 0},
		"healed in time":   {func(s *Server) { s.Refuse(ErrNoSpace, 3); s.Heal() }, Landed, 1},
		"behind a restart": {func(s *Server) { s.Refuse(ErrNoSpace, 3); s.Restart() }, Landed, 1},
	} {
		s := New(Options{})
		s.Create("t")
		c.before(s)
		in := insert("x", "1")
		in.Epoch = 1
		if got := ClassOf(s.Insert(in)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := len(s.Rows("t")); got != c.rows {
			t.Errorf("%s: %d rows, want %d", name, got, c.rows)
		}
	}
}

// What runs when the server dies, or when its client goes, writes nothing.
func TestRunningInsertsEnd(t *testing.T) {
	for name, end := range map[string]func(s *Server){
		"kill":   func(s *Server) { s.Restart() },
		"cancel": func(s *Server) { s.Cancel("x") },
	} {
		s := New(Options{})
		s.Create("t")
		if err := s.Begin(insert("x", "1")); err != nil || !s.Runs("x") {
			t.Fatal(err)
		}
		if err := s.Begin(insert("x", "1")); !errors.Is(err, ErrQueryRuns) {
			t.Errorf("%s: the same query again: %v", name, err)
		}
		end(s)
		if err := s.End("x"); ClassOf(err) == Landed || s.Runs("x") || len(s.Rows("t")) > 0 {
			t.Errorf("%s: %v, rows %q", name, err, s.Rows("t"))
		}
	}
}

// Without fsync, acknowledged parts and the fence go with the power, until the kernel
// has written them.
func TestPowerLoss(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		flush   bool
		rows    int
		fenced  bool
	}{
		"fsync":          {Options{}, false, 1, true},
		"no fsync":       {Options{NoFsync: true}, false, 0, false},
		"written anyhow": {Options{NoFsync: true}, true, 1, true},
	} {
		s := New(c.options)
		s.Create("t")
		late := insert("late", "2")
		late.Epoch = 1
		for _, err := range []error{s.Insert(insert("x", "1")), s.Fence(0, 0, 2)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if c.flush {
			s.Flush()
		}
		s.PowerLoss(nil)
		s.Restart()
		if got := len(s.Rows("t")); got != c.rows {
			t.Errorf("%s: %d rows, want %d", name, got, c.rows)
		}
		if err := s.Insert(late); errors.Is(err, ErrFenced) != c.fenced {
			t.Errorf("%s: late INSERT: %v", name, err)
		}
	}
}

// The token log is never synced: with fsync of parts, a loss of power forgets tokens.
func TestPowerLossForgetsTokens(t *testing.T) {
	s := New(Options{Tokens: TokenFirst, Window: 10})
	s.Create("t")
	for range 2 {
		if err := s.Insert(insert("x", "1")); err != nil {
			t.Fatal(err)
		}
		s.PowerLoss(nil)
		s.Restart()
	}
	if diff := cmp.Diff(s.Rows("t"), []Row{"1", "1"}); diff != "" {
		t.Error(diff)
	}
}

// Replicas lag; tokens are shared, end by age, and are written with their parts or
// not at all.
func TestReplicas(t *testing.T) {
	s := New(Options{Tokens: TokenFirst, Window: 10, Replicas: 2, TokenLifeMS: 1000})
	s.Create("t")
	retry := func(want int) {
		t.Helper()
		if err := s.Insert(insert("x", "1")); err != nil {
			t.Fatal(err)
		}
		if got := len(s.Rows("t")); got != want {
			t.Errorf("%d rows, want %d", got, want)
		}
	}
	_ = s.InsertKilled(insert("x", "1"), BetweenTokenAndPart)
	s.Restart()
	retry(1)
	if got := s.CountAt(1, "t", 1); len(got) > 0 {
		t.Errorf("a replica that lags shows %v", got)
	}
	s.Sync(1)
	if diff := cmp.Diff(s.CountAt(1, "t", 1), map[string]int64{"a": 1}); diff != "" {
		t.Error(diff)
	}
	s.Now(999)
	retry(1)
	s.Now(1000)
	retry(2)
	s.Burn(insert("y", "2"))
	if err := s.Insert(insert("y", "2")); err != nil || len(s.Rows("t")) != 2 {
		t.Errorf("a token whose part was taken back: %v, rows %q", err, s.Rows("t"))
	}
}

// A clone goes its own way, and equal states say so.
func TestClone(t *testing.T) {
	s := New(Options{Tokens: TokenFirst, Window: 2})
	s.Create("t")
	_ = s.Insert(insert("x", "1"))
	c := s.Clone()
	if s.State() != c.State() {
		t.Error("a clone differs")
	}
	_ = c.Insert(insert("y", "2"))
	_ = c.Merge("t", "a")
	_ = c.Delete("t", func(r Row) bool { return r == "1" })
	if diff := cmp.Diff(s.Rows("t"), []Row{"1"}); diff != "" || s.State() == c.State() {
		t.Error(diff)
	}
	if got := len(s.Outcomes(Insert{Table: "t", Token: "z", Blocks: [][]Part{{{"a", []Row{"3"}}, {"b", []Row{"4"}}}}})); got != 5 {
		t.Errorf("%d outcomes of a kill in an INSERT of two parts, want 5", got)
	}
}
