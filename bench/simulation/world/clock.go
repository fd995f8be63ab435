package world

import (
	"time"
	"unsafe"
)

// clock is that of one machine: its wall time jumps and drifts, its monotonic time
// does neither.
type clock struct {
	offset time.Duration // of the wall time
	drift  float64       // parts of a second a second, since drifted
	since  time.Duration
}

// time gives what time.Now would give there.
func (c *clock) time(w *World) time.Time {
	drifted := time.Duration(c.drift * float64(w.now-c.since))
	return timeOf(w.wall().Add(c.offset+drifted), w.now+time.Hour)
}

// instant has the layout of time.Time; TestClock holds it.
type instant struct {
	wall uint64
	ext  int64
	loc  *time.Location
}

// year1885 is where a time with a monotonic reading counts its seconds from.
var year1885 = time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// timeOf makes a time with a monotonic reading of our choice, which package time gives
// to nobody: whether the pipeline survives a clock that jumps depends on which of its
// comparisons see the jump.
func timeOf(wall time.Time, monotonic time.Duration) time.Time {
	i := instant{wall: 1<<63 | uint64(wall.Unix()-year1885)<<30 | uint64(wall.Nanosecond()), ext: int64(monotonic)}
	return *(*time.Time)(unsafe.Pointer(&i)) //nolint:gosec // see instant
}
