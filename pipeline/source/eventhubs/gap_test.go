package eventhubs_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// TestExpired: the position is older than what the hub keeps.
func TestExpired(t *testing.T) {
	s := startHub(t, nil)
	u := newSetup(t, s)
	publish(t, s, 1, names("a", 5)...)
	first := newCollector(all)
	r := u.run(t, first)
	first.waitFor(t, 5)
	if err := errors.Join(r.stop(), r.Flush(context.Background())); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 1, names("b", 10)...)
	if err := s.Expire(hub, 1, 8); err != nil {
		t.Fatal(err)
	}
	second := newCollector(all)
	r = u.run(t, second)
	second.waitFor(t, 7)
	if diff := cmp.Diff(names("b", 10)[3:], second.names()); diff != "" {
		t.Error(diff)
	}
	u.wantGap(t, eventhubs.Gap{Partition: "1", Reason: eventhubs.GapExpired, After: 4, Missing: 3})

	// All expire while the source is away; the next start finds an empty partition.
	if err := errors.Join(r.stop(), r.Flush(context.Background())); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 1, "lost", "lost-too")
	if err := s.Expire(hub, 1, 100); err != nil {
		t.Fatal(err)
	}
	third := newCollector(all)
	u.run(t, third)
	u.wantGap(t, eventhubs.Gap{Partition: "1", Reason: eventhubs.GapExpired, After: 14, Missing: 2})
	publish(t, s, 1, "next")
	third.waitFor(t, 1)
}

func (u *setup) wantGap(t testing.TB, want eventhubs.Gap) {
	t.Helper()
	select {
	case got := <-u.gaps:
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	case <-time.After(wait):
		t.Errorf("no gap reported, want %+v", want)
	}
	if len(u.gaps) > 0 {
		t.Errorf("one more gap %+v", <-u.gaps)
	}
}

// TestRecreated: the hub was made anew while the source was away (its sequence
// numbers are below the position, or above it again), and while it reads.
func TestRecreated(t *testing.T) {
	for _, refilled := range []int{3, 30} {
		t.Run(fmt.Sprint(refilled, " messages since"), func(t *testing.T) {
			s := startHub(t, nil)
			u := newSetup(t, s)
			publish(t, s, 0, names("old", 10)...)
			first := newCollector(all)
			r := u.run(t, first)
			first.waitFor(t, 10)
			if err := errors.Join(r.stop(), r.Flush(context.Background())); err != nil {
				t.Fatal(err)
			}
			if err := s.Recreate(hub); err != nil {
				t.Fatal(err)
			}
			publish(t, s, 0, names("new", refilled)...)
			second := newCollector(all)
			r = u.run(t, second)
			second.waitFor(t, refilled)
			if diff := cmp.Diff(names("new", refilled), second.names()); diff != "" {
				t.Error(diff)
			}
			u.wantGap(t, eventhubs.Gap{Partition: "0", Reason: eventhubs.GapRecreated, After: 9, Missing: -1})

			if err := s.Recreate(hub); err != nil {
				t.Fatal(err)
			}
			publish(t, s, 0, "newest")
			second.waitFor(t, refilled+1)
			u.wantGap(t, eventhubs.Gap{Partition: "0", Reason: eventhubs.GapRecreated, After: int64(refilled - 1), Missing: -1})
			if err := errors.Join(r.stop(), r.Flush(context.Background())); err != nil {
				t.Fatal(err)
			}
			if got := u.stored(t)["0"].Sequence; got != 0 {
				t.Errorf("checkpoint %d, want 0: the one of the hub's present life", got)
			}
		})
	}
}

// TestRecreatedWhileIdle: a refusal before the first message is not the end.
func TestRecreatedWhileIdle(t *testing.T) {
	s := startHub(t, nil)
	u := newSetup(t, s)
	c := newCollector(all)
	u.run(t, c)
	for s.Stats().ConnectionsTotal < 2 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // until the links are there
	if err := s.Recreate(hub); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 0, "a")
	c.waitFor(t, 1)
	if len(u.gaps) > 0 {
		t.Errorf("gap %+v in a hub of which nothing was read", <-u.gaps)
	}
}

// TestOldAcknowledgements: those of a former life of the hub move nothing.
func TestOldAcknowledgements(t *testing.T) {
	s := startHub(t, nil)
	u := newSetup(t, s)
	publish(t, s, 0, names("old", 10)...)
	c := newCollector(none)
	r := u.run(t, c)
	c.waitFor(t, 10)
	if err := s.Recreate(hub); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 0, "new-0", "new-1")
	c.waitFor(t, 12)
	for _, n := range append(names("old", 10), "new-0") {
		c.acknowledge(n)
	}
	if err := errors.Join(r.stop(), r.Flush(context.Background())); err != nil {
		t.Fatal(err)
	}
	if got := u.stored(t)["0"].Sequence; got != 0 {
		t.Errorf("checkpoint %d, want 0", got)
	}
}
