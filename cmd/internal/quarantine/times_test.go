package quarantine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// steps is a source that announces a blob once the one before it has landed, so that
// the watermark moves in between.
type steps []pipeline.BlobID

func (s steps) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	for _, id := range s {
		done := make(chan struct{})
		d := pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: id, ContentLength: -1}}, Ack: func() { close(done) }}
		if err := emit(ctx, d); err != nil {
			return err
		}
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// hostileTime gives a time between 1970 and 2106, as seconds or milliseconds, that
// no row of the hour may have.
func hostileTime(rng *rand.Rand, hour time.Time) string {
	until := time.Date(2106, 2, 7, 6, 28, 16, 0, time.UTC).UnixMilli()
	for {
		ms := rng.Int64N(until)
		switch rng.IntN(4) {
		case 0: // clocks that are hours or a day off
			ms = hour.UnixMilli() + rng.Int64N(48*3_600_000) - 24*3_600_000
		case 1: // the borders
			ms = hour.UnixMilli() + []int64{-3_600_001, 7_200_000, 24 * 3_600_000, -24 * 3_600_000}[rng.IntN(4)]
		}
		if ms >= hour.Add(-time.Hour).UnixMilli() && ms < hour.Add(2*time.Hour).UnixMilli() {
			continue
		}
		if rng.IntN(2) == 0 && ms%1000 == 0 {
			return fmt.Sprint(ms / 1000)
		}
		return fmt.Sprint(ms)
	}
}

// Times that lie, beside each good tuple of two hours, and in paths of blobs: they make no partition and
// no window, and move no watermark, so that no honest row is late.
func TestHostileTimes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 80))
	m := newMeal(newWorld(t))
	var announced steps
	lies := 0
	for minute := 0; minute < 60; minute += 5 {
		for n := range 3 {
			hour := testHour.Add(time.Duration(minute/30) * time.Hour)
			id := nic(100*minute + n)
			id.Path = strings.Replace(id.Path, testHour.Format("h=15"), hour.Format("h=15"), 1)
			var records []string
			var tuples [][]string
			for range 4 {
				at := hour.Add(time.Duration(minute)*time.Minute + time.Duration(rng.IntN(60_000))*time.Millisecond)
				good := strings.Replace(numbered(m.n, 0), fmt.Sprint(testHour.UnixMilli()+int64(m.n)), fmt.Sprint(at.UnixMilli()), 1)
				m.n++
				_, fields, _ := strings.Cut(good, ",")
				tuples = append(tuples, []string{good, hostileTime(rng, hour) + "," + fields, hostileTime(rng, hour) + "," + fields})
				records = append(records, recordText(tuples[len(tuples)-1]...))
				lies += 2
			}
			for i, at := range m.w.write(id, records...) {
				keep(m.wanted, id, at, 0, tuples[i][0])
			}
			announced = append(announced, id)
		}
		// The path of a blob lies too: its rows fit it, and its hour has not come.
		hour := testHour.AddDate(0, 0, 3+minute*minute)
		id := nic(100*minute + 50)
		id.Path = strings.Replace(id.Path, testHour.Format("y=2006/m=01/d=02/h=15"), hour.Format("y=2006/m=01/d=02/h=15"), 1)
		m.w.write(id, recordText(strings.Replace(numbered(0, 0), fmt.Sprint(testHour.UnixMilli()), fmt.Sprint(hour.UnixMilli()), 1)))
		announced = append(announced, id)
	}
	status := m.run(t, announced).Status()
	m.rows(t, m.wanted)
	for _, e := range m.w.target.entries {
		if e.Reason != pipeline.ReasonTimeRange || e.Scope != scopeTuple {
			t.Errorf("%+v", e)
		}
	}
	if len(m.w.target.entries) != lies || status.Quarantined != int64(lies) {
		t.Errorf("%d entries in quarantine, want %d", len(m.w.target.entries), lies)
	}
	if m.w.target.late > 0 {
		t.Errorf("%d honest rows were late", m.w.target.late)
	}
	for partition := range m.w.target.partitions {
		if day := testHour.Format("20060102"); partition != day {
			t.Errorf("a partition of %s, want %s alone", partition, day)
		}
	}
}
