package clickhouse

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// BenchmarkLand lands 500,000 flow rows (68 MB) in one part, in three ways that
// take turns, so that whatever else the machine does meets all of them: as the
// sink does it, the same without the fence, and clickhouse-go's InsertFormat, also
// without a fence, of a stream that is written beforehand. It reports the least
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
	ask(b, s, "SYSTEM STOP MERGES flows")
	plain := fmt.Sprintf("INSERT INTO %s (%s)", s.name("flows"), schemas.Flows.ColumnNames())
	extra, err := s.newer(b.Context())
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
		{"unfenced", func() error {
			_, err := s.post(b.Context(), s.insertParams("", plain+" FORMAT ArrowStream", honest, insertSettings, extra), newBody(piece.Record))
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
