package engine_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
)

// oneBlob is a blob.Store, a Source and a Reader's world of one blob.
type oneBlob struct {
	id   pipeline.BlobID
	text string
}

func (b oneBlob) Get(_ context.Context, _ pipeline.BlobID, offset, _ int64, _ string) (blob.Response, error) {
	if offset >= int64(len(b.text)) {
		return blob.Response{}, &blob.Error{Op: "get blob", Object: b.id.String(), Kind: blob.KindOutOfRange, Status: 416}
	}
	rest := b.text[offset:]
	return blob.Response{Body: io.NopCloser(strings.NewReader(rest)), ETag: "e", Offset: offset, Length: int64(len(rest)), Total: int64(len(b.text))}, nil
}

func (b oneBlob) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	return emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: b.id, ContentLength: -1}}})
}

// keeper is a Sink that keeps what goes to quarantine, and counts the rows.
type keeper struct {
	mu      sync.Mutex
	flows   int64
	entries []string
}

func (k *keeper) Land(_ context.Context, _ pipeline.BatchID, _ uint64, p pipeline.Piece) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.Table != "quarantine" {
		k.flows += p.Rows
		return nil
	}
	column := func(name string) int { return p.Record.Schema().FieldIndices(name)[0] }
	word := func(name string, i int) string {
		d := p.Record.Column(column(name)).(*array.Dictionary)
		return d.Dictionary().(*array.String).Value(d.GetValueIndex(i))
	}
	number := func(name string, i int) uint64 { return p.Record.Column(column(name)).(*array.Uint64).Value(i) }
	for i := range int(p.Rows) {
		k.entries = append(k.entries, fmt.Sprintf("%s %s at %d, tuple %d, %d bytes: %.40s", word("reason", i), word("scope", i), number("record_offset", i),
			p.Record.Column(column("ordinal")).(*array.Uint32).Value(i), number("length", i), p.Record.Column(column("excerpt")).(*array.String).Value(i)))
	}
	return nil
}

func (k *keeper) Probe(_ context.Context, _ pipeline.BatchID, ps []pipeline.PieceRef) ([]int64, error) {
	return make([]int64, len(ps)), nil
}

func (k *keeper) Fence(context.Context, uint16, int, uint64) error { return nil }

// broken is an allocator that panics once, where the decoder asks for the memory of
// its first rows: the engine shows no other way to a defect of the decoder.
type broken struct {
	memory.Allocator
	done bool
}

func (b *broken) Allocate(size int) []byte {
	if !b.done {
		b.done = true
		panic("a defect")
	}
	return b.Allocator.Allocate(size)
}

// run lands one blob and gives what became of it.
func (b oneBlob) run(t *testing.T, alloc memory.Allocator) *keeper {
	t.Helper()
	store, err := ledger.OpenDirectory(t.TempDir() + "/ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	book, err := ledger.Open(t.Context(), store, ledger.Info{Shards: 1}, func(context.Context, string, int) (uint16, error) { return 9, nil })
	if err != nil {
		t.Fatal(err)
	}
	reader, err := blob.New(blob.DefaultConfig(decode.SplitRecords), b)
	if err != nil {
		t.Fatal(err)
	}
	cfg := engine.DefaultConfig()
	cfg.Tick = 5 * time.Millisecond
	k := &keeper{}
	e, err := engine.New(cfg, engine.Parts{
		Ledger: book, Sources: []pipeline.Source{b}, Reader: reader, Sinks: []engine.NamedSink{{Sink: k}}, Allocator: alloc,
		Operators: func() ([]pipeline.Operator, error) { return nil, nil },
		Meter:     metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := e.Run(ctx); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	return k
}

// Each reason is produced out of a blob's bytes, through the reader, the decoder and
// the engine, in the table quarantine; what is good beside it lands.
func TestEveryReasonReachesQuarantine(t *testing.T) {
	hour := time.Now().UTC().Truncate(time.Hour)
	id := pipeline.BlobID{Account: "acc", Container: "logs", Path: "f/" + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/macAddress=000000000001/PT1H.json"}
	fields := func(changes ...string) string {
		f := strings.Split(fmt.Sprintf("%d,10.0.0.1,10.1.0.1,1,443,6,O,E,NX,1,2,3,4", hour.UnixMilli()), ",")
		for i := 0; i+1 < len(changes); i += 2 {
			var at int
			if _, err := fmt.Sscan(changes[i], &at); err != nil {
				t.Fatal(err)
			}
			f[at] = changes[i+1]
		}
		return strings.Join(f, ",")
	}
	record := func(head string, tuples ...string) string {
		return `{"category":"FlowLogFlowEvent",` + head + `"flowRecords":{"flows":[{"flowGroups":[{"flowTuples":["` + strings.Join(tuples, `","`) + `"]}]}]}}`
	}
	good := record("", fields())
	const first = 12 // offset of the first record
	second := first + len(good) + 1
	whole := func(scope, text string) string {
		return fmt.Sprintf("%s at %d, tuple 0, %d bytes: %.40s", scope, second, len(text), text)
	}
	bad := func(text string) (string, string) {
		return record("", fields(), text, fields()), fmt.Sprintf("tuple at %d, tuple 1, %d bytes: %.40s", second, len(text), text)
	}
	deep := `{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`
	type sample struct {
		text, want string
		rows       int64 // beside the good record's
	}
	samples := map[pipeline.Reason]sample{
		pipeline.ReasonSyntax:    {`{"category":nonsense}`, whole("record", `{"category":nonsense}`), 1},
		pipeline.ReasonTruncated: {`{"category":{"a":{}}`, whole("range", `{"category":{"a":{}}`), 0},
		pipeline.ReasonShape:     {`{"category":"Other"}`, whole("record", `{"category":"Other"}`), 1},
		pipeline.ReasonVersion:   {record(`"flowLogVersion":5,`, fields()), whole("record", record(`"flowLogVersion":5,`, fields())), 1},
		pipeline.ReasonEncoding:  {record(`"targetResourceID":"\ud800",`, fields()), whole("record", record(`"targetResourceID":"\ud800",`, fields())), 1},
		pipeline.ReasonLimit:     {deep, whole("record", deep), 1},
	}
	for reason, text := range map[pipeline.Reason]string{
		pipeline.ReasonFieldCount: fields() + ",5", pipeline.ReasonTime: fields("0", "noon"), pipeline.ReasonTimeRange: fields("0", "1600000000000"),
		pipeline.ReasonAddress: fields("1", "10.0.0.300"), pipeline.ReasonPort: fields("4", "65536"), pipeline.ReasonProtocol: fields("5", "tcp"),
		pipeline.ReasonDirection: fields("6", "X"), pipeline.ReasonState: fields("7", "Z"), pipeline.ReasonCounter: fields("9", "-1"),
	} {
		s, want := bad(text)
		samples[reason] = sample{s, want, 3}
	}
	for reason, s := range samples {
		t.Run(string(reason), func(t *testing.T) {
			alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
			defer alloc.AssertSize(t, 0)
			blob := oneBlob{id, `{"records":[` + good + "," + s.text + "," + good + "]}"}
			if reason == pipeline.ReasonTruncated {
				blob.text = `{"records":[` + good + "," + s.text + "]}"
			}
			k := blob.run(t, alloc)
			if diff := cmp.Diff([]string{string(reason) + " " + s.want}, k.entries); diff != "" {
				t.Errorf("quarantine (-want +got):\n%s", diff)
			}
			if k.flows != s.rows+1 {
				t.Errorf("%d rows landed, want %d", k.flows, s.rows+1)
			}
		})
	}
	t.Run(string(pipeline.ReasonDecoderPanic), func(t *testing.T) {
		k := oneBlob{id, `{"records":[` + good + "]}"}.run(t, &broken{Allocator: memory.NewGoAllocator()})
		if len(k.entries) != 1 || !strings.HasPrefix(k.entries[0], fmt.Sprintf("decoder_panic record at %d, tuple 0, %d bytes: {", first, len(good))) {
			t.Errorf("quarantine: %q", k.entries)
		}
	})
	if len(samples)+1 != 16 {
		t.Errorf("%d reasons are tested, the list has 16", len(samples)+1)
	}
}
