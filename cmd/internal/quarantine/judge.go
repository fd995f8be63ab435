package quarantine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/schemas"
)

// judged is what the decoder of this program says to an extent.
type judged struct {
	extent
	err error // nothing could be read or compared; reread.ErrExpired or another

	// good are the addresses of the rows, in their order; of entries of tuples only
	// theirs. missing says which of them the table does not have.
	good    []tupleAt
	missing []bool
	records map[int64]record // of the good tuples, by offset
	refused []pipeline.Reject
	changed map[uint32]bool // ordinals whose text is not what was refused
	failed  map[int64]error // records that could not be read again to land
}

// tupleAt is the place of a tuple in its blob.
type tupleAt struct {
	offset  int64 // of the record
	ordinal uint32
}

// record is what a replay has to find at an offset.
type record struct {
	length int64
	hash   xxh3.Uint128
}

// judge reads an extent and decodes it. highest is the newest generation of its blob.
//
// Errors: ctx ended.
func judge(ctx context.Context, blobs reread.Blobs, alloc memory.Allocator, x extent, highest uint32) (judged, error) {
	j := judged{extent: x}
	if highest > x.Generation {
		j.err = fmt.Errorf("%w: the blob was rewritten", reread.ErrExpired)
		return j, nil
	}
	data, err := x.read(ctx, blobs)
	if err != nil {
		j.err = err
		return j, ctx.Err()
	}
	j.Length = int64(len(data))
	if !x.ofTuples() && !sameStart(x.entries[0].Excerpt, startOf(data)) {
		j.err = fmt.Errorf("%w: other bytes stand there now", reread.ErrExpired)
		return j, nil
	}
	batch := decode.NewBatch(alloc)
	defer batch.Release()
	if x.ofTuples() {
		for _, e := range x.entries {
			j.Ordinals = append(j.Ordinals, e.Ordinal)
		}
		j.compare(batch, data)
	}
	j.decode(batch, data)
	return j, nil
}

// decode does what the engine will do.
func (j *judged) decode(batch *decode.Batch, data []byte) {
	batch.Release()
	j.refused = batch.Decode(engine.RangeOf(j.Replay), data).Rejects
	rec := batch.Take(0)
	if rec == nil {
		return
	}
	defer rec.Release()
	offsets := rec.Column(schemas.Flows.Index("record_offset")).(*array.Uint64)
	ordinals := rec.Column(schemas.Flows.Index("ordinal")).(*array.Uint32)
	j.good = make([]tupleAt, 0, rec.NumRows())
	j.records = map[int64]record{}
	for i := range int(rec.NumRows()) {
		t := tupleAt{int64(offsets.Value(i)), ordinals.Value(i)}
		if j.ofTuples() && (t.offset != j.Offset || j.changed[t.ordinal]) {
			continue
		}
		j.good = append(j.good, t)
		if _, ok := j.records[t.offset]; !ok {
			j.records[t.offset] = recordOf(data[t.offset-j.Offset:])
		}
	}
}

// recordOf describes the record that text begins with; the decoder has read it.
func recordOf(text []byte) record {
	n := reread.RecordEnd(text)
	if n < 0 {
		panic("BUG: a record that was decoded does not end")
	}
	return record{int64(n), xxh3.Hash128(text[:n])}
}

// compare finds the entries whose tuple is not the one that was refused. No tuple
// passes the bounds of time here, so each comes back with its length and excerpt.
func (j *judged) compare(batch *decode.Batch, data []byte) {
	at := engine.RangeOf(j.Replay)
	at.MinTime, at.MaxTime = 1, 1
	found := map[uint32]pipeline.Reject{}
	for _, r := range batch.Decode(at, data).Rejects {
		if r.Scope != scopeTuple {
			return // the record itself is refused now: that is for people to read
		}
		if r.Offset == j.Offset {
			found[r.Ordinal] = r
		}
	}
	j.changed = map[uint32]bool{}
	for _, e := range j.entries {
		r, ok := found[e.Ordinal]
		if !ok || r.Length != e.Length || !sameStart(e.Excerpt, r.Excerpt) {
			j.changed[e.Ordinal] = true
		}
	}
}

// excerptBytes is how much of what was refused an entry keeps.
const excerptBytes = 256

func startOf(data []byte) string { return string(data[:min(len(data), excerptBytes)]) }

// sameStart compares an excerpt with what stands there now, up to the first byte
// that an excerpt cannot show. An excerpt that was dropped tells nothing.
func sameStart(excerpt, now string) bool {
	a, b := plainStart(excerpt), plainStart(now)
	return excerpt == "" || a == b
}

func plainStart(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
	start, _, cut := strings.Cut(s, "\uFFFD")
	if cut {
		start += "\uFFFD"
	}
	return start
}

// region is what of the table flows concerns the extent.
func (j *judged) region() Region {
	lowest, highest := engine.TimeBounds(j.Blob, j.Clock)
	r := Region{
		Blob: j.Blob.String(), Generation: j.Generation, Start: j.Offset, End: j.Offset + max(j.Length, 1),
		MinTime: lowest, MaxTime: highest,
	}
	if j.ofTuples() {
		r.End, r.Ordinals = j.Offset+1, j.Ordinals
	}
	return r
}

// Outcome is what a replay did to an entry.
type Outcome string

// Outcomes.
const (
	Landed     Outcome = "landed"          // rows of it landed now
	WouldLand  Outcome = "would land"      // a dry run
	Already    Outcome = "already landed"  // by an earlier replay
	Refused    Outcome = "still refused"   // by this program's decoder too
	Expired    Outcome = "source expired"  // the bytes are not there any more
	Unreadable Outcome = "unreadable"      // the blob cannot be read now; try again
	Empty      Outcome = "good, but empty" // a record without tuples
)

// Verdict is what became of one entry.
type Verdict struct {
	Address string          `json:"address"`
	Was     pipeline.Reason `json:"was"` // why it was refused
	Outcome Outcome         `json:"outcome"`
	Rows    int64           `json:"rows"`             // that landed now, or would
	Refused int64           `json:"refused"`          // tuples, records or ranges of it that are still refused
	Reason  pipeline.Reason `json:"reason,omitempty"` // of the first of them
	Detail  string          `json:"detail,omitempty"`
}

// verdicts says what becomes of each entry when the missing rows land.
func (j *judged) verdicts(landing Outcome) []Verdict {
	out := make([]Verdict, len(j.entries))
	for i, e := range j.entries {
		out[i] = Verdict{Address: e.Address, Was: e.Reason}
		j.verdict(e, &out[i], landing)
	}
	return out
}

func (j *judged) verdict(e Entry, v *Verdict, landing Outcome) {
	good, unread := 0, error(nil)
	for i, t := range j.good {
		if j.ofTuples() && t.ordinal != e.Ordinal {
			continue
		}
		good++
		if err := j.failed[t.offset]; err != nil {
			unread = err
		} else if j.missing[i] {
			v.Rows++
		}
	}
	for _, r := range j.refused {
		if j.ofTuples() && r.Scope == scopeTuple && r.Ordinal != e.Ordinal {
			continue
		}
		if v.Refused++; v.Refused == 1 {
			v.Reason, v.Detail = r.Reason, r.Detail
		}
	}
	switch {
	case j.err != nil:
		v.failed(j.err)
	case j.changed[e.Ordinal]:
		v.failed(fmt.Errorf("%w: another tuple stands there now", reread.ErrExpired))
	case unread != nil:
		v.failed(unread)
	case v.Rows > 0:
		v.Outcome = landing
	case good > 0:
		v.Outcome = Already
	case v.Refused > 0:
		v.Outcome = Refused
	default:
		v.Outcome = Empty
	}
}

func (v *Verdict) failed(err error) {
	v.Outcome, v.Reason, v.Detail = Unreadable, "", err.Error()
	switch {
	case errors.Is(err, reread.ErrExpired):
		v.Outcome = Expired
	case errors.Is(err, reread.ErrTooLarge):
		v.Outcome, v.Refused, v.Reason = Refused, 1, pipeline.ReasonLimit
	}
}
