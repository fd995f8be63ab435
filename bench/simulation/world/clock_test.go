package world

import (
	"testing"
	"time"
)

// A wall clock that jumps moves what is compared with the wall, and no duration.
func TestClock(t *testing.T) {
	wall := time.Date(2026, 11, 23, 6, 30, 0, 123456789, time.UTC)
	a := timeOf(wall, time.Hour)
	b := timeOf(wall.Add(-24*time.Hour), time.Hour+time.Minute) // a minute later, the clock set back
	if !a.Equal(wall) && !a.Round(0).Equal(wall) {
		t.Errorf("%v, want %v", a, wall)
	}
	if got := a.UnixNano(); got != wall.UnixNano() {
		t.Errorf("%d ns, want %d", got, wall.UnixNano())
	}
	if got := b.Sub(a); got != time.Minute {
		t.Errorf("%v passed, want a minute", got)
	}
	if !b.After(a) {
		t.Error("the later time is not after the earlier one")
	}
	if got := b.Round(0).Sub(wall); got != -24*time.Hour {
		t.Errorf("the wall clock is %v off, want a day back", got)
	}
}
