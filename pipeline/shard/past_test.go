package shard

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

var pastHour = time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)

func pastBlob(hour time.Time) pipeline.BlobID {
	return pipeline.BlobID{Account: "a", Container: "c", Path: "r/" + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/PT1H.json"}
}

// live gives a core past its recovery.
func live(t *testing.T, cfg Config, now time.Time) *Core {
	t.Helper()
	c := New(cfg, ledger.State{})
	for _, a := range c.Step(now, Tick{}) {
		if fence, ok := a.(SetFence); ok {
			c.Step(now, FenceSet(fence))
		}
	}
	if !c.Status().Live {
		t.Fatal("the core is not live")
	}
	return c
}

func only[A Action](t *testing.T, actions []Action) A {
	t.Helper()
	var found []A
	for _, a := range actions {
		if a, ok := a.(A); ok {
			found = append(found, a)
		}
	}
	if len(found) != 1 {
		t.Fatalf("want one %T in %+v", *new(A), actions)
	}
	return found[0]
}

// The border between the live pipeline and a backfill.
func TestOutside(t *testing.T) {
	const keep = 50 * time.Hour
	start := pastHour.Add(30 * time.Minute)
	for _, c := range []struct {
		hour, now time.Time
		want      string
	}{
		{pastHour.Add(-time.Hour), pastHour, IgnoredBeforeStart},
		{pastHour, pastHour, ""}, // it ends after the start
		{pastHour, pastHour.Add(keep), ""},
		{pastHour, pastHour.Add(keep + time.Millisecond), IgnoredTooOld},
		{pastHour.Add(time.Hour), pastHour.Add(keep + time.Millisecond), ""},
	} {
		if got := Outside(c.hour, start, c.now, keep); got != c.want {
			t.Errorf("hour %v at %v: %q, want %q", c.hour, c.now, got, c.want)
		}
	}
	if got := Outside(pastHour, pastHour.Add(time.Hour), pastHour, keep); got != IgnoredBeforeStart {
		t.Errorf("an hour that ends at the start: %q", got)
	}
}

// A blob of an hour that has not come is let go, and leaves nothing behind. When the
// hour has come it is read like any other.
func TestBlobAheadOfTheClock(t *testing.T) {
	cfg := DefaultConfig()
	c := live(t, cfg, pastHour)
	say := func(hour, now time.Time) []Action {
		return c.Step(now, Announced{Announcement: pipeline.Announcement{Blob: pastBlob(hour), ContentLength: -1}, Ack: 9})
	}
	ahead := pastHour.Add(cfg.MaxHourAhead + time.Hour)
	now := pastHour.Add(time.Hour - time.Millisecond)
	for _, hour := range []time.Time{ahead, ahead.AddDate(0, 0, 1), pastHour.AddDate(300, 0, 0)} {
		actions := say(hour, now)
		if got := only[Ignore](t, actions); got.Reason != IgnoredAhead {
			t.Errorf("hour %v is ignored because of %q", hour, got.Reason)
		}
		if got := only[Ack](t, actions); !cmp.Equal(got.IDs, []AckID{9}) {
			t.Errorf("acknowledged %v", got.IDs)
		}
	}
	if len(c.blobs)+len(c.streams) != 0 {
		t.Errorf("%d blobs and %d streams are held", len(c.blobs), len(c.streams))
	}
	only[Fetch](t, say(ahead.Add(-time.Hour), now)) // the clock may be wrong by a day
	only[Fetch](t, say(ahead, pastHour.Add(time.Hour)))

	cfg.MaxHourAhead = 0 // a given period is read, whatever the clock says
	c = live(t, cfg, pastHour)
	only[Fetch](t, say(ahead, pastHour))
}

// A blob that waits for a read until it is too old is let go: whoever reads old blobs
// may have read it by then.
func TestWaitingBlobGetsTooOld(t *testing.T) {
	cfg := DefaultConfig()
	c := live(t, cfg, pastHour)
	f := only[Fetch](t, c.Step(pastHour, Announced{Announcement: pipeline.Announcement{Blob: pastBlob(pastHour), ContentLength: -1}, Ack: 9}))
	c.Step(pastHour, FetchDone{Job: f.Job, Err: errors.New("refused")})
	f = only[Fetch](t, c.Step(pastHour.Add(cfg.KeepOffsets), Tick{}))
	c.Step(pastHour.Add(cfg.KeepOffsets), FetchDone{Job: f.Job, Err: errors.New("refused")})
	late := c.Step(pastHour.Add(cfg.KeepOffsets+time.Hour), Tick{})
	if got := only[Ignore](t, late); got.Reason != IgnoredTooOld {
		t.Errorf("ignored because of %q", got.Reason)
	}
	if got := only[Ack](t, late); !cmp.Equal(got.IDs, []AckID{9}) {
		t.Errorf("acknowledged %v", got.IDs)
	}
	if s := c.Status(); s.Queued+s.Reading != 0 {
		t.Errorf("%d blobs wait, %d are read", s.Queued, s.Reading)
	}
}

// Reading begins where others ended, unless the shard knows better.
func TestAnnouncementFrom(t *testing.T) {
	c := live(t, DefaultConfig(), pastHour)
	id := pastBlob(pastHour)
	from := &pipeline.Progress{Generation: 2, End: 100, Tail: "7d7d"}
	say := func(length int64) []Action {
		return c.Step(pastHour, Announced{Announcement: pipeline.Announcement{Blob: id, ContentLength: length, From: from}})
	}
	if got := only[Ignore](t, say(102)); got.Reason != IgnoredKnown {
		t.Errorf("nothing new behind what others landed: %q", got.Reason)
	}
	f := only[Fetch](t, say(200))
	if want := (ledger.Position{Blob: id, Generation: 2, End: 100, Tail: "7d7d"}); f.Position != want {
		t.Errorf("reads from %+v, want %+v", f.Position, want)
	}
	c.Step(pastHour, Decoded{Job: f.Job, Unit: pipeline.Unit{Blob: id, Generation: 2, Offset: 100, Length: 60, Tail: "7e"}})
	c.Step(pastHour, FetchDone{Job: f.Job, Outcome: Read})
	if f := only[Fetch](t, say(200)); f.Position.End != 160 {
		t.Errorf("announced again it reads from %d, want 160", f.Position.End)
	}
}

// With Once a position is kept until its batch is durable, and no longer.
func TestOnceForgetsWhatLanded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Once, cfg.KeepOffsets = true, 100*365*24*time.Hour
	c := live(t, cfg, pastHour)
	read := func(id pipeline.BlobID) {
		f := only[Fetch](t, c.Step(pastHour, Announced{Announcement: pipeline.Announcement{Blob: id, ContentLength: -1}}))
		c.Step(pastHour, Decoded{Job: f.Job, Unit: pipeline.Unit{Blob: id, Offset: 12, Length: 60, Tail: "7e"}})
		c.Step(pastHour, FetchDone{Job: f.Job, Outcome: Read})
	}
	first, second := pastBlob(pastHour.Add(-1000*time.Hour)), pastBlob(pastHour)
	read(first)
	if got := c.positions(); len(got) != 1 {
		t.Errorf("%d positions of an open batch, want 1", len(got))
	}
	c.durable, c.nextSeq = 1, 2 // the first batch is done
	read(second)
	if got := c.positions(); len(got) != 1 || got[0].Blob != second {
		t.Errorf("positions %+v, want that of %v", got, second)
	}
}

// A million announcements of blobs that are not there leave nothing behind; a blob
// that is there stays known.
func TestBlobsThatAreNotThereAreForgotten(t *testing.T) {
	c := live(t, DefaultConfig(), pastHour)
	there := pastBlob(pastHour)
	for n := range 20_000 {
		id := there
		if n != 10_000 {
			id.Container = "c" + strconv.Itoa(n)
		}
		f := only[Fetch](t, c.Step(pastHour, Announced{Announcement: pipeline.Announcement{Blob: id, ContentLength: -1}, Ack: AckID(n + 1)}))
		if n == 10_000 {
			c.Step(pastHour, Decoded{Job: f.Job, Unit: pipeline.Unit{Blob: id, Offset: 12, Length: 100, Rows: 1, MaxTime: pastHour.UnixMilli()}})
			c.Step(pastHour, FetchDone{Job: f.Job, Outcome: Read})
			continue
		}
		if a := only[Ack](t, c.Step(pastHour, FetchDone{Job: f.Job, Outcome: []Outcome{Gone, NothingNew}[n%2]})); a.IDs[0] != AckID(n+1) {
			t.Fatalf("%+v for announcement %d", a, n+1)
		}
	}
	if len(c.blobs) != 1 || c.blobs[there] == nil || len(c.streams) != 1 || c.streams[there.Stream()] == nil {
		t.Errorf("%d blobs and %d streams are held, want the one that is there", len(c.blobs), len(c.streams))
	}
}
