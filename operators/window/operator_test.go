package window

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

func newOperator(t testing.TB, cfg []Config, alloc memory.Allocator) *Operator {
	t.Helper()
	o, err := New(cfg, alloc)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestTablesAndViewsFollowTheConfiguration(t *testing.T) {
	o := newOperator(t, DefaultWindows(), memory.DefaultAllocator)
	var got []string
	for i, table := range o.Tables() {
		got = append(got, table.Name, o.Views()[i].Name)
	}
	want := []string{
		"windows_traffic_1m", "windows_traffic_1m_merged", "windows_services_1m", "windows_services_1m_merged",
		"windows_rules_5m", "windows_rules_5m_merged",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A record batch may be a slice of a longer one.
func TestSlicesCountAsTheirRows(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer alloc.AssertSize(t, 0)
	rng := rand.New(rand.NewPCG(1, 50))
	flows := randomFlows(rng, 1500, midnight, 60_000)
	rec := record(alloc, flows)
	defer rec.Release()
	part := rec.NewSlice(100, 1300)
	defer part.Release()
	empty := rec.NewSlice(7, 7)
	defer empty.Release()
	o := newOperator(t, lawWindows(), alloc)
	got := apply(t, o, pipeline.OperatorInput{Flows: []arrow.Record{part, empty}, Watermark: pipeline.EndOfInput})
	if diff := cmp.Diff(merged(recount(lawWindows(), flows[100:1300])), merged(got)); diff != "" {
		t.Errorf("merged tables (-want +got):\n%s", diff)
	}
}

func TestApplyRefusesOtherRecords(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer alloc.AssertSize(t, 0)
	good := record(alloc, randomFlows(rand.New(rand.NewPCG(1, 51)), 3, midnight, 1000))
	defer good.Release()
	for name, c := range map[string]struct {
		change func(columns []arrow.Array) ([]arrow.Field, []arrow.Array)
		want   string
	}{
		"other schema": {func(columns []arrow.Array) ([]arrow.Field, []arrow.Array) {
			return good.Schema().Fields()[1:], columns[1:]
		}, "want that of flows"},
		"null counter": {func(columns []arrow.Array) ([]arrow.Field, []arrow.Array) {
			columns[schemas.Flows.Index("bytes_sent")] = withNull(alloc, arrow.PrimitiveTypes.Uint64)
			return good.Schema().Fields(), columns
		}, `column "bytes_sent": 1 nulls`},
		"null time": {func(columns []arrow.Array) ([]arrow.Field, []arrow.Array) {
			columns[timeColumn] = withNull(alloc, schemas.TimeMS)
			return good.Schema().Fields(), columns
		}, `column "time": 1 nulls`},
		"time of no calendar": {func(columns []arrow.Array) ([]arrow.Field, []arrow.Array) {
			b := array.NewTimestampBuilder(alloc, schemas.TimeMS)
			defer b.Release()
			b.AppendValues([]arrow.Timestamp{1, 2, 1 << 62}, nil)
			columns[timeColumn] = b.NewArray()
			return good.Schema().Fields(), columns
		}, "want years 1900 to 2299"},
	} {
		columns := append([]arrow.Array{}, good.Columns()...)
		fields, columns := c.change(columns)
		rec := array.NewRecord(arrow.NewSchema(fields, nil), columns, 3)
		for i, column := range columns {
			if len(fields) == len(good.Columns()) && column != good.Column(i) {
				column.Release()
			}
		}
		o := newOperator(t, lawWindows(), alloc)
		_, err := o.Apply(pipeline.OperatorInput{Flows: []arrow.Record{rec}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		rec.Release()
	}
}

func withNull(alloc memory.Allocator, typ arrow.DataType) arrow.Array {
	b := array.NewBuilder(alloc, typ)
	defer b.Release()
	b.AppendEmptyValues(2)
	b.AppendNull()
	return b.NewArray()
}

// Closed lists have a byte for their codes: one that does not end is an error.
func TestClosedListsEnd(t *testing.T) {
	s := &source{kind: kindWord, texts: newTexts(), words: new([256]uint8)}
	for batch := range 2 {
		values := make([]string, 200)
		for i := range values {
			values[i] = fmt.Sprint(batch, i)
		}
		b := array.NewUint8Builder(memory.DefaultAllocator)
		b.Append(199)
		column := dictionary(schemas.Word, b.NewArray(), values, memory.DefaultAllocator)
		if err := s.bind(column); (err != nil) != (batch == 1) {
			t.Errorf("batch %d: %v", batch, err)
		}
	}
}

func TestWatermarkMustNotGoBack(t *testing.T) {
	o := newOperator(t, lawWindows(), memory.DefaultAllocator)
	apply(t, o, pipeline.OperatorInput{Watermark: 5})
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "BUG: ") {
			t.Errorf("a watermark that goes back: %v", r)
		}
	}()
	_, _ = o.Apply(pipeline.OperatorInput{Watermark: 4})
}

// The instruments of two shards add up to what the shards hold and did, also when
// one is restored and one released.
func TestInstrumentsFollowTheStats(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	rng := rand.New(rand.NewPCG(1, 52))
	cfg := overflowing()
	shards := []*Operator{newOperator(t, cfg, memory.DefaultAllocator), newOperator(t, cfg, memory.DefaultAllocator)}
	var want Stats
	for i, o := range shards {
		if err := o.Instrument(provider.Meter("test")); err != nil {
			t.Fatal(err)
		}
		for seq, s := range cut(rng, randomFlows(rng, 300, midnight, 400_000), 4, 30_000)[:3] {
			in, release := input(t, memory.DefaultAllocator, uint64(seq), s.watermark, s.flows...)
			apply(t, o, in)
			release()
		}
		s := o.Stats()
		if i == 1 {
			o.Release()
			s.OpenWindows, s.Groups, s.Bytes = 0, 0, 0
		} else {
			snapshot, err := o.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Restore(snapshot); err != nil {
				t.Fatal(err)
			}
			if o.Stats() != s {
				t.Errorf("restored stats %+v, want %+v", o.Stats(), s)
			}
		}
		want.OpenWindows += s.OpenWindows
		want.Groups += s.Groups
		want.Bytes += s.Bytes
		want.Closed += s.Closed
		want.LateRows += s.LateRows
		want.OverflowRows += s.OverflowRows
	}
	if want.OpenWindows == 0 || want.Closed == 0 || want.LateRows == 0 || want.OverflowRows == 0 {
		t.Fatalf("nothing to see in %+v", want)
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, m := range data.ScopeMetrics[0].Metrics {
		for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
			got[m.Name] += p.Value
		}
	}
	if diff := cmp.Diff(map[string]int64{
		"millrace.windows.open": want.OpenWindows, "millrace.windows.groups": want.Groups, "millrace.windows.state": want.Bytes, "millrace.windows.closed": want.Closed,
		"millrace.windows.late_rows": want.LateRows, "millrace.windows.overflow_rows": want.OverflowRows,
	}, got); diff != "" {
		t.Errorf("instruments (-want +got):\n%s", diff)
	}
}
