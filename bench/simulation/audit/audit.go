package audit

import (
	"fmt"
	"slices"
)

// Audit judges a run.
func Audit(b Book) Verdict {
	a := newAuditor(b)
	a.liveness()
	a.batches()
	table := a.rows("flows", b.Landed)
	a.quarantine()
	a.conservation(table)
	if b.HasTopic {
		a.sameRows(table, a.rows("topic", b.Topic))
	}
	a.assign(table)
	a.units()
	a.watermarks()
	a.windows()
	a.acks()
	return a.verdict
}

// auditor holds a book by what its parts are looked up by.
type auditor struct {
	book    Book
	verdict Verdict

	places  map[place][]int // tuples that were ever written there, by rising generation
	numbers map[uint64]int  // tuples
	chains  map[int][]Batch // of each shard, by rising sequence
	shards  []int           // sorted
	ranges  map[content][]*span
	unitOf  []*span         // of each tuple that was committed and is good
	seen    map[content]int // generation that the pipeline gave to a blob's content
	reject  []bool          // tuples that are in quarantine
}

// place is where in a blob a tuple stands, whatever the blob's content is by now.
type place struct {
	blob    string
	offset  int64
	ordinal int
}

// content is what a blob holds between two rewrites: the key is the truth's number of
// it in places that speak of tuples, the pipeline's in those that speak of units.
type content struct {
	blob       string
	generation int
}

// span is a unit with the batch that committed it.
type span struct {
	Unit
	batch *Batch
	prior int64 // watermark of the shard before that batch

	rows   int64 // good tuples in it
	latest int64 // highest event time of theirs, ms; 0 without any
}

func newAuditor(b Book) *auditor {
	a := &auditor{
		book: b, places: map[place][]int{}, numbers: map[uint64]int{}, chains: map[int][]Batch{},
		ranges: map[content][]*span{}, unitOf: make([]*span, len(b.Written)), seen: map[content]int{}, reject: make([]bool, len(b.Written)),
	}
	for i, t := range b.Written {
		at := placeOf(t)
		a.places[at] = append(a.places[at], i)
		if first, ok := a.numbers[t.Number]; ok {
			a.find(&a.verdict.Altered, "the generator wrote number %d twice: %s and %s", t.Number, b.Written[first], t)
		}
		a.numbers[t.Number] = i
	}
	for _, is := range a.places {
		slices.SortFunc(is, func(x, y int) int { return b.Written[x].Generation - b.Written[y].Generation })
	}
	return a
}

func placeOf(t Tuple) place { return place{t.Blob, t.Offset, t.Ordinal} }

// String names the tuple for people.
func (t Tuple) String() string {
	return fmt.Sprintf("tuple %d (blob %q, generation %d, byte %d, ordinal %d)", t.Number, t.Blob, t.Generation, t.Offset, t.Ordinal)
}

// find counts a finding and tells it, unless enough were told.
func (a *auditor) find(count *int, format string, args ...any) {
	*count++
	if len(a.verdict.Findings) == MaxFindings {
		a.verdict.More++
		return
	}
	a.verdict.Findings = append(a.verdict.Findings, fmt.Sprintf(format, args...))
}

// liveness: once nothing fails any more, the pipeline comes to an end in time.
func (a *auditor) liveness() {
	switch b := a.book; {
	case b.Unstartable != "":
		a.find(&a.verdict.Stuck, "stuck: no start succeeds any more: %s", b.Unstartable)
	case !b.Drained:
		a.find(&a.verdict.Stuck, "stuck: the pipeline has not come to an end %d ms after the last fault", b.DrainMS)
	case b.DrainMS > MaxDrainMS:
		a.find(&a.verdict.Stuck, "stuck: the end came %d ms after the last fault, the limit is %d ms", b.DrainMS, MaxDrainMS)
	}
}

// acks: nothing is acknowledged before it is durable.
func (a *auditor) acks() {
	for _, k := range a.book.Acks {
		if k.DurableLength < k.Length {
			a.find(&a.verdict.Acks, "acknowledged early: message %d of partition %d at %d ms: blob %q is announced up to byte %d and durable up to byte %d",
				k.Offset, k.Partition, k.AtMS, k.Blob, k.Length, k.DurableLength)
		}
	}
}

// conservation: what was written has landed, or is in quarantine, or is still under
// way; after the drain nothing is.
func (a *auditor) conservation(landed []int) {
	for i, t := range a.book.Written {
		switch {
		case landed[i] > 0:
			a.verdict.Landed++
		case a.reject[i]:
			a.verdict.Quarantined++
		case t.Gone:
			a.verdict.Gone++
		case !a.book.Drained:
			a.verdict.Pending++
		default:
			a.find(&a.verdict.Lost, "lost: %s%s", t, reasonOf(t))
		}
	}
	a.verdict.Written = len(a.book.Written)
}

func reasonOf(t Tuple) string {
	if t.Reason == "" {
		return ""
	}
	return fmt.Sprintf(", which belongs into quarantine as %q", t.Reason)
}
