package topic_test

import (
	"errors"
	"testing"

	"github.com/millrace/millrace/bench/simulation/topic"
)

// A request to commit that comes late ends the next transaction where epochs do not
// rise, half written as it is; with KIP-890 it is refused.
func TestLateCommit(t *testing.T) {
	for _, bumps := range []bool{false, true} {
		c := topic.New(bumps)
		p := c.Init("w")
		_ = c.Send(p, topic.Record{Key: "a", Value: "1"})
		next, err := c.End(p, true)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Send(next, topic.Record{Key: "a", Value: "2"})
		_, err = c.End(p, true) // the same request, from some buffer
		if bumps {
			if !errors.Is(err, topic.ErrFenced) || c.Latest("a") != "1" {
				t.Errorf("with KIP-890: %v, %q is committed", err, c.Latest("a"))
			}
		} else if err != nil || c.Latest("a") != "2" {
			t.Errorf("without KIP-890: %v, %q is committed", err, c.Latest("a"))
		}
	}
}

func TestWhoBeginsShutsOut(t *testing.T) {
	c := topic.New(true)
	p := c.Init("w")
	_ = c.Send(p, topic.Record{Key: "a", Value: "1"})
	q := c.Init("w")
	if _, err := c.End(p, true); !errors.Is(err, topic.ErrFenced) {
		t.Errorf("the older writer commits: %v", err)
	}
	if err := c.Send(p, topic.Record{}); !errors.Is(err, topic.ErrFenced) {
		t.Errorf("the older writer sends: %v", err)
	}
	if _, err := c.End(q, true); !errors.Is(err, topic.ErrState) {
		t.Errorf("the newer writer ends what it did not begin: %v", err)
	}
	if n := len(c.Committed()); n > 0 {
		t.Errorf("%d records are committed", n)
	}
}

func TestRequestAgain(t *testing.T) {
	for _, bumps := range []bool{false, true} {
		c := topic.New(bumps)
		p := c.Init("w")
		_ = c.Send(p, topic.Record{Key: "a", Value: "1"})
		first, _ := c.End(p, true)
		again, err := c.End(p, true)
		if err != nil || again != first || len(c.Committed()) != 1 {
			t.Errorf("bumps %t: %v, %v then %v, %d records", bumps, err, first, again, len(c.Committed()))
		}
		if c.Expire("w") {
			t.Errorf("bumps %t: a transaction that has ended expires", bumps)
		}
	}
}
