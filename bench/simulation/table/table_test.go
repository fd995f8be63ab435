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
