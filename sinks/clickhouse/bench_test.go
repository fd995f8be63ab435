package clickhouse

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// BenchmarkLand lands 500,000 flow rows (68 MB) in one part, in four ways that
// take turns, so that whatever else the machine does meets all of them: as the
// sink does it over HTTP, the same over native TCP, over HTTP without the fence, and
// clickhouse-go's InsertFormat, also without a fence, of a stream that is written
// beforehand. It reports the least
// and the median time of each in ms; ns/op is that of one round. The table is
// emptied between and does not merge.
func BenchmarkLand(b *testing.B) {
	s := ready(b)
	piece := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: schemas.Flows, Batch: 1, Seed: 1, Rows: 500_000, MACs: 300})
	defer piece.Record.Release()
	var stream bytes.Buffer
	if err := writeStream(&stream, piece.Record); err != nil {
		b.Fatal(err)
	}
	c := s.first.config
	c.URL = urlOver(server(b), "tcp")
	overTCP := open(b, c)
	ask(b, s, "SYSTEM STOP MERGES flows")
	plain := fmt.Sprintf("INSERT INTO %s (%s)", s.first.name("flows"), schemas.Flows.ColumnNames())
	extra, err := s.first.newer(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	conn, err := s.Conn()
	if err != nil {
		b.Fatal(err)
	}
	settings := ch.Settings{}
	for _, pair := range slices.Concat(honest, insertSettings, extra) {
		name, value, _ := strings.Cut(pair, "=")
		settings[name] = value
	}
	ways := []struct {
		name string
		land func() error
	}{
		{"sink", func() error { return s.Land(b.Context(), 1, 1, piece) }},
		{"native", func() error { return overTCP.Land(b.Context(), 1, 1, piece) }},
		{"unfenced", func() error {
			_, err := s.first.wire.insert(b.Context(), insertion{
				statement: plain, settings: slices.Concat(honest, insertSettings, extra), table: schemas.Flows,
				record: piece.Record, written: make(chan struct{}),
			})
			return err
		}},
		{"clickhouse-go", func() error {
			return conn.InsertFormat(ch.Context(b.Context(), ch.WithSettings(settings)), "ArrowStream", plain, bytes.NewReader(stream.Bytes()))
		}},
	}
	times := make([][]time.Duration, len(ways))
	b.SetBytes(int64(len(ways) * stream.Len()))
	for round := 0; b.Loop(); round++ {
		for i := range ways {
			at := (i + round) % len(ways)
			began := time.Now()
			if err := ways[at].land(); err != nil {
				b.Fatal(err)
			}
			times[at] = append(times[at], time.Since(began))
			b.StopTimer()
			ask(b, s, "TRUNCATE TABLE flows SYNC")
			b.StartTimer()
		}
	}
	for i, way := range ways {
		slices.Sort(times[i])
		b.ReportMetric(times[i][0].Seconds()*1000, way.name+"-least-ms")
		b.ReportMetric(times[i][len(times[i])/2].Seconds()*1000, way.name+"-median-ms")
	}
}

// BenchmarkLandEnrichment lands 500,000 flow rows, in turns, into the table without
// the columns of enrichment, without them into the table that has them, and with
// them: empty, as for addresses that nothing is known of. Times as in BenchmarkLand.
func BenchmarkLandEnrichment(b *testing.B) {
	plain, enriched := ready(b), ready(b, schemas.EnrichedFlows)
	piece := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: schemas.Flows, Batch: 1, Seed: 1, Rows: 500_000, MACs: 300})
	defer piece.Record.Release()
	empty := piece
	empty.Record = withEmpty(piece.Record, schemas.EnrichedFlows)
	defer empty.Record.Release()
	ways := []struct {
		name  string
		sink  *Sink
		piece pipeline.Piece
	}{{"without", plain, piece}, {"defaults", enriched, piece}, {"empty", enriched, empty}}
	for _, w := range ways {
		ask(b, w.sink, "SYSTEM STOP MERGES flows")
	}
	times := make([][]time.Duration, len(ways))
	for round := 0; b.Loop(); round++ {
		for i := range ways {
			at := (i + round) % len(ways)
			began := time.Now()
			if err := ways[at].sink.Land(b.Context(), 1, 1, ways[at].piece); err != nil {
				b.Fatal(err)
			}
			times[at] = append(times[at], time.Since(began))
			b.StopTimer()
			if round == 0 {
				text := ask(b, ways[at].sink, "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts WHERE database = currentDatabase() AND table = 'flows' AND active")
				size, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(size, ways[at].name+"-B/row")
			}
			ask(b, ways[at].sink, "TRUNCATE TABLE flows SYNC")
			b.StartTimer()
		}
	}
	for i, way := range ways {
		slices.Sort(times[i])
		b.ReportMetric(times[i][0].Seconds()*1000, way.name+"-least-ms")
		b.ReportMetric(times[i][len(times[i])/2].Seconds()*1000, way.name+"-median-ms")
	}
}

// withEmpty puts the table's further columns behind the record's, all empty.
func withEmpty(rec arrow.Record, t schemas.Table) arrow.Record {
	columns := slices.Clone(rec.Columns())
	for _, c := range t.Columns[len(columns):] {
		b := array.NewBuilder(memory.DefaultAllocator, c.Arrow)
		defer b.Release()
		nothing := ""
		if c.Arrow.ID() == arrow.UINT32 {
			nothing = "0"
		}
		for range rec.NumRows() {
			if err := b.AppendValueFromString(nothing); err != nil {
				panic("BUG: empty column: " + err.Error())
			}
		}
		column := b.NewArray()
		defer column.Release()
		columns = append(columns, column)
	}
	return array.NewRecord(t.ArrowSchema(), columns, rec.NumRows())
}
