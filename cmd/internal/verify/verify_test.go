package verify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
)

func (u unit) span() string { return fmt.Sprintf("%d-%d", u.offset, u.end()) }

func TestCover(t *testing.T) {
	const live, replay = 1, 2
	id := func(ledger uint16, seq uint64) pipeline.BatchID { return pipeline.NewBatchID(ledger, 0, seq) }
	at := func(ledger uint16, seq uint64, from, to int64) unit {
		return unit{batch: id(ledger, seq), offset: from, length: to - from}
	}
	for _, c := range []struct {
		name  string
		units []unit
		want  string
	}{
		{"nothing", nil, ""},
		{"in order", []unit{at(live, 1, 12, 50), at(live, 2, 50, 80)}, "12-50 50-80"},
		{"not in order", []unit{at(live, 2, 50, 80), at(live, 1, 12, 50)}, "12-50 50-80"},
		{"a hole", []unit{at(live, 1, 12, 50), at(live, 2, 60, 80)}, "12-50 hole:50-60 60-80"},
		{"the beginning is missing", []unit{at(live, 1, 90, 120)}, "hole:0-90 90-120"},
		{"a replay within", []unit{at(live, 1, 12, 50), at(replay, 1, 20, 30)}, "12-50 nested:20-30"},
		{"a replay in a hole", []unit{at(live, 1, 12, 50), at(replay, 1, 55, 58), at(live, 2, 60, 80)}, "12-50 hole:50-60 60-80 nested:55-58"},
		{"two pipelines", []unit{at(live, 1, 12, 50), at(live, 7, 12, 40), at(live, 2, 50, 80)}, "12-50 50-80 overlap:12-40"},
	} {
		stretches, nested, overlaps := cover(c.units, func(u unit) bool { return u.batch.Ledger() == replay })
		var got []string
		for _, x := range stretches {
			if x.hole {
				got = append(got, "hole:"+x.span())
			} else {
				got = append(got, x.span())
			}
		}
		for _, u := range nested {
			got = append(got, "nested:"+u.span())
		}
		for _, u := range overlaps {
			got = append(got, "overlap:"+u.span())
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestExpiries(t *testing.T) {
	e := expiries{"flows": {{from: 0, to: 100, why: ByTTL}, {from: 100, to: 200, why: ByPeople}, {from: 300, to: 400, why: ByPeople}}}
	for _, c := range []struct {
		lo, hi    int64
		some, all bool
	}{{0, 50, true, true}, {50, 200, true, true}, {50, 250, true, false}, {200, 300, false, false}, {250, 350, true, false}, {300, 400, true, true}} {
		some, all := e.within("flows", c.lo, c.hi)
		if (some != nil) != c.some || all != c.all {
			t.Errorf("%d to %d: %v, all %v", c.lo, c.hi, some, all)
		}
	}
	if g := e.at("flows", 350); g == nil || g.why != ByPeople || e.at("flows", 250) != nil || e.at("quarantine", 350) != nil {
		t.Errorf("at 350: %v", g)
	}
}

// A mutation renames every part of its partition, so one statement names all rows of a
// day, and statements that name no part come last.
func TestDeletions(t *testing.T) {
	p := plan{
		remove:  []removal{{"flows", "20261126_2_2_0", 7}, {"flows", "20261126_1_1_0", 4}, {"flows", "20261126_1_1_0", 3}, {"flows", "20261127_1_1_0", 0}, {"quarantine", "20261126_9_9_0", 1}},
		strange: []strange{{"flows", 5}},
	}
	var got []string
	for _, d := range p.deletions() {
		got = append(got, strings.ReplaceAll(d.sql, ", max_query_size = 67108864", ""))
	}
	want := []string{
		"ALTER TABLE `flows` DELETE IN PARTITION '20261126' WHERE _part = '20261126_1_1_0' AND _part_offset IN (3,4) OR _part = '20261126_2_2_0' AND _part_offset IN (7) SETTINGS mutations_sync = 2",
		"ALTER TABLE `flows` DELETE IN PARTITION '20261127' WHERE _part = '20261127_1_1_0' AND _part_offset IN (0) SETTINGS mutations_sync = 2",
		"ALTER TABLE `quarantine` DELETE IN PARTITION '20261126' WHERE _part = '20261126_9_9_0' AND _part_offset IN (1) SETTINGS mutations_sync = 2",
		"ALTER TABLE `flows` DELETE WHERE batch_id = 5 SETTINGS mutations_sync = 2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
}

func TestDefaultPeriod(t *testing.T) {
	now := time.Date(2026, 11, 26, 9, 20, 0, 0, time.UTC)
	for start, want := range map[time.Time]string{
		now.Add(-100 * time.Hour): "25 08:00 to 26 08:00",
		now.Add(-5 * time.Hour):   "26 04:00 to 26 08:00",
		now:                       "25 08:00 to 26 08:00",
	} {
		from, to := Default(start, now)
		if got := from.Format("02 15:04") + " to " + to.Format("02 15:04"); got != want {
			t.Errorf("start %v: %s, want %s", start, got, want)
		}
	}
}
