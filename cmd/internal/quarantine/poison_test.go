package quarantine

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
)

// numbered gives a good tuple that no other number has, of so many bytes if it is
// not longer anyway.
func numbered(n, length int) string {
	at := testHour.UnixMilli() + int64(n%3_600_000)
	text := fmt.Sprintf("%d,10.0.0.1,10.1.0.1,%d,443,6,O,E,NX,%d", at, n%65536, n)
	left := length - len(text) - len(",1,2,3")
	for _, field := range []string{"1", "2", "3"} {
		more := min(max(left, 0), 18)
		left -= more
		text += "," + strings.Repeat(field, 1+more)
	}
	return text
}

// meal is good data with poison in it.
type meal struct {
	w      *world
	n      int              // the next tuple's number
	blob   int              // likewise
	wanted map[Tuple]string // rows that land at once, by address
	mended map[Tuple]string // rows that land when the store has mended them
	fixed  map[pipeline.BlobID]string
	want   map[string]string // entries: what of them, by kind
	ids    []pipeline.BlobID
	sinks  []engine.NamedSink // beside the one in memory
}

func newMeal(w *world) *meal {
	m := &meal{w: w, wanted: map[Tuple]string{}, mended: map[Tuple]string{}, fixed: map[pipeline.BlobID]string{}, want: map[string]string{}}
	m.w.target.live = true
	return m
}

func (m *meal) good(count int) (tuples []string) {
	for range count {
		tuples = append(tuples, numbered(m.n, 0))
		m.n++
	}
	return tuples
}

func (m *meal) serve(text, fixed string) pipeline.BlobID {
	id := nic(m.blob)
	m.blob++
	m.w.blobs.set(id, text)
	m.fixed[id] = fixed
	m.ids = append(m.ids, id)
	return id
}

func keep(into map[Tuple]string, id pipeline.BlobID, offset int64, ordinal int, text string) {
	into[Tuple{id.String(), 0, offset, uint32(ordinal)}] = text
}

// plain serves a blob of good records.
func (m *meal) plain(records int) {
	text := blobHeader
	var offsets []int64
	var all [][]string
	for i := range records {
		if i > 0 {
			text += ","
		}
		offsets = append(offsets, int64(len(text)))
		all = append(all, m.good(5))
		text += recordText(all[i]...)
	}
	id := m.serve(text+"]}", text+"]}")
	for i, offset := range offsets {
		for j, tuple := range all[i] {
			keep(m.wanted, id, offset, j, tuple)
		}
	}
}

// poisoned serves a blob of a good record, the poison, and a good record.
func (m *meal) poisoned(p poison) {
	before, after := m.good(2), m.good(2)
	text := blobHeader + recordText(before...) + ","
	fixed, at := text, int64(len(text))
	var length int
	var inside, mended []string
	switch p.scope {
	case scopeTuple:
		inside = m.good(2)
		text += strings.Replace(recordText(inside[0], "?", inside[1]), `"?"`, p.text, 1)
		length = len(strings.Trim(p.text, `"`))
		if p.text[0] == '"' && length >= len(numbered(m.n, 0)) {
			mended = []string{"", numbered(m.n, length)}
			m.n++
			fixed += recordText(inside[0], mended[1], inside[1])
		}
	case "record":
		mended = m.good(2)
		bad, good := p.spoiled(mended...)
		length = len(bad)
		text += bad
		fixed += good
	default:
		text += p.text
		length = len(p.text)
	}
	behind := int64(len(text)) + 1
	end := "," + recordText(after...) + "]}"
	text += end
	fixed += end
	if p.scope == "blob" {
		at, length, text = 0, len(p.text), p.text
	}
	if p.entry == "range" && p.scope != "blob" {
		length = len(text) - len("]}") - int(at)
	}
	if len(mended) == 0 {
		fixed = text
	}
	id := m.serve(text, fixed)
	m.want[p.name] = fmt.Sprintf("%s %s of %s at %d, tuple %d, %d bytes", p.reason, p.entryScope(), id.Path, at, len(inside)/2, length)
	if p.survive > 0 || p.scope == scopeTuple || p.scope == "record" {
		for i, tuple := range before {
			keep(m.wanted, id, int64(len(blobHeader)), i, tuple)
		}
	}
	if p.survive > 1 || p.scope == scopeTuple || p.scope == "record" {
		for i, tuple := range after {
			keep(m.wanted, id, behind, i, tuple)
		}
	}
	for i, tuple := range inside {
		keep(m.wanted, id, at, 2*i, tuple)
	}
	for i, tuple := range mended {
		if tuple != "" {
			keep(m.mended, id, at, i, tuple)
		}
	}
}

// messages is a source of event messages, bad ones among those that announce blobs.
type messages struct {
	parser *announce.Parser
	bodies []string
	acked  int
	left   announce.Counts
}

func (s *messages) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	for _, body := range s.bodies {
		found, counts := s.parser.Parse([]byte(body))
		for _, reason := range announce.Reasons() {
			s.left[reason] += counts[reason]
		}
		if err := emit(ctx, pipeline.Delivery{Announcements: found, Ack: func() { s.acked++ }}); err != nil {
			return err
		}
	}
	return nil
}

func created(id pipeline.BlobID) string {
	return fmt.Sprintf(`[{"id":"1","eventType":"Microsoft.Storage.BlobCreated","topic":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/%[1]s",`+
		`"subject":"/blobServices/default/containers/%[2]s/blobs/%[3]s","eventTime":"2026-11-23T06:00:00Z","data":{"api":"PutBlockList","blobType":"BlockBlob",`+
		`"url":"https://%[1]s.blob.core.windows.net/%[2]s/%[3]s"},"dataVersion":"","metadataVersion":"1"}]`, id.Account, id.Container, id.Path)
}

// eat runs the live pipeline over everything that was served.
func (m *meal) eat(t *testing.T) engine.Status {
	t.Helper()
	parser, err := announce.New([]announce.Account{{Name: "acc", Containers: []string{"logs"}}})
	if err != nil {
		t.Fatal(err)
	}
	source := &messages{parser: parser, left: announce.Counts{}}
	for _, body := range eventKinds {
		source.bodies = append(source.bodies, body)
	}
	for i, id := range m.ids {
		source.bodies = append(source.bodies, created(id))
		if i == len(m.ids)/2 {
			for _, body := range eventKinds {
				source.bodies = append(source.bodies, body)
			}
		}
	}
	e := m.run(t, source)
	if source.acked != len(source.bodies) {
		t.Errorf("%d of %d messages were acknowledged", source.acked, len(source.bodies))
	}
	left := 0
	for _, n := range source.left {
		left += n
	}
	if left != 2*len(eventKinds) {
		t.Errorf("events left out: %v, want %d", source.left, 2*len(eventKinds))
	}
	return e.Status()
}

// run runs the live pipeline over what a source announces, until that ends.
func (m *meal) run(t *testing.T, source pipeline.Source) *engine.Engine {
	t.Helper()
	directory, err := ledger.OpenDirectory(t.TempDir() + "/live")
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	book, err := ledger.Open(t.Context(), directory, ledger.Info{Shards: 2}, m.w.target.register)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := blob.New(blob.DefaultConfig(decode.SplitRecords), m.w.blobs)
	if err != nil {
		t.Fatal(err)
	}
	cfg, began := testConfig(), time.Now()
	cfg.Shard.MaxBatchAge = 100 * time.Millisecond
	e, err := engine.New(cfg, engine.Parts{
		Ledger: book, Sources: []pipeline.Source{source}, Reader: reader, Sinks: append([]engine.NamedSink{{Sink: m.w.target}}, m.sinks...),
		Operators: m.w.deps.Operators, Allocator: m.w.deps.Allocator, Now: func() time.Time { return testHour.Add(90*time.Minute + time.Since(began)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// Poison among good data, about one tuple in a hundred: the good data lands exactly,
// each poison is in quarantine once, and nothing stops. What the store mends comes
// back in whole with a replay, and a second one changes nothing.
func TestPoison(t *testing.T) {
	m := newMeal(newWorld(t))
	kinds := m.cook()
	status := m.eat(t)
	m.judge(t)
	if status.Rows != int64(len(m.wanted)) || status.Landed != status.Rows || status.Quarantined != int64(len(kinds)) {
		t.Errorf("%+v, want %d rows written and landed, %d entries", status, len(m.wanted), len(kinds))
	}
	m.w.target.live = false
	m.replayNothing(t)
	// Quarantine was full: it has let go of all excerpts, and of nothing else.
	for i := range m.w.target.entries {
		m.w.target.entries[i].Excerpt = ""
	}
	m.replayNothing(t)
	for id, text := range m.fixed {
		m.w.blobs.set(id, text)
	}
	m.replayMended(t)
}

// cook serves each kind among a hundred times as many good tuples.
func (m *meal) cook() []poison {
	kinds := append(append(tupleKinds(), recordKinds()...), placeKinds()...)
	for _, p := range kinds {
		m.plain(16)
		m.poisoned(p)
	}
	return kinds
}

// judge compares rows and quarantine with what was served.
func (m *meal) judge(t *testing.T) {
	t.Helper()
	got, names := map[string]string{}, map[string]string{}
	for name, entry := range m.want {
		names[entry] = name
	}
	for i, e := range m.w.target.entries {
		text := fmt.Sprintf("%s %s of %s at %d, tuple %d, %d bytes", e.Reason, e.Scope, strings.TrimPrefix(e.Blob, "acc/logs/"), e.Offset, e.Ordinal, e.Length)
		name, known := names[text]
		if _, twice := got[name]; !known || twice {
			name = fmt.Sprint("entry ", i)
		}
		got[name] = text
	}
	if diff := cmp.Diff(m.want, got); diff != "" {
		t.Errorf("quarantine (-want +got):\n%s", diff)
	}
	m.rows(t, m.wanted)
}

func (m *meal) rows(t *testing.T, want map[Tuple]string) {
	t.Helper()
	if !maps.Equal(want, m.w.target.content) {
		t.Errorf("rows by address (-want +got):\n%s", cmp.Diff(want, m.w.target.content))
	}
	m.w.once(len(want))
}

// replayNothing replays what is still bad.
func (m *meal) replayNothing(t *testing.T) {
	t.Helper()
	for _, v := range m.w.replay(Filter{}, false) {
		if v.Outcome != Refused {
			t.Errorf("before anything was mended: %+v", v)
		}
	}
	m.rows(t, m.wanted)
}

// replayMended replays what the store has mended, twice.
func (m *meal) replayMended(t *testing.T) {
	t.Helper()
	all := maps.Clone(m.wanted)
	maps.Copy(all, m.mended)
	landed := int64(0)
	for _, v := range m.w.replay(Filter{}, false) {
		landed += v.Rows
	}
	if landed != int64(len(m.mended)) || landed < 60 {
		t.Errorf("%d rows of %d came back", landed, len(m.mended))
	}
	m.rows(t, all)
	landings := m.w.target.landings
	for _, v := range m.w.replay(Filter{}, false) {
		if v.Rows > 0 {
			t.Errorf("landed again: %+v", v)
		}
	}
	if m.w.target.landings != landings {
		t.Errorf("a second replay landed %d pieces", m.w.target.landings-landings)
	}
	m.rows(t, all)
}
