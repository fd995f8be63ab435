package engine

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
)

// rowAge is how far before its first fetch the rows of a blob without an hour in
// its path may lie. It is no setting: a restart must refuse what was refused.
const rowAge = 50 * time.Hour

// RangeOf says how the bytes of a unit are decoded, the first time and each time
// that they are replayed: under the address that they have in their blob, with the
// event times that the blob may carry.
func RangeOf(p pipeline.Replay) decode.Range {
	lowest, highest := TimeBounds(p.Blob, p.Clock)
	return decode.Range{
		Blob: p.Blob.String(), Generation: p.Generation, Offset: p.Offset,
		MinTime: lowest, MaxTime: highest, Ordinals: p.Ordinals,
	}
}

// TimeBounds gives the event times, in ms UTC, that a blob's rows may carry: around
// the hour of its path, or before the clock of its fetch (ms UTC) when it has none.
func TimeBounds(blob pipeline.BlobID, clock int64) (lowest, highest int64) {
	if hour, ok := blob.Hour(); ok {
		return hour.Add(-time.Hour).UnixMilli(), hour.Add(2 * time.Hour).UnixMilli()
	}
	fetched := time.UnixMilli(clock)
	return fetched.Add(-rowAge).UnixMilli(), fetched.Add(5 * time.Minute).UnixMilli()
}

// rangeOf is RangeOf for a unit of this engine.
//
// Errors: in an engine of replays, a unit that is none.
func (r *runner) rangeOf(u pipeline.Unit) (decode.Range, error) {
	if !r.e.cfg.Replay {
		return RangeOf(pipeline.Replay{Blob: u.Blob, Generation: u.Generation, Offset: u.Offset, Length: u.Length, Clock: u.Clock}), nil
	}
	p, err := pipeline.ParseReplay(u.Blob)
	if err == nil && (p.Offset != u.Offset || p.Length != u.Length) {
		err = fmt.Errorf("replay %q: bytes %d to %d are not those of its record", u.Blob, u.Offset, u.End())
	}
	if err != nil {
		return decode.Range{}, err
	}
	return RangeOf(p), nil
}
