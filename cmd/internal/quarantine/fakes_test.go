package quarantine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blobs is a blob.Store in memory.
type blobs struct {
	mu   sync.Mutex
	text map[pipeline.BlobID]string
	fail map[pipeline.BlobID]bool // busy
}

func (s *blobs) set(id pipeline.BlobID, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text[id] = text
}

func (s *blobs) Get(_ context.Context, id pipeline.BlobID, offset, count int64, _ string) (blob.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok := s.text[id]
	if s.fail[id] {
		return blob.Response{}, &blob.Error{Op: "get blob", Object: id.String(), Kind: blob.KindThrottled, Status: 503}
	}
	if !ok {
		return blob.Response{}, &blob.Error{Op: "get blob", Object: id.String(), Kind: blob.KindMissing, Status: 404}
	}
	end := int64(len(text))
	if offset >= end {
		return blob.Response{}, &blob.Error{Op: "get blob", Object: id.String(), Kind: blob.KindOutOfRange, Status: 416}
	}
	if count > 0 {
		end = min(end, offset+count)
	}
	return blob.Response{Body: io.NopCloser(strings.NewReader(text[offset:end])), ETag: "e", Offset: offset, Length: end - offset, Total: int64(len(text))}, nil
}

// target is a Sink and a Table in memory. Entries are put into it by tests.
type target struct {
	mu       sync.Mutex
	epoch    map[uint16]uint64
	pieces   map[string]int64 // rows by batch, table and partition
	rows     map[Tuple]int    // of flows
	windows  uint64           // sum of rows in windows_traffic_1m
	ranges   map[Tuple]int64  // rows by record, of batches
	ids      map[string]uint16
	entries  []Entry
	highest  map[string]uint32
	before   func(p pipeline.Piece) error // Land
	asked    func()                       // Landed
	landings int

	live    bool             // the live pipeline lands: entries come out of the table's pieces
	content map[Tuple]string // of rows of flows

	partitions map[string]bool // of all tables
	late       uint64          // rows that windows count in corrections
}

func newTarget() *target {
	return &target{
		epoch: map[uint16]uint64{}, pieces: map[string]int64{}, rows: map[Tuple]int{}, ranges: map[Tuple]int64{}, ids: map[string]uint16{},
		highest: map[string]uint32{}, content: map[Tuple]string{}, partitions: map[string]bool{},
	}
}

func key(b pipeline.BatchID, p pipeline.PieceRef) string { return b.String() + p.Table + p.Partition }

func (s *target) Land(ctx context.Context, b pipeline.BatchID, epoch uint64, p pipeline.Piece) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch < s.epoch[b.Ledger()] {
		return pipeline.ErrFenced
	}
	if s.before != nil {
		if err := s.before(p); err != nil {
			return err
		}
	}
	s.landings++
	s.pieces[key(b, p.PieceRef)] += p.Rows
	s.partitions[p.Partition] = true
	column := func(name string) int { return p.Record.Schema().FieldIndices(name)[0] }
	switch p.Table {
	case "flows":
		names := p.Record.Column(column("blob")).(*array.Dictionary)
		for i := range int(p.Rows) {
			at := Tuple{
				names.Dictionary().(*array.String).Value(names.GetValueIndex(i)),
				p.Record.Column(column("generation")).(*array.Uint32).Value(i),
				int64(p.Record.Column(column("record_offset")).(*array.Uint64).Value(i)),
				p.Record.Column(column("ordinal")).(*array.Uint32).Value(i),
			}
			s.rows[at]++
			s.content[at] = tupleOf(p.Record, i)
		}
	case "windows_traffic_1m":
		corrections := p.Record.Column(column("correction")).(*array.Uint8)
		for i, n := range p.Record.Column(column("rows")).(*array.Uint64).Uint64Values() {
			s.windows += n
			s.late += n * uint64(corrections.Value(i))
		}
	case "quarantine":
		if !s.live {
			return errors.New("a replay must not write to quarantine")
		}
		return s.refused(b, p.Record)
	}
	return nil
}

// tupleOf gives the tuple that a row was made of.
func tupleOf(rec arrow.Record, i int) string {
	column := func(name string) arrow.Array { return rec.Column(rec.Schema().FieldIndices(name)[0]) }
	text := fmt.Sprint(int64(column("time").(*array.Timestamp).Value(i)))
	for _, name := range []string{"src_ip", "dst_ip"} {
		a, _ := netip.AddrFromSlice(column(name).(*array.FixedSizeBinary).Value(i))
		text += "," + a.Unmap().String()
	}
	for _, name := range []string{"src_port", "dst_port", "protocol"} {
		text += "," + column(name).ValueStr(i)
	}
	short := map[string]string{"outbound": "O", "inbound": "I", "end": "E", "begin": "B"}
	text += "," + short[column("direction").ValueStr(i)] + "," + short[column("state").ValueStr(i)] + "," + column("encryption").ValueStr(i)
	for _, name := range []string{"packets_sent", "bytes_sent", "packets_received", "bytes_received"} {
		text += "," + column(name).ValueStr(i)
	}
	return text
}

// refused makes entries of a piece of the table quarantine.
func (s *target) refused(b pipeline.BatchID, rec arrow.Record) error {
	column := func(name string) arrow.Array { return rec.Column(rec.Schema().FieldIndices(name)[0]) }
	for i := range int(rec.NumRows()) {
		e := Entry{
			Time: time.UnixMilli(int64(column("time").(*array.Timestamp).Value(i))).UTC(), Batch: uint64(b),
			Reason: pipeline.Reason(column("reason").ValueStr(i)), Detail: column("detail").ValueStr(i), Scope: column("scope").ValueStr(i),
			Blob: column("blob").ValueStr(i), Generation: column("generation").(*array.Uint32).Value(i),
			Offset:  int64(column("record_offset").(*array.Uint64).Value(i)),
			Ordinal: column("ordinal").(*array.Uint32).Value(i), Length: int64(column("length").(*array.Uint64).Value(i)),
			Excerpt: column("excerpt").ValueStr(i),
		}
		a, err := e.at()
		if err != nil {
			return err
		}
		e.Address = a.String()
		s.entries = append(s.entries, e)
	}
	return nil
}

func (s *target) Probe(_ context.Context, b pipeline.BatchID, ps []pipeline.PieceRef) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]int64, len(ps))
	for i, p := range ps {
		out[i] = s.pieces[key(b, p)]
	}
	return out, nil
}

func (s *target) Fence(_ context.Context, ledger uint16, _ int, epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch[ledger] = max(s.epoch[ledger], epoch)
	return nil
}

func (s *target) LandBatches(_ context.Context, manifests []pipeline.Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range manifests {
		for _, u := range m.Units {
			s.ranges[Tuple{u.Blob.String(), u.Generation, u.Offset, uint32(m.Seq)}] = u.Rows
		}
	}
	return nil
}

func (s *target) register(_ context.Context, name string, _ int) (uint16, error) {
	if s.ids[name] == 0 {
		s.ids[name] = uint16(len(s.ids) + 1)
	}
	return s.ids[name], nil
}

func (s *target) Counts(context.Context, Filter) ([]Count, error) { panic("not asked") }

func (s *target) Entries(_ context.Context, f Filter, after *Entry, limit int) ([]Entry, error) {
	order := func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Blob, b.Blob), cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Offset, b.Offset),
			cmp.Compare(a.Ordinal, b.Ordinal), cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Batch, b.Batch))
	}
	sorted := slices.SortedFunc(slices.Values(s.entries), order)
	sorted = slices.DeleteFunc(sorted, func(e Entry) bool {
		picked := len(f.Addresses) == 0
		for _, a := range f.Addresses {
			picked = picked || a.String() == e.Address
		}
		return !picked || f.Reason != "" && e.Reason != f.Reason || !strings.Contains(e.Blob, f.Blob) || after != nil && order(e, *after) <= 0
	})
	return sorted[:min(limit, len(sorted))], nil
}

func (s *target) Generations(context.Context, []string) (map[string]uint32, error) {
	return s.highest, nil
}

func (s *target) Landed(_ context.Context, regions []Region) (map[Tuple]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != nil {
		s.asked()
	}
	found := map[Tuple]bool{}
	for a := range s.rows {
		for _, r := range regions {
			if a.Blob == r.Blob && a.Generation == r.Generation && a.Offset >= r.Start && a.Offset < r.End &&
				(len(r.Ordinals) == 0 || slices.Contains(r.Ordinals, a.Ordinal)) {
				found[a] = true
			}
		}
	}
	return found, nil
}

// world is everything that a replay touches.
type world struct {
	t      *testing.T
	blobs  *blobs
	target *target
	state  string
	deps   Deps
}

func newWorld(t *testing.T) *world {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	t.Cleanup(func() { alloc.AssertSize(t, 0) })
	w := &world{t: t, blobs: &blobs{text: map[pipeline.BlobID]string{}}, target: newTarget(), state: t.TempDir()}
	cfg := blob.DefaultConfig(decode.SplitRecords)
	cfg.MaxTries, cfg.BackoffMin, cfg.BackoffMax = 2, time.Millisecond, time.Millisecond
	ranges, err := blob.New(cfg, w.blobs)
	if err != nil {
		t.Fatal(err)
	}
	w.deps = Deps{
		Table: w.target, Blobs: reread.Blobs{Store: w.blobs, Ranges: ranges}, Allocator: alloc,
		State: w.state, Register: w.target.register, Sinks: []engine.NamedSink{{Sink: w.target}}, Checkpoints: w.target, Config: testConfig(),
		Operators: func() ([]pipeline.Operator, error) {
			op, err := window.New(window.DefaultWindows(), alloc)
			return []pipeline.Operator{op}, err
		},
		Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.DiscardHandler),
	}
	return w
}

func testConfig() engine.Config {
	cfg := engine.DefaultConfig()
	cfg.Tick, cfg.Shard.RetryMin = 5*time.Millisecond, time.Millisecond
	return cfg
}

var testHour = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

// nic gives the blob of a network interface.
func nic(n int) pipeline.BlobID {
	path := fmt.Sprintf("flowLogResourceID=/S/%s/macAddress=%012X/PT1H.json", testHour.Format("y=2006/m=01/d=02/h=15/m=00"), n)
	return pipeline.BlobID{Account: "acc", Container: "logs", Path: path}
}

// tuple gives the text of a good tuple; n tells tuples apart.
func tuple(n int) string {
	return fmt.Sprintf("%d,10.0.0.1,10.1.0.1,%d,443,6,O,E,NX,1,2,3,4", testHour.Add(time.Duration(n)*time.Second).UnixMilli(), n)
}

// recordText gives a record with the tuples.
func recordText(tuples ...string) string {
	return `{"time":"x","flowLogVersion":4,"macAddress":"00000000000A","category":"FlowLogFlowEvent","flowLogResourceID":"/L","targetResourceID":"/T",` +
		`"flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"DefaultRule_x","flowTuples":["` + strings.Join(tuples, `","`) + `"]}]}]}}`
}

const blobHeader = `{"records":[`

// write makes a blob of records and gives their offsets.
func (w *world) write(id pipeline.BlobID, records ...string) []int64 {
	text := blobHeader
	var offsets []int64
	for i, r := range records {
		if i > 0 {
			text += ","
		}
		offsets = append(offsets, int64(len(text)))
		text += r
	}
	w.blobs.set(id, text+"]}")
	return offsets
}

// landLive lands tuples of a record as the live pipeline did.
func (w *world) landLive(id pipeline.BlobID, offset int64, length int, ordinals ...uint32) {
	w.t.Helper()
	directory, err := ledger.OpenDirectory(w.t.TempDir() + "/live")
	if err != nil {
		w.t.Fatal(err)
	}
	defer directory.Close()
	r := replayer{Deps: w.deps, directory: directory}
	book, err := r.open(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	p := pipeline.Replay{Run: "live", Blob: id, Offset: offset, Length: int64(length), Ordinals: ordinals}
	if _, ok := id.Hour(); !ok {
		p.Clock = testHour.UnixMilli()
	}
	data, err := w.deps.Blobs.Ranges.ReadRange(w.t.Context(), id, offset, int64(length))
	if err != nil {
		w.t.Fatal(err)
	}
	source := &reader{blobs: w.deps.Blobs, want: map[pipeline.BlobID]record{p.ID(): recordOf(bytes.Clone(data))}, failed: map[pipeline.BlobID]error{}}
	if _, err := r.engine(w.t.Context(), book, source, announcer{p.ID()}); err != nil || len(source.failed) > 0 {
		w.t.Fatal(err, source.failed)
	}
}

// refuse puts a tuple into quarantine.
func (w *world) refuse(id pipeline.BlobID, offset int64, ordinal uint32, text string) Entry {
	return w.put(Entry{Reason: pipeline.ReasonState, Scope: "tuple", Blob: id.String(), Offset: offset, Ordinal: ordinal, Length: int64(len(text)), Excerpt: startOf([]byte(text))})
}

// refuseWhole puts a record or range into quarantine.
func (w *world) refuseWhole(scope string, id pipeline.BlobID, offset int64, text string) Entry {
	return w.put(Entry{Reason: pipeline.ReasonVersion, Scope: scope, Blob: id.String(), Offset: offset, Length: int64(len(text)), Excerpt: startOf([]byte(text))})
}

func (w *world) put(e Entry) Entry {
	w.t.Helper()
	e.Time, e.Batch = testHour, 1
	a, err := e.at()
	if err != nil {
		w.t.Fatal(err)
	}
	e.Address = a.String()
	w.target.entries = append(w.target.entries, e)
	return e
}

// replay gives the verdicts by address.
func (w *world) replay(f Filter, dry bool) map[string]Verdict {
	w.t.Helper()
	got := map[string]Verdict{}
	err := Replay(w.t.Context(), w.deps, f, dry, func(v Verdict) error {
		if _, twice := got[v.Address]; twice {
			w.t.Errorf("%s is reported twice", v.Address)
		}
		got[v.Address] = v
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// expect compares outcomes and rows of verdicts.
func (w *world) expect(got map[string]Verdict, want map[Entry]string) {
	w.t.Helper()
	if len(got) != len(want) {
		w.t.Errorf("%d verdicts, want %d: %+v", len(got), len(want), got)
	}
	for e, text := range want {
		v := got[e.Address]
		if have := fmt.Sprintf("%s %d+%d", v.Outcome, v.Rows, v.Refused); have != text {
			w.t.Errorf("%s: %q, want %q: %+v", e.Address, have, text, v)
		}
	}
}

// once checks that every address is there once, that windows count every row, and
// how many rows there are.
func (w *world) once(rows int) {
	w.t.Helper()
	for a, n := range w.target.rows {
		if n != 1 {
			w.t.Errorf("%+v landed %d times", a, n)
		}
	}
	if len(w.target.rows) != rows || w.target.windows != uint64(rows) {
		w.t.Errorf("%d rows landed and %d are in windows, want %d", len(w.target.rows), w.target.windows, rows)
	}
}
