package clickhouse

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// BenchmarkLand lands 500,000 flow rows in one part: as the sink does it, without
// the fence, and as clickhouse-go does it without a fence. The table is emptied
// between rounds and does not merge, so that every round meets the same server.
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
	send := func(params url.Values, body io.Reader) error {
		_, err := s.client.send(b.Context(), params, body)
		return err
	}
	conn, err := s.Conn()
	if err != nil {
		b.Fatal(err)
	}
	settings := ch.Settings{}
	for _, pair := range append(append([]string{}, insertSettings...), extra...) {
		name, value, _ := strings.Cut(pair, "=")
		settings[name] = value
	}
	for _, way := range []struct {
		name string
		land func() error
	}{
		{"sink", func() error { return s.Land(b.Context(), 1, 1, piece) }},
		{"unfenced", func() error {
			_, err := s.post(b.Context(), s.insertParams("", plain+" FORMAT ArrowStream", insertSettings, extra), newBody(piece.Record))
			return err
		}},
		{"unfenced/bytes", func() error {
			return send(s.insertParams("", plain+" FORMAT ArrowStream", insertSettings, extra), bytes.NewReader(stream.Bytes()))
		}},
		{"fenced/bytes", func() error {
			return send(s.insertParams("", s.statement(schemas.Flows, pipeline.BatchID(1), 1), insertSettings, extra), bytes.NewReader(stream.Bytes()))
		}},
		{"clickhouse-go/InsertFormat", func() error {
			ctx := ch.Context(b.Context(), ch.WithSettings(settings))
			return conn.InsertFormat(ctx, "ArrowStream", plain, bytes.NewReader(stream.Bytes()))
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(int64(stream.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if err := way.land(); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				ask(b, s, "TRUNCATE TABLE flows SYNC")
				b.StartTimer()
			}
			b.ReportMetric(float64(piece.Rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
