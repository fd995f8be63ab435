package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// estate is a few growing blobs in memory. It is a blob.Store and, by its listing,
// a Source and a Sweeper.
type estate struct {
	mu      sync.Mutex
	hour    time.Time
	regions map[pipeline.BlobID][]byte
	written int // good tuples
	bad     int // malformed ones
	rng     *rand.Rand
	changed chan pipeline.BlobID
}

func newEstate(seed uint64, nics int) *estate {
	e := &estate{hour: time.Now().UTC().Truncate(time.Hour), regions: map[pipeline.BlobID][]byte{}, rng: rand.New(rand.NewPCG(seed, 2)), changed: make(chan pipeline.BlobID, 10_000)}
	for i := range nics {
		path := fmt.Sprintf("flowLogResourceID=/S_RG/NW_LOG/%s/macAddress=%012X/PT1H.json", e.hour.Format("y=2006/m=01/d=02/h=15/m=00"), i+1)
		e.regions[pipeline.BlobID{Account: "acc", Container: "logs", Path: path}] = nil
	}
	return e
}

// grow appends one record to every blob and tells of most of it.
func (e *estate) grow() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, region := range e.regions {
		var rec bytes.Buffer
		if len(region) > 0 {
			rec.WriteByte(',')
		}
		fmt.Fprintf(&rec, `{"time":"x","flowLogVersion":4,"macAddress":"00000000000A","category":"FlowLogFlowEvent","flowLogResourceID":"/L","targetResourceID":"/T","operationName":"FlowLogFlowEvent","flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"DefaultRule_x","flowTuples":[`)
		n := 1 + e.rng.IntN(40)
		for i := range n {
			if i > 0 {
				rec.WriteByte(',')
			}
			port := e.rng.IntN(65536)
			if e.rng.IntN(200) == 0 {
				port, e.bad, e.written = 70000, e.bad+1, e.written-1
			}
			fmt.Fprintf(&rec, `"%d,10.0.0.%d,10.1.0.%d,%d,443,6,O,E,NX,1,2,3,4"`, e.hour.UnixMilli()+int64(e.rng.IntN(3_600_000)), e.rng.IntN(255), e.rng.IntN(255), port)
		}
		e.written += n
		rec.WriteString(`]}]}]}}`)
		e.regions[id] = append(region, rec.Bytes()...)
		if e.rng.IntN(20) > 0 {
			e.changed <- id
		}
	}
}

func (e *estate) content(id pipeline.BlobID) ([]byte, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	region, ok := e.regions[id]
	return []byte(`{"records":[` + string(region) + `]}`), ok
}

func (e *estate) Get(_ context.Context, id pipeline.BlobID, offset, count int64, _ string) (blob.Response, error) {
	data, ok := e.content(id)
	if !ok {
		return blob.Response{}, &blob.Error{Op: "get blob", Object: id.String(), Kind: blob.KindMissing, Status: 404}
	}
	end := int64(len(data))
	if offset >= end {
		return blob.Response{}, &blob.Error{Op: "get blob", Object: id.String(), Kind: blob.KindOutOfRange, Status: 416}
	}
	if count > 0 {
		end = min(end, offset+count)
	}
	return blob.Response{Body: io.NopCloser(bytes.NewReader(data[offset:end])), ETag: fmt.Sprint(len(data)), Offset: offset, Length: end - offset, Total: int64(len(data))}, nil
}

func (e *estate) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	for {
		select {
		case id := <-e.changed:
			data, _ := e.content(id)
			err := emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: id, ContentLength: int64(len(data))}}, Ack: func() {}})
			if err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *estate) Sweep(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	for id := range e.regions {
		if err := emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: id, ContentLength: -1}}}); err != nil {
			return err
		}
	}
	return nil
}

// target is a Sink in memory that keeps addresses and loses answers.
type target struct {
	mu        sync.Mutex
	rng       *rand.Rand
	epoch     map[int]uint64
	rows      map[string]int64 // by batch/table/partition
	addresses map[string]int
	windows   uint64
	rejects   int64
	away      bool // refuses everything
	refused   int  // ... so often
	steady    bool // refuses nothing and loses no answer
}

func newTarget() *target {
	return &target{rng: rand.New(rand.NewPCG(1, 1)), epoch: map[int]uint64{}, rows: map[string]int64{}, addresses: map[string]int{}}
}

func key(b pipeline.BatchID, p pipeline.PieceRef) string { return b.String() + p.Table + p.Partition }

func (s *target) Land(_ context.Context, b pipeline.BatchID, epoch uint64, p pipeline.Piece) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		s.refused++
		return pipeline.ErrTransient
	}
	if epoch < s.epoch[b.Shard()] {
		return pipeline.ErrFenced
	}
	fate := s.rng.IntN(10)
	if s.steady {
		fate = 9
	}
	switch fate {
	case 0:
		return pipeline.ErrTransient
	case 1:
		return pipeline.ErrInDoubt
	}
	s.rows[key(b, p.PieceRef)] += p.Rows
	s.insert(p)
	for _, part := range p.Parts {
		s.insert(part)
	}
	if fate == 2 {
		return pipeline.ErrInDoubt
	}
	return nil
}

func (s *target) insert(p pipeline.Piece) {
	switch p.Table {
	case "flows":
		s.keep(p)
	case "quarantine":
		s.rejects += p.Rows
	case "windows_traffic_1m":
		col := p.Record.Column(p.Record.Schema().FieldIndices("rows")[0]).(*array.Uint64)
		for i := range col.Len() {
			s.windows += col.Value(i)
		}
	}
}

func (s *target) keep(p pipeline.Piece) {
	column := func(name string) int { return schemas.Flows.Index(name) }
	blobs := p.Record.Column(column("blob")).(*array.Dictionary)
	names := blobs.Dictionary().(*array.String)
	offsets := p.Record.Column(column("record_offset")).(*array.Uint64)
	ordinals := p.Record.Column(column("ordinal")).(*array.Uint32)
	generations := p.Record.Column(column("generation")).(*array.Uint32)
	for i := range int(p.Rows) {
		s.addresses[fmt.Sprintf("%s %d %d %d", names.Value(blobs.GetValueIndex(i)), generations.Value(i), offsets.Value(i), ordinals.Value(i))]++
	}
}

func (s *target) Probe(_ context.Context, b pipeline.BatchID, ps []pipeline.PieceRef) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]int64, len(ps))
	for i, p := range ps {
		out[i] = s.rows[key(b, p)]
	}
	return out, nil
}

func (s *target) Fence(_ context.Context, _ uint16, shard int, epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch[shard] = max(s.epoch[shard], epoch)
	return nil
}

func start(t testing.TB, dir string, e *estate, s *target, alloc memory.Allocator) (*engine.Engine, func()) {
	t.Helper()
	return startWith(t, dir, e, s, alloc, func(*engine.Config) {})
}

func startWith(t testing.TB, dir string, e *estate, s *target, alloc memory.Allocator, change func(*engine.Config)) (*engine.Engine, func()) {
	t.Helper()
	return startSinks(t, dir, e, []engine.NamedSink{{Sink: s}}, alloc, change)
}

func startSinks(t testing.TB, dir string, e *estate, sinks []engine.NamedSink, alloc memory.Allocator, change func(*engine.Config)) (*engine.Engine, func()) {
	t.Helper()
	return startParts(t, dir, e, sinks, alloc, func(c *engine.Config, _ *engine.Parts) { change(c) })
}

func startParts(t testing.TB, dir string, e *estate, sinks []engine.NamedSink, alloc memory.Allocator, change func(*engine.Config, *engine.Parts)) (*engine.Engine, func()) {
	t.Helper()
	store, err := ledger.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	book, err := ledger.Open(t.Context(), store, ledger.Info{Shards: 3, Start: e.hour}, func(context.Context, string, int) (uint16, error) { return 9, nil })
	if err != nil {
		t.Fatal(err)
	}
	reader, err := blob.New(blob.DefaultConfig(decode.SplitRecords), e)
	if err != nil {
		t.Fatal(err)
	}
	cfg := engine.DefaultConfig()
	cfg.Shard.MaxBatchAge, cfg.Shard.BaseEvery, cfg.Tick = 100*time.Millisecond, 300*time.Millisecond, 10*time.Millisecond
	cfg.Shard.RetryMin = time.Millisecond
	parts := engine.Parts{
		Ledger: book, Sources: []pipeline.Source{e}, Reader: reader, Sinks: sinks, Allocator: alloc,
		Operators: func() ([]pipeline.Operator, error) {
			op, err := window.New(window.DefaultWindows(), alloc)
			return []pipeline.Operator{op}, err
		},
		Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	change(&cfg, &parts)
	eng, err := engine.New(cfg, parts)
	if err != nil {
		t.Fatal(err)
	}
	return eng, func() { store.Close() }
}

// Law: stopped hard again and again while answers get lost, the pipeline lands
// every tuple exactly once, and the windows count every row.
func TestEngineLandsExactlyOnceOverHardStops(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	dir := t.TempDir() + "/ledger"
	e, s := newEstate(3, 12), newTarget()
	for round := range 6 {
		eng, stop := start(t, dir, e, s, alloc)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- eng.Run(ctx) }()
		for range 10 {
			e.grow()
			time.Sleep(20 * time.Millisecond)
		}
		if round == 5 {
			eng.Drain(true)
		} else {
			cancel()
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("does not stop: %+v", eng.Status())
		}
		cancel()
		stop()
	}
	s.wantAll(t, e)
}

// wantAll says that everything written is there once.
func (s *target) wantAll(t *testing.T, e *estate) {
	t.Helper()
	if len(s.addresses) != e.written {
		t.Errorf("%d tuples landed, %d were written", len(s.addresses), e.written)
	}
	for a, n := range s.addresses {
		if n != 1 {
			t.Fatalf("tuple %s landed %d times", a, n)
		}
	}
	if s.rejects != int64(e.bad) || e.bad == 0 {
		t.Errorf("%d entries in quarantine, %d tuples were malformed", s.rejects, e.bad)
	}
	if s.windows != uint64(e.written) {
		t.Errorf("windows count %d rows, %d tuples were written", s.windows, e.written)
	}
}

// A soft stop that cannot finish ends in time and says what it waited for.
func TestDrainIsBounded(t *testing.T) {
	e, s := newEstate(5, 3), newTarget()
	s.away = true
	eng, stop := startWith(t, t.TempDir()+"/ledger", e, s, memory.DefaultAllocator, func(c *engine.Config) { c.DrainTimeout = 300 * time.Millisecond })
	defer stop()
	done := make(chan error, 1)
	go func() { done <- eng.Run(t.Context()) }()
	e.grow()
	time.Sleep(50 * time.Millisecond)
	eng.Drain(false)
	select {
	case err := <-done:
		if !errors.Is(err, engine.ErrDrainTimeout) {
			t.Errorf("a stop without a target gives %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("does not stop")
	}
}

// Bytes between records that are no record go to quarantine as one range, and the
// records behind them land: nothing blocks a blob for ever.
func TestMalformedRangeDoesNotBlockItsBlob(t *testing.T) {
	e, s := newEstate(6, 1), newTarget()
	dir := t.TempDir() + "/ledger"
	eng, stop := start(t, dir, e, s, memory.DefaultAllocator)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- eng.Run(t.Context()) }()
	e.grow()
	waitFor(t, func() bool { return eng.Status().Landed > 0 })
	e.spoil([]byte(`;;; no record ;;;`))
	waitFor(t, func() bool { return eng.Status().Quarantined > int64(e.bad) })
	e.grow()
	eng.Drain(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(s.addresses) != e.written || s.rejects != int64(e.bad)+1 {
		t.Errorf("%d of %d tuples landed, %d entries in quarantine, want %d", len(s.addresses), e.written, s.rejects, e.bad+1)
	}
}

// spoil appends bytes as they are and tells of it.
func (e *estate) spoil(text []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.regions {
		e.regions[id] = append(e.regions[id], text...)
		e.changed <- id
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 20 s")
		}
	}
}

// A blob whose old bytes changed is a new generation: what was landed stays, the
// new content lands under addresses of its own, and the blob goes on growing.
func TestRewrittenBlobIsANewGeneration(t *testing.T) {
	e, s := newEstate(6, 1), newTarget()
	eng, stop := start(t, t.TempDir()+"/ledger", e, s, memory.DefaultAllocator)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- eng.Run(t.Context()) }()
	e.grow()
	waitFor(t, func() bool { return eng.Status().Landed > 0 })
	e.mu.Lock()
	for id := range e.regions {
		e.regions[id] = nil // written anew, from the first byte on
	}
	e.mu.Unlock()
	for range 4 {
		e.grow() // longer than it was
	}
	eng.Drain(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(s.addresses) != e.written || s.windows != uint64(e.written) {
		t.Errorf("%d addresses and %d rows in windows, %d tuples were written over two generations", len(s.addresses), s.windows, e.written)
	}
	second := 0
	for a := range s.addresses {
		if strings.Contains(a, "PT1H.json 1 ") {
			second++
		}
	}
	if second == 0 || second == len(s.addresses) {
		t.Errorf("%d of %d rows are of the second generation", second, len(s.addresses))
	}
}

// A read may end while its last chunk still waits for room in the open batch: the
// chunk comes first all the same.
func TestReadEndsBehindItsLastChunk(t *testing.T) {
	e, s := newEstate(9, 6), newTarget()
	s.away = true
	eng, stop := startWith(t, t.TempDir()+"/ledger", e, s, memory.DefaultAllocator, func(c *engine.Config) {
		c.Shard.MaxInFlight, c.Shard.MaxBatchRows = 1, 1000
	})
	defer stop()
	done := make(chan error, 1)
	go func() { done <- eng.Run(t.Context()) }()
	for range 150 {
		e.grow()
		time.Sleep(2 * time.Millisecond)
	}
	waitFor(t, func() bool { return eng.Status().InFlight == 3 && eng.Status().Reading > 0 })
	s.mu.Lock()
	s.away = false
	s.mu.Unlock()
	eng.Drain(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(s.addresses) != e.written {
		t.Errorf("%d of %d tuples landed", len(s.addresses), e.written)
	}
}
