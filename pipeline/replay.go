package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Replay names one record of a blob that is read again to land tuples that were
// refused before. To a shard it is a blob of its own: its BlobID has the blob's
// path with everything else about it behind a mark. So a replay needs nothing of
// the core, and a manifest holds all that a restart has to know.
//
// Only an engine whose Config.Replay is set takes a BlobID for one. A blob whose
// real path looks like a replay is therefore an ordinary blob everywhere else, and
// in such an engine the mark that counts is the last one, which is ours.
type Replay struct {
	// Run tells two replays of the same record apart. Letters and digits.
	Run        string
	Blob       BlobID
	Generation uint32
	Offset     int64 // of the record in the blob
	Length     int64 // bytes
	// Clock is when a blob without an hour in its path was fetched first, ms UTC; it
	// bounds the event times. 0 for all others.
	Clock int64
	// Ordinals are the tuples that land, rising. Empty: all of the record.
	Ordinals []uint32
}

// replayMark begins what a replay adds to a path.
const replayMark = "#replay="

// ID gives the replay as a blob name. Ordinals are written as runs, so the whole
// of a record is short.
func (r Replay) ID() BlobID {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s%s-%d-%d-%d-%d", r.Blob.Path, replayMark, r.Run, r.Generation, r.Offset, r.Length, r.Clock)
	for i, s := range Spans(r.Ordinals) {
		b.WriteByte("-."[min(i, 1)])
		b.WriteString(strconv.FormatUint(uint64(s.First), 10))
		if s.Last > s.First {
			b.WriteString("~" + strconv.FormatUint(uint64(s.Last), 10))
		}
	}
	return BlobID{Account: r.Blob.Account, Container: r.Blob.Container, Path: b.String()}
}

// ParseReplay reads what ID wrote, and nothing else.
//
// Errors: any other blob name.
func ParseReplay(id BlobID) (Replay, error) {
	r := Replay{Blob: BlobID{Account: id.Account, Container: id.Container}}
	at := strings.LastIndex(id.Path, replayMark)
	if at >= 0 {
		r.Blob.Path = id.Path[:at]
		r.parse(strings.Split(id.Path[at+len(replayMark):], "-"))
	}
	// Whatever did not parse is missing when it is written again.
	if at <= 0 || !validRun(r.Run) || r.Offset < 0 || r.Length < 0 || r.ID() != id {
		return Replay{}, fmt.Errorf("parse replay %q: want a blob's path with %sRUN-GENERATION-OFFSET-LENGTH-CLOCK[-ORDINALS]", id, replayMark)
	}
	return r, nil
}

func (r *Replay) parse(parts []string) {
	if len(parts) < 5 || len(parts) > 6 {
		return
	}
	r.Run = parts[0]
	generation, _ := strconv.ParseUint(parts[1], 10, 32)
	r.Generation = uint32(generation)
	r.Offset, _ = strconv.ParseInt(parts[2], 10, 64)
	r.Length, _ = strconv.ParseInt(parts[3], 10, 64)
	r.Clock, _ = strconv.ParseInt(parts[4], 10, 64)
	if len(parts) == 6 {
		r.Ordinals = parseSpans(parts[5])
	}
}

func validRun(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

// Span is a run of ordinals, both ends among them.
type Span struct{ First, Last uint32 }

// Spans gives rising ordinals as runs.
func Spans(ordinals []uint32) []Span {
	var spans []Span
	for i, o := range ordinals {
		if i > 0 && o == ordinals[i-1]+1 {
			spans[len(spans)-1].Last = o
			continue
		}
		spans = append(spans, Span{o, o})
	}
	return spans
}

// maxOrdinals bounds what a damaged text may ask for; a record has at most 2^20
// tuples.
const maxOrdinals = 1 << 21

// parseSpans gives nil for what Spans would not write.
func parseSpans(s string) []uint32 {
	var ordinals []uint32
	for _, part := range strings.Split(s, ".") {
		first, last, run := strings.Cut(part, "~")
		if !run {
			last = first
		}
		lo, err := strconv.ParseUint(first, 10, 32)
		hi, err2 := strconv.ParseUint(last, 10, 32)
		n := len(ordinals)
		if err != nil || err2 != nil || hi < lo || hi-lo >= maxOrdinals || n >= maxOrdinals || n > 0 && lo <= uint64(ordinals[n-1]) {
			return nil
		}
		ordinals = slices.Grow(ordinals, int(hi-lo)+1)
		for o := lo; o <= hi; o++ {
			ordinals = append(ordinals, uint32(o))
		}
	}
	return ordinals
}
