package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

func TestDefaultsAreValidBesideBrokers(t *testing.T) {
	c := DefaultConfig()
	c.Broker.Brokers = []string{"kafka:9092"}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEveryFaultOfAConfigurationIsTold(t *testing.T) {
	c := Config{
		Broker: broker.Config{Brokers: []string{"nowhere"}, SASL: broker.SASL{Mechanism: "plain", User: "u", Password: secret.New("hunter2")}},
		Topics: map[string]string{"flows": "a b", "quarantine": "p"}, ProgressTopic: "p",
		Format: "xml", Key: "colour", Compression: "rar", TransactionTimeout: 1, RequestTimeout: 1,
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, want := range []string{
		`brokers[0]: "nowhere"`, "in clear text", `topics.flows: "a b"`, "is the progress topic", `format: "xml"`, `key: "colour"`,
		`compression: "rar"`, "partitions: 0", "replication: 0", "transaction_timeout", "request_timeout",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the password is in the error")
	}
}

// The record of a shard's progress remembers the last batches one by one and knows
// of the others that they are done.
func TestProgressRemembers(t *testing.T) {
	ref := func(seq uint64) pipeline.PieceRef { return pipeline.PieceRef{Table: "flows", Rows: int64(seq)} }
	p := progress{}
	const last = 3 * remembered
	for seq := uint64(10); seq <= last; seq += 2 { // every other batch has rows
		if found, err := p.find(seq, ref(seq)); found != 0 || err != nil {
			t.Fatalf("batch %d before it landed: %d, %v", seq, found, err)
		}
		p = p.with(1, seq, ref(seq))
	}
	if len(p.Landed) != remembered {
		t.Errorf("%d batches are named, want %d", len(p.Landed), remembered)
	}
	for seq := uint64(10); seq <= last; seq += 2 {
		if found, err := p.find(seq, ref(seq)); found != int64(seq) || err != nil {
			t.Errorf("batch %d: %d rows, %v, want %d", seq, found, err, seq)
		}
	}
	if found, err := p.find(last+2, ref(last+2)); found != 0 || err != nil {
		t.Errorf("a batch to come: %d, %v", found, err)
	}
	if _, err := p.find(last, pipeline.PieceRef{Table: "flows", Rows: last, MinTime: 1}); err == nil {
		t.Error("other rows under the same number are taken for the batch's")
	}
	// One that comes late is entered in its place.
	p = p.with(2, last-1, ref(last-1))
	if !slices.IsSortedFunc(p.Landed, func(a, b landedRef) int { return int(a.Seq) - int(b.Seq) }) || p.Epoch != 2 || !p.done(last-1) {
		t.Errorf("after a late batch: %+v", p)
	}
}

func TestArrowMessagesAreCutUntilTheyFit(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	p := sinktest.Make(mem, sinktest.Shape{Table: schemas.Flows, Batch: 1, Seed: 1, Rows: 5000, MACs: 50})
	defer p.Record.Release()
	whole := sinktest.Lines(p.Record)
	for _, limit := range []int{20_000, 50_000, 900 << 10} {
		parts, err := cutArrow(p.Record, 0, 5000, limit)
		if err != nil {
			t.Fatal(err)
		}
		next := 0
		var lines []string
		for _, part := range parts {
			if len(part.stream) > limit || part.from != next {
				t.Fatalf("limit %d: a part of %d bytes from row %d, want row %d", limit, len(part.stream), part.from, next)
			}
			next = part.to
			for _, rec := range readArrow(t, part.stream) {
				lines = append(lines, sinktest.Lines(rec)...)
				rec.Release()
			}
		}
		if diff := cmp.Diff(whole, sorted(lines)); diff != "" {
			t.Errorf("limit %d (-want +got):\n%.1000s", limit, diff)
		}
		t.Logf("limit %d: %d parts", limit, len(parts))
	}
	if _, err := cutArrow(p.Record, 0, 5000, 500); err == nil || !strings.Contains(err.Error(), "format json") {
		t.Errorf("rows longer than the limit: %v", err)
	}
}

func TestRegisteredIDsAreUnique(t *testing.T) {
	known := map[uint16]ledgerEntry{1: {ID: 1, Name: "a", Shards: 4}, 7: {ID: 7, Name: "b", Shards: 2}}
	for _, c := range []struct {
		name   string
		shards int
		given  uint16
		want   string
	}{
		{"a", 4, 0, "1 known"},
		{"a", 4, 1, "1 known"},
		{"c", 4, 0, "8 new"},
		{"c", 4, 3, "3 new"},
		{"a", 5, 0, "registered with 4 shards"},
		{"a", 4, 2, "id 1 here and id 2"},
		{"c", 4, 7, `belongs to ledger "b"`},
	} {
		e, isNew, err := admitLedger(known, c.name, c.shards, c.given)
		got := fmt.Sprintf("%d known", e.ID)
		if isNew {
			got = fmt.Sprintf("%d new", e.ID)
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// Batches that come in any order leave the line in that of their numbers.
func TestLineKeepsOrder(t *testing.T) {
	l := newLine()
	const n = 50
	var order []uint64
	var wg sync.WaitGroup
	for seq := uint64(1); seq <= n; seq++ {
		l.plan(seq)
	}
	for seq := uint64(n); seq > 0; seq-- {
		wg.Go(func() {
			for {
				leave, err := l.enter(t.Context(), seq, func() error { return nil })
				if errors.Is(err, pipeline.ErrTransient) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, seq)
				l.landed(func(planned uint64) bool { return planned == seq })
				leave()
				return
			}
		})
	}
	wg.Wait()
	if !slices.IsSorted(order) || len(order) != n {
		t.Errorf("order %v", order)
	}
}

// A batch whose predecessor does not come gives up soon, and one that is cancelled
// at once: both must return for the core to fence.
func TestLineDoesNotWaitForever(t *testing.T) {
	l := newLine()
	l.plan(1)
	l.plan(2)
	settle := func() error { return nil }
	if _, err := l.enter(t.Context(), 2, settle); !errors.Is(err, pipeline.ErrTransient) || !strings.Contains(err.Error(), "batch 1") {
		t.Errorf("without the batch before it: %v", err)
	}
	leave, err := l.enter(t.Context(), 1, settle)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.enter(ctx, 2, settle); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	leave()
	broken := errors.New("broken")
	if _, err := l.enter(t.Context(), 1, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("settling fails: %v", err)
	}
	if leave, err = l.alone(t.Context()); err != nil {
		t.Fatal(err)
	}
	leave()
}

// A replay plans what the manifest says, whatever has been configured since.
func TestPlanOfAReplay(t *testing.T) {
	s, err := newTarget(Config{
		Broker: broker.Config{Brokers: []string{"b:1"}}, Topics: map[string]string{"flows": "f", "quarantine": "q"}, ProgressTopic: "p",
		Format: FormatJSON, Compression: "none", Partitions: 1, Replication: 1, TransactionTimeout: DefaultConfig().TransactionTimeout, RequestTimeout: DefaultConfig().RequestTimeout,
	}, sinktest.Tables(), Deps{}, exactlyOnce)
	if err != nil {
		t.Fatal(err)
	}
	pieces := []pipeline.Piece{
		sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: 1, Seed: 1, Rows: 10}),
		sinktest.Make(allocator, sinktest.Shape{Table: sinktest.Maps, Batch: 1, Seed: 1, Rows: 10}),
		sinktest.Make(allocator, sinktest.Shape{Table: schemas.Quarantine, Batch: 1, Seed: 1, Rows: 10}),
	}
	tables := func(recorded []pipeline.PieceRef) string {
		planned, err := s.Plan(1, pieces, recorded)
		if err != nil {
			return err.Error()
		}
		if len(planned) == 0 {
			return "nothing"
		}
		return planned[0].Table
	}
	for _, c := range []struct {
		recorded []pipeline.PieceRef
		want     string
	}{
		{nil, "flows+quarantine"},
		{[]pipeline.PieceRef{}, "nothing"},
		{[]pipeline.PieceRef{{Table: "flows"}}, "flows"},
		{[]pipeline.PieceRef{{Table: "flows+windows_sinktest"}}, `table "windows_sinktest" has no topic`},
	} {
		if got := tables(c.recorded); !strings.Contains(got, c.want) {
			t.Errorf("recorded %v: %s, want %s", c.recorded, got, c.want)
		}
	}
}

func BenchmarkMessages(b *testing.B) {
	p := sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: 1, Seed: 1, Rows: 100_000, MACs: 300})
	for _, format := range []string{FormatJSON, FormatArrow} {
		b.Run(format, func(b *testing.B) {
			c := DefaultConfig()
			c.Broker.Brokers, c.Format = []string{"b:1"}, format
			s, err := newTarget(c, sinktest.Tables(), Deps{}, exactlyOnce)
			if err != nil {
				b.Fatal(err)
			}
			whole := pipeline.Piece{PieceRef: p.PieceRef, Parts: []pipeline.Piece{p}}
			var bytes int64
			b.ReportAllocs()
			for b.Loop() {
				bytes = 0
				if err := s.messages(1, whole, func(r *kgo.Record) error { bytes += int64(len(r.Value)); return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(bytes)
			b.ReportMetric(float64(p.Rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// Rows with the columns of an enrichment go out like the others, in both formats.
func TestEnrichedRowsHaveAForm(t *testing.T) {
	p := sinktest.Make(allocator, sinktest.Shape{Table: schemas.EnrichedFlows, Batch: 1, Seed: 1, Rows: 100})
	for _, format := range []string{FormatJSON, FormatArrow} {
		c := DefaultConfig()
		c.Broker.Brokers, c.Format = []string{"b:1"}, format
		s, err := newTarget(c, []schemas.Table{schemas.EnrichedFlows}, Deps{}, exactlyOnce)
		if err != nil {
			t.Fatal(err)
		}
		planned, err := s.Plan(1, []pipeline.Piece{p}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.check(planned[0]); err != nil {
			t.Error(err)
		}
		n := int64(0)
		if err := s.messages(1, planned[0], func(r *kgo.Record) error { n += rowsOf(t, r); return nil }); err != nil || n != 100 {
			t.Errorf("%s: %d rows, %v", format, n, err)
		}
	}
}
