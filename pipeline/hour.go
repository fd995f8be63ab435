package pipeline

import (
	"strconv"
	"strings"
	"time"
)

// hourSegment finds the /y=YYYY/m=MM/d=DD/h=HH/m=00 part of a path, the last one
// if there are several, and gives its hour and its place: path[start:end] begins
// with the slash before y= and ends before the slash that follows it.
//
// The path has three published layouts before that part, so it is read from the
// right end; the second m= is minutes.
func hourSegment(path string) (hour time.Time, start, end int, ok bool) {
	for at := len(path); ; {
		start = strings.LastIndex(path[:at], "/y=")
		if start < 0 {
			return time.Time{}, 0, 0, false
		}
		if hour, end, ok = parseHour(path, start); ok {
			return hour, start, end, true
		}
		at = start
	}
}

func parseHour(path string, start int) (time.Time, int, bool) {
	var part [5]int
	at := start
	for i, key := range [...]string{"/y=", "/m=", "/d=", "/h=", "/m="} {
		if !strings.HasPrefix(path[at:], key) {
			return time.Time{}, 0, false
		}
		at += len(key)
		stop := at
		for stop < len(path) && path[stop] >= '0' && path[stop] <= '9' {
			stop++
		}
		n, err := strconv.Atoi(path[at:stop])
		if err != nil || stop-at > 4 {
			return time.Time{}, 0, false
		}
		part[i], at = n, stop
	}
	if at < len(path) && path[at] != '/' {
		return time.Time{}, 0, false
	}
	year, month, day, hour, minute := part[0], part[1], part[2], part[3], part[4]
	t := time.Date(year, time.Month(month), day, hour, minute, 0, 0, time.UTC)
	// time.Date normalises the 31st of June; a path that says so names no hour.
	if t.Year() != year || int(t.Month()) != month || t.Day() != day || t.Hour() != hour || t.Minute() != minute {
		return time.Time{}, 0, false
	}
	return t, at, true
}
