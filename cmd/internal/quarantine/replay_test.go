package quarantine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// bad tuples that no decoder takes.
const badState = "1,10.0.0.1,10.1.0.1,1,2,6,O,Z,NX,1,2,3,4"

// A record of which the live pipeline landed 0 and 2, refused 1, 3 and 4; of these
// only 4 is still bad.
func oneRecord(w *world) (id pipeline.BlobID, offset int64, entries [3]Entry) {
	text := recordText(tuple(0), tuple(1), tuple(2), tuple(3), badState)
	id = nic(1)
	offset = w.write(id, recordText(tuple(9)), text)[1]
	w.landLive(id, offset, len(text), 0, 2)
	return id, offset, [3]Entry{w.refuse(id, offset, 1, tuple(1)), w.refuse(id, offset, 3, tuple(3)), w.refuse(id, offset, 4, badState)}
}

func TestReplayLandsWhatIsGoodNowAndNothingElse(t *testing.T) {
	w := newWorld(t)
	_, _, e := oneRecord(w)
	w.once(2)
	want := map[Entry]string{e[0]: "would land 1+0", e[1]: "would land 1+0", e[2]: "still refused 0+1"}
	w.expect(w.replay(Filter{}, true), want)
	w.once(2)
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "landed 1+0", e[1]: "landed 1+0", e[2]: "still refused 0+1"})
	w.once(4)
	landings := w.target.landings
	again := map[Entry]string{e[0]: "already landed 0+0", e[1]: "already landed 0+0", e[2]: "still refused 0+1"}
	w.expect(w.replay(Filter{}, false), again)
	w.expect(w.replay(Filter{}, true), again)
	w.once(4)
	if w.target.landings != landings {
		t.Errorf("a second replay landed %d pieces", w.target.landings-landings)
	}
	if v := w.replay(Filter{}, true)[e[2].Address]; v.Reason != pipeline.ReasonState || v.Detail != `state "Z"` {
		t.Errorf("the entry that stays says %+v", v)
	}
}

func TestReplayOfOneAddress(t *testing.T) {
	w := newWorld(t)
	_, _, e := oneRecord(w)
	a, err := reread.ParseAddress(e[1].Address)
	if err != nil {
		t.Fatal(err)
	}
	w.expect(w.replay(Filter{Addresses: []reread.Address{a}}, false), map[Entry]string{e[1]: "landed 1+0"})
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "landed 1+0", e[1]: "already landed 0+0", e[2]: "still refused 0+1"})
	w.once(4)
}

func TestReplayOfWholeRecordsAndRanges(t *testing.T) {
	w := newWorld(t)
	id := nic(2)
	// A record with a tuple that is still bad, a range of three records with white
	// space between them, a record of another kind.
	first, second, third := recordText(tuple(0), badState, tuple(2)), recordText(tuple(10), tuple(11)), recordText(tuple(20))
	other, empty := `{"category":"Other"}`, recordText()
	empty = strings.Replace(empty, `""`, "", 1)
	at := w.write(id, first, second+" ,\n"+third+","+second, other, empty)
	rangeText := "," + second + " ,\n" + third + "," + second
	e := []Entry{
		w.refuseWhole("record", id, at[0], first), w.refuseWhole("range", id, at[1]-1, rangeText),
		w.refuseWhole("record", id, at[2], other), w.refuseWhole("record", id, at[3], empty),
	}
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "landed 2+1", e[1]: "landed 5+0", e[2]: "still refused 0+1", e[3]: "good, but empty 0+0"})
	w.once(7)
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "already landed 0+1", e[1]: "already landed 0+0", e[2]: "still refused 0+1", e[3]: "good, but empty 0+0"})
	w.once(7)
	// The table batches has the true ranges.
	if n := w.target.ranges[Tuple{id.String(), 0, at[0], 1}]; n != 2 {
		t.Errorf("batches says %d rows for the first record: %v", n, w.target.ranges)
	}
}

// Entries that speak of the same tuples land them once.
func TestReplayOfOverlappingEntries(t *testing.T) {
	w := newWorld(t)
	id := nic(3)
	text := recordText(tuple(0), tuple(1), tuple(2))
	at := w.write(id, text)[0]
	e := []Entry{
		w.refuse(id, at, 1, tuple(1)), w.refuseWhole("range", id, at, text), w.refuseWhole("record", id, at, text),
	}
	got := map[string]Verdict{}
	err := Replay(t.Context(), w.deps, Filter{}, false, func(v Verdict) error {
		got[v.Address+string(v.Was)+fmt.Sprint(len(got))] = v
		return nil
	})
	if err != nil || len(got) != len(e) {
		t.Fatal(err, got)
	}
	var landed int64
	for _, v := range got {
		landed += v.Rows
	}
	if landed != 3 {
		t.Errorf("%d rows are reported as landed, want 3: %+v", landed, got)
	}
	w.once(3)
}

func TestReplayOfExpiredSources(t *testing.T) {
	w := newWorld(t)
	text := recordText(tuple(0), tuple(1))
	var e []Entry
	for n := range 8 {
		at := w.write(nic(n), text)[0]
		e = append(e, w.refuse(nic(n), at, 1, tuple(1)))
	}
	whole := w.refuseWhole("record", nic(5), 12, text)
	w.blobs.mu.Lock()
	delete(w.blobs.text, nic(0))
	w.blobs.mu.Unlock()
	w.write(nic(1))                                                       // the offset is behind its end
	w.write(nic(2), recordText(tuple(0)))                                 // no such ordinal
	w.write(nic(3), recordText(tuple(0), tuple(2)))                       // another tuple
	w.write(nic(4), " ", text)                                            // no record there
	w.write(nic(5), strings.Replace(text, `"time":"x"`, `"time":"y"`, 1)) // the tuple is the same, the record is not
	w.target.highest[nic(6).String()] = 1                                 // the pipeline saw it rewritten
	w.write(nic(7), recordText(tuple(0), tuple(1)+"0"))                   // longer
	want := map[Entry]string{whole: "source expired 0+0"}
	for n := range e {
		want[e[n]] = "source expired 0+0"
	}
	want[e[5]] = "landed 1+0"
	w.expect(w.replay(Filter{}, false), want)
	w.once(1)
}

// A path without an hour: the clock of the first read, which the entry carries,
// still bounds the times.
func TestReplayKeepsTheBoundsOfTime(t *testing.T) {
	w := newWorld(t)
	id := pipeline.BlobID{Account: "acc", Container: "logs", Path: "a#replay=x-0-12-1-0/odd name.json"}
	old := strings.Replace(tuple(0), "17", "15", 1)
	at := w.write(id, recordText(tuple(0), old))[0]
	e := []Entry{w.refuse(id, at, 0, tuple(0)), w.refuse(id, at, 1, old)}
	got := w.replay(Filter{}, false)
	w.expect(got, map[Entry]string{e[0]: "landed 1+0", e[1]: "still refused 0+1"})
	if got[e[1].Address].Reason != pipeline.ReasonTimeRange {
		t.Errorf("%+v", got[e[1].Address])
	}
	w.once(1)
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "already landed 0+0", e[1]: "still refused 0+1"})
}

// What the decoder tolerates, a replay does: a comma too many, white space, records
// within a record, brackets and quotes in texts.
func TestReplayOfLaxRecords(t *testing.T) {
	w := newWorld(t)
	id := nic(4)
	second := testHour.Unix()
	tuples := []string{fmt.Sprintf("%d,1.2.3.4,5.6.7.8,1,2,T,I,A,B,,,,", second), fmt.Sprintf("%d,1.2.3.4,5.6.7.8,1,2,U,O,D,B,,,,", second)}
	nsg := `{"systemId":"s","note":"]}\"}\\","macAddress":"000D3A7F1340","category":"NetworkSecurityGroupFlowEvent","resourceId":"/R","properties":{"Version":2,"flows":[{"rule":"r",` +
		` "flows":[{"flowTuples":["` + tuples[0] + `", "` + tuples[1] + `",]},]},]}}`
	wrapper := `{"records":[` + nsg + `,` + nsg + `]}`
	at := w.write(id, nsg, wrapper)
	inner := at[1] + int64(len(`{"records":[`))
	e := []Entry{w.refuse(id, at[0], 1, tuples[1]), w.refuse(id, inner, 0, tuples[0]), w.refuseWhole("record", id, at[1], wrapper)}
	w.expect(w.replay(Filter{Addresses: []reread.Address{address(t, e[0]), address(t, e[1])}}, false), map[Entry]string{e[0]: "landed 1+0", e[1]: "landed 1+0"})
	w.once(2)
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "already landed 0+0", e[1]: "already landed 0+0", e[2]: "landed 3+0"})
	w.once(5)
}

func TestReplayOfBlobsThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	text := recordText(tuple(0), tuple(1))
	var e []Entry
	for n := range 3 {
		e = append(e, w.refuse(nic(n), w.write(nic(n), text)[0], 1, tuple(1)))
	}
	e = append(e, w.refuseWhole("record", nic(3), w.write(nic(3), text)[0], text))
	w.blobs.fail = map[pipeline.BlobID]bool{nic(3): true}
	// Behind the judgement one blob goes, and one gets other bytes.
	w.target.asked = func() {
		w.blobs.set(nic(1), `{"records":[`+recordText(tuple(0), tuple(2))+`]}`)
		w.blobs.mu.Lock()
		delete(w.blobs.text, nic(2))
		w.blobs.mu.Unlock()
	}
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "landed 1+0", e[1]: "unreadable 0+0", e[2]: "source expired 0+0", e[3]: "unreadable 0+0"})
	w.once(1)
	w.target.asked, w.blobs.fail = nil, nil
	w.expect(w.replay(Filter{}, false), map[Entry]string{e[0]: "already landed 0+0", e[1]: "source expired 0+0", e[2]: "source expired 0+0", e[3]: "landed 2+0"})
	w.once(3)
}

// Law: killed anywhere between intent and the end, the next replay brings every row
// in once, and says so.
func TestReplayKilledAnywhere(t *testing.T) {
	for kill := range 4 { // flows and three window tables
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("piece %d, landed %v", kill, lost), func(t *testing.T) { killedReplay(t, kill, lost) })
		}
	}
}

func killedReplay(t *testing.T, kill int, landed bool) {
	w := newWorld(t)
	id, offset, e := oneRecord(w)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	w.target.before = func(p pipeline.Piece) error {
		if n++; n-1 != kill {
			if n > kill {
				return errors.New("after the kill") // nothing more reaches the server
			}
			return nil
		}
		cancel()
		if landed {
			return nil
		}
		return pipeline.ErrTransient
	}
	err := Replay(ctx, w.deps, Filter{}, false, func(Verdict) error { return nil })
	if !errors.Is(err, context.Canceled) && !strings.Contains(fmt.Sprint(err), "after the kill") {
		t.Fatalf("the killed replay says %v", err)
	}
	w.target.before = nil
	got := w.replay(Filter{}, false)
	w.expect(got, map[Entry]string{e[0]: "already landed 0+0", e[1]: "already landed 0+0", e[2]: "still refused 0+1"})
	w.once(4)
	if w.target.rows[Tuple{id.String(), 0, offset, 4}] != 0 {
		t.Error("the bad tuple landed")
	}
}

// When the blob behind an interrupted replay is gone, people are told what to do.
func TestInterruptedReplayWithoutItsSource(t *testing.T) {
	w := newWorld(t)
	id, _, _ := oneRecord(w)
	ctx, cancel := context.WithCancel(t.Context())
	w.target.before = func(pipeline.Piece) error { cancel(); return pipeline.ErrTransient }
	if err := Replay(ctx, w.deps, Filter{}, false, func(Verdict) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.target.before = nil
	w.blobs.mu.Lock()
	delete(w.blobs.text, id)
	w.blobs.mu.Unlock()
	err := Replay(t.Context(), w.deps, Filter{}, false, func(Verdict) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "remove the folder") {
		t.Fatalf("%v", err)
	}
}

func TestOneReplayAtATime(t *testing.T) {
	w := newWorld(t)
	oneRecord(w)
	first := true
	err := Replay(t.Context(), w.deps, Filter{}, false, func(Verdict) error {
		if !first {
			return nil
		}
		first = false
		err := Replay(t.Context(), w.deps, Filter{}, false, func(Verdict) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("a second replay says %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Many entries over several pages; the ledger does not grow with them.
func TestReplayOfManyPages(t *testing.T) {
	w := newWorld(t)
	want, total := map[Entry]string{}, 0
	for n := range 5 {
		var records []string
		for r := range 10 {
			var tuples []string
			for o := range 60 {
				tuples = append(tuples, tuple(r*60+o))
			}
			records = append(records, recordText(tuples...))
		}
		for r, at := range w.write(nic(n), records...) {
			for o := range 60 {
				if o%3 > 0 {
					want[w.refuse(nic(n), at, uint32(o), tuple(r*60+o))] = "landed 1+0"
					total++
				}
			}
		}
	}
	if total <= pageEntries {
		t.Fatalf("%d entries are one page", total)
	}
	w.expect(w.replay(Filter{}, false), want)
	w.once(total)
	for e := range want {
		want[e] = "already landed 0+0"
	}
	w.expect(w.replay(Filter{}, false), want)
	w.once(total)
	directory, err := ledger.OpenDirectory(w.state + "/quarantine")
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	r := replayer{Deps: w.deps, directory: directory}
	book, err := r.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state, err := book.Recover(t.Context(), 0)
	if err != nil || len(state.Base.Positions)+len(state.Base.Streams)+len(state.Base.Operators)+len(state.Manifests) > 0 || state.Base.Seq == 0 {
		t.Errorf("the ledger keeps %+v, %v", state, err)
	}
}

// A record with ordinals in very many runs becomes several replays of bounded name.
func TestReplaysAreBounded(t *testing.T) {
	j := judged{records: map[int64]record{7: {length: 3}, 9: {length: 4}}}
	for o := range uint32(1000) {
		j.good = append(j.good, tupleAt{7, 2 * o})
		j.missing = append(j.missing, true)
	}
	for o := range uint32(5) {
		j.good = append(j.good, tupleAt{9, o})
		j.missing = append(j.missing, o != 2)
	}
	var names []string
	seen := map[tupleAt]bool{}
	for _, p := range j.replays("x") {
		names = append(names, p.ID().Path)
		for _, o := range p.Ordinals {
			if seen[tupleAt{p.Offset, o}] {
				t.Errorf("tuple %d of record %d is asked for twice", o, p.Offset)
			}
			seen[tupleAt{p.Offset, o}] = true
		}
		if len(pipeline.Spans(p.Ordinals)) > unitSpans || p.Length != j.records[p.Offset].length {
			t.Errorf("%+v", p)
		}
	}
	if len(names) != 6 || len(seen) != 1004 || !strings.HasSuffix(names[5], "-0-9-4-0-0~1.3~4") {
		t.Errorf("%d replays of %d tuples, the last is %s", len(names), len(seen), names[len(names)-1])
	}
}
