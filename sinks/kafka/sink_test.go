package kafka

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

func TestConformance(t *testing.T) {
	run := func(format string, without ...string) {
		t.Run(format, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Target {
				return suite{ready(t, func(c *Config) { c.Format = format }).config}
			}, without...)
		})
	}
	run(FormatJSON, sinktest.BigPart)
	run(FormatArrow, leftOut...)
}

// What a reader is told of a message beside its rows.
func TestMessagesTellWhereTheyCameFrom(t *testing.T) {
	for _, format := range []string{FormatJSON, FormatArrow} {
		t.Run(format, func(t *testing.T) {
			s := ready(t, func(c *Config) { c.Format = format })
			batch := pipeline.NewBatchID(1, 2, 7)
			first := sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 9000, MACs: 3})
			second := sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: batch, Seed: 2, Rows: 5, MACs: 1})
			landAs(t, s, batch, first, second)
			records := rows(consume(t, s.config.Broker.Brokers[0], s.config.Topics[schemas.Flows.Name]))
			next := int64(0)
			for _, r := range records {
				if got := header(r, HeaderBatch) + " " + header(r, HeaderSchema); got != fmt.Sprintf("%d flows/1", uint64(batch)) {
					t.Fatalf("headers %q", got)
				}
				wantKey := "1/2"
				if format == FormatJSON {
					var row struct{ MAC string }
					if err := json.Unmarshal(r.Value, &row); err != nil {
						t.Fatal(err)
					}
					wantKey = row.MAC
				}
				if string(r.Key) != wantKey {
					t.Fatalf("key %q, want %q", r.Key, wantKey)
				}
				if want := fmt.Sprint(next); !strings.HasPrefix(header(r, HeaderRows), want) {
					t.Fatalf("rows %q, want from %s on", header(r, HeaderRows), want)
				}
				next += rowsOf(t, r)
			}
			if next != 9005 {
				t.Errorf("%d rows, want 9005", next)
			}
			if last := header(records[0], HeaderPart); format == FormatArrow && (!strings.HasPrefix(last, "1/") || len(records) < 3) {
				t.Errorf("part %q of %d messages, want 9,000 rows in several", last, len(records))
			}
		})
	}
}
