package eventhubs_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// A look tells how far the checkpoints are behind and what expired, and moves
// nothing.
func TestLook(t *testing.T) {
	s := startHub(t, nil)
	u := newSetup(t, s)
	if r, err := eventhubs.Look(t.Context(), u.cfg, nil); err != nil || r.Partitions != 4 || r.Behind != 0 {
		t.Errorf("never read: %+v, %v", r, err)
	}
	publish(t, s, 1, names("a", 5)...)
	c := newCollector(all)
	r := u.run(t, c)
	c.waitFor(t, 5)
	if err := errors.Join(r.stop(), r.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	saved := u.stored(t)
	publish(t, s, 1, names("b", 10)...)
	if err := s.Expire(hub, 1, 8); err != nil {
		t.Fatal(err)
	}
	report, err := eventhubs.Look(t.Context(), u.cfg, saved)
	if err != nil || report.Behind != 10 || report.Expired != 3 || report.Recreated {
		t.Errorf("ten behind, three of them expired: %+v, %v", report, err)
	}
	if age := time.Since(report.Unread); age < 0 || age > time.Minute || report.Oldest.After(report.Unread) {
		t.Errorf("the first unread message came at %v, the oldest at %v", report.Unread, report.Oldest)
	}
	mark := saved["1"]
	mark.Created = mark.Created.Add(-time.Hour)
	saved["1"] = mark
	if report, err = eventhubs.Look(t.Context(), u.cfg, saved); err != nil || !report.Recreated || report.Behind != 0 {
		t.Errorf("a hub made anew: %+v, %v", report, err)
	}
}

// A hub that is not there, a group that is not, a key that is wrong.
func TestLookRefused(t *testing.T) {
	s := startHub(t, nil)
	for name, change := range map[string]func(*eventhubs.Config){
		"hub": func(c *eventhubs.Config) {
			text, _, _ := strings.Cut(c.ConnectionString.Reveal(), ";EntityPath")
			c.ConnectionString, c.Hub = secret.New(text), "none"
		},
		"group": func(c *eventhubs.Config) { c.ConsumerGroup = "none" },
		"key": func(c *eventhubs.Config) {
			c.ConnectionString = secret.New(strings.Replace(c.ConnectionString.Reveal(), key, "d3Jvbmc=", 1))
		},
	} {
		cfg := newSetup(t, s).cfg
		change(&cfg)
		if _, err := eventhubs.Look(t.Context(), cfg, nil); err == nil || strings.Contains(err.Error(), "d3Jvbmc=") {
			t.Errorf("%s: have %v", name, err)
		}
	}
}
