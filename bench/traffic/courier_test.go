package traffic

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "write the expected files")

// eventsOf runs a replay of an hour and returns its simulator and events.
func eventsOf(t *testing.T, h *hub, change func(*Config)) *Simulator {
	t.Helper()
	setClock()
	cfg := DefaultConfig()
	cfg.NICs, cfg.TuplesPerMinute = 40, 1
	change(&cfg)
	s, err := simulate(t, cfg, &MemoryWriter{}, h, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEventRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{}
		s := eventsOf(t, h, func(c *Config) {
			c.Duplicated, c.Reordered, c.Delayed, c.Dropped, c.Noise = 0.05, 0.06, 0.07, 0.08, 0.09
		})
		e, appends := s.Truth().Events, float64(s.Snapshot().Appends)
		for _, c := range []struct {
			name  string
			n     uint64
			share float64
		}{
			{"duplicated", e.Duplicated, 0.05},
			{"reordered", e.Reordered, 0.06},
			{"delayed", e.Delayed, 0.07},
			{"dropped", e.Dropped, 0.08},
			{"noise", e.Noise, 0.09},
		} {
			// Four standard deviations of a binomial distribution.
			if math.Abs(float64(c.n)-c.share*appends) > 4*math.Sqrt(c.share*appends) {
				t.Errorf("%d of %.0f %s, want %.0f", c.n, appends, c.name, c.share*appends)
			}
		}
		if e.Failed != 0 || e.Published != uint64(appends)+e.Duplicated-e.Dropped {
			t.Errorf("%.0f appends, events %+v", appends, e)
		}
		if n := uint64(len(h.bodies)); n != e.Published+e.Noise {
			t.Errorf("%d bodies for %+v", n, e)
		}
		checkStream(t, h, e)
	})
}

// checkStream counts from what came out: duplicates are equal to the byte, and a
// reordered event comes behind a longer one of its blob.
func checkStream(t *testing.T, h *hub, e EventTruth) {
	t.Helper()
	seen := map[string]bool{}
	longest := map[string]int64{}
	var duplicates, overtaken uint64
	for _, body := range h.bodies {
		ev := readEvent(t, body)
		if ev.EventType != blobCreated || ev.Data.API != "PutBlockList" || !strings.HasPrefix(ev.Subject, "/blobServices/default/containers/insights-logs-flowlogflowevent/") || !strings.HasSuffix(ev.Topic, "/devstoreaccount1") {
			continue // Noise.
		}
		switch length := *ev.Data.ContentLength; {
		case seen[string(body)]:
			duplicates++
		case length < longest[ev.Subject]:
			overtaken++
		default:
			longest[ev.Subject] = length
		}
		seen[string(body)] = true
	}
	if duplicates != e.Duplicated {
		t.Errorf("%d duplicates, want %d", duplicates, e.Duplicated)
	}
	// The last event of a blob has nothing to be overtaken by, delayed ones are
	// overtaken most of the time.
	if overtaken < e.Reordered*8/10 || overtaken > e.Reordered+e.Delayed {
		t.Errorf("%d events were overtaken, %d reordered, %d delayed", overtaken, e.Reordered, e.Delayed)
	}
}

func TestEventsAreRepeatable(t *testing.T) {
	var runs [2]EventTruth
	for i := range runs {
		synctest.Test(t, func(t *testing.T) {
			runs[i] = eventsOf(t, &hub{}, func(c *Config) { c.Writers = 1 + 6*i }).Truth().Events
		})
	}
	if runs[0] != runs[1] {
		t.Errorf("the same seed gave %+v and %+v", runs[0], runs[1])
	}
}

// TestEventShapes compares members and their order with the published samples
// of the schemas, kept here as skeletons.
func TestEventShapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{}
		eventsOf(t, h, func(c *Config) { c.Noise, c.KeyBySubject = 0.2, true })
		got := map[string]bool{}
		for i, body := range h.bodies {
			e := readEvent(t, body)
			if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z$`).MatchString(e.EventTime) {
				t.Fatalf("time %q", e.EventTime)
			}
			if h.keys[i] != e.Subject {
				t.Fatalf("key %q, subject %q", h.keys[i], e.Subject)
			}
			got[skeleton(body)] = true
		}
		var lines []string
		for s := range got {
			lines = append(lines, s)
		}
		slices.Sort(lines)
		text := strings.Join(lines, "\n") + "\n"
		golden := filepath.Join("testdata", "event_skeletons.txt")
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("skeletons:\n%s\nwant:\n%s", text, want)
		}
	})
}

var (
	member = regexp.MustCompile(`"([A-Za-z]+)":("(?:[^"\\]|\\.)*"|\d+)`)
	tag    = regexp.MustCompile(`0x8D[0-9A-F]+`)
	host   = regexp.MustCompile(`\.(blob|dfs)\.`)
)

// skeleton keeps the members' names and a few values.
func skeleton(body []byte) string {
	s := member.ReplaceAllStringFunc(string(body), func(m string) string {
		name, value, _ := strings.Cut(m, ":")
		name, value = strings.Trim(name, `"`), value[1:max(1, len(value)-1)]
		switch name {
		case "api", "eventType", "type", "accessTier", "previousTier", "blobType", "contentType", "dataVersion", "metadataVersion", "specversion":
			return name + "=" + value
		case "url":
			return name + "=" + host.FindString(value)
		case "eTag":
			return name + "=" + tag.ReplaceAllString(value, "TAG")
		}
		return name
	})
	// A client's request id is there or not.
	return strings.Replace(s, "clientRequestId,", "", 1)
}

func TestPublishErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		h := &hub{fail: func(n int) error {
			if n%30 == 0 || n > 100 && n < 300 {
				return refused
			}
			return nil
		}}
		s := eventsOf(t, h, func(c *Config) { c.Noise = 0 })
		truth := s.Truth()
		e := truth.Events
		if e.Failed == 0 || e.Failed > 100 {
			t.Errorf("%d events failed", e.Failed)
		}
		if truth.Totals.Appends != e.Published-e.Duplicated+e.Dropped+e.Failed || uint64(len(h.bodies)) != e.Published {
			t.Errorf("%d appends, %d bodies, events %+v", truth.Totals.Appends, len(h.bodies), e)
		}
	})
}

// TestHeldEventsGoOutAtTheEnd stops while everything is held.
func TestHeldEventsGoOutAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{}
		s := eventsOf(t, h, func(c *Config) {
			c.Duplicated, c.Reordered, c.Delayed, c.Dropped, c.Noise = 0, 0, 1, 0, 0
			c.DelayMax = time.Hour
		})
		if n := len(h.bodies); uint64(n) != s.Snapshot().Appends {
			t.Errorf("%d events for %d appends", n, s.Snapshot().Appends)
		}
		if bytes.Equal(h.bodies[0], h.bodies[1]) {
			t.Error("the same event twice")
		}
	})
}
