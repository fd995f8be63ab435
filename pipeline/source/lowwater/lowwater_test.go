package lowwater

import (
	"context"
	"math/rand/v2"
	"testing"
)

// TestTrackerAgainstModel compares the mark with its definition, step by step, on
// random orders.
func TestTrackerAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		tr := New[int64](1000)
		var begun []*Message[int64]
		isDone := map[int64]bool{}
		next := int64(random.IntN(100))
		for range 400 {
			if len(begun) == 0 || random.IntN(2) == 0 {
				m, err := tr.Begin(t.Context(), next)
				if err != nil {
					t.Fatal(err)
				}
				begun = append(begun, m)
				next += 1 + int64(random.IntN(3)) // gaps are allowed
			} else {
				m := begun[random.IntN(len(begun))] // some more than once
				tr.Done(m)
				isDone[m.position] = true
			}
			want, waiting := int64(-1), 0
			for _, m := range begun {
				if !isDone[m.position] {
					break
				}
				want = m.position
				waiting++
			}
			waiting = len(begun) - waiting
			got, ok := tr.Mark()
			if ok != (want >= 0) || ok && got != want || tr.Waiting() != waiting || len(tr.slots) != waiting {
				t.Fatalf("seed %d: mark %d %v, waiting %d; want %d, %d", seed, got, ok, tr.Waiting(), want, waiting)
			}
		}
	}
}

func TestTrackerBlocksAtTheLimit(t *testing.T) {
	tr := New[int64](1)
	first, err := tr.Begin(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tr.Begin(ctx, 2); err == nil {
		t.Error("a message above the limit has begun")
	}
	tr.Done(first)
	if _, err := tr.Begin(t.Context(), 2); err != nil {
		t.Error(err)
	}
}
