package reconcile

import (
	"testing"

	"github.com/millrace/millrace/bench/traffic"
)

// The books are held against the tables blob by blob, so that a row too many in
// one and a row too few in another do not cancel out.
func TestJudge(t *testing.T) {
	truth := traffic.Truth{
		Totals:    traffic.BlobTruth{Tuples: 20, Malformed: 1},
		Blobs:     map[string]traffic.BlobTruth{"a": {Tuples: 10}, "b": {Tuples: 10}},
		Minutes:   map[int64]traffic.MinuteTruth{60_000: {Tuples: 20}},
		Malformed: []traffic.MalformedTuple{{Blob: "a", RecordOffset: 12, Ordinal: 3}},
	}
	good := func() Contents {
		return Contents{
			Blobs:      map[string]Blob{"a": {Rows: 10, Addresses: 10}, "b": {Rows: 10, Addresses: 10}},
			Quarantine: map[Address]uint64{{"a", 12, 3}: 1},
			Minutes:    map[int64]traffic.MinuteTruth{60_000: {Tuples: 20}},
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(Contents)
		want  Verdict
	}{
		{"good", func(Contents) {}, Verdict{}},
		{"one too few, one too many", func(h Contents) {
			h.Blobs["a"], h.Blobs["b"] = Blob{Rows: 9, Addresses: 9}, Blob{Rows: 11, Addresses: 10}
		}, Verdict{Lost: 1, Duplicated: 1}},
		{"doubled instead of the other", func(h Contents) { h.Blobs["a"] = Blob{Rows: 10, Addresses: 9} }, Verdict{Lost: 1, Duplicated: 1}},
		{"an address that was never written", func(h Contents) { h.Blobs["a"] = Blob{Rows: 11, Addresses: 11} }, Verdict{Duplicated: 1}},
		{"a blob is missing", func(h Contents) { delete(h.Blobs, "b") }, Verdict{Lost: 10}},
		{"an entry is doubled", func(h Contents) { h.Quarantine[Address{"a", 12, 3}] = 2 }, Verdict{Duplicated: 1}},
		{"a minute too many", func(h Contents) { h.Minutes[120_000] = traffic.MinuteTruth{} }, Verdict{MinutesAltered: 1}},
		{"bytes of a minute", func(h Contents) { h.Minutes[60_000] = traffic.MinuteTruth{Tuples: 20, BytesSent: 1} }, Verdict{MinutesAltered: 1}},
	} {
		held := good()
		c.spoil(held)
		res, notes := Judge(truth, held)
		got := Verdict{Lost: res.Lost, Duplicated: res.Duplicated, Altered: res.Altered, MinutesAltered: res.MinutesAltered}
		if got != c.want || res.Good() != (c.want == Verdict{}) || (len(notes) == 0) != res.Good() {
			t.Errorf("%s: %+v good %v, want %+v; notes %q", c.name, got, res.Good(), c.want, notes)
		}
	}
}
