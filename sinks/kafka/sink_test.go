package kafka

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

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
	run(FormatArrow)
}

// A process that is killed in the midst of transactions leaves open ones behind; its
// successors find out what has landed, and in the end every row is there once.
func TestKilledInATransaction(t *testing.T) {
	s := ready(t, func(c *Config) { c.Topics = map[string]string{schemas.Flows.Name: c.Topics[schemas.Flows.Name]} })
	text, err := json.Marshal(s.config)
	if err != nil {
		t.Fatal(err)
	}
	topic, addr := s.config.Topics[schemas.Flows.Name], s.config.Broker.Brokers[0]
	left := 0
	for epoch := 1; ; epoch++ {
		if epoch == 30 {
			t.Fatal("the batches never land")
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childConfig+"="+string(text), fmt.Sprintf("%s=%d", childEpoch, epoch))
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := false
		lines := 0
		for scan := bufio.NewScanner(out); scan.Scan() && !done; lines++ {
			done = scan.Text() == "all"
			if !done && lines >= 2+epoch%3 {
				time.Sleep(time.Duration(epoch*3%17) * time.Millisecond) // somewhere in the landing
				break
			}
		}
		if !done {
			_ = cmd.Process.Kill()
		}
		err = cmd.Wait()
		if done {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		left += openTransactions(t, addr, topic)
	}
	if left == 0 { // on a machine that is slow or quick
		t.Log("no kill came while a transaction was open: this run shows less")
	}
	var want []string
	for seq := uint64(1); seq <= childBatches; seq++ {
		p := childBatch(seq)
		want = append(want, sinktest.Lines(p.Record)...)
		p.Release()
	}
	rec := suite{s.config}.Read(t, schemas.Flows)[0]
	defer rec.Release()
	got := sinktest.Lines(rec)
	if diff := cmp.Diff(sorted(want), got); diff != "" {
		t.Errorf("rows after kills (-want +got):\n%.2000s", diff)
	}
	t.Logf("%d rows; %d kills left a transaction open", len(got), left)
}

// openTransactions is 1 when the topic has rows that are neither committed nor
// aborted.
func openTransactions(t *testing.T, addr, topic string) int {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	stable, err := admin.ListCommittedOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	high, err := admin.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := stable.Lookup(topic, 0)
	h, _ := high.Lookup(topic, 0)
	if s.Offset < h.Offset {
		return 1
	}
	return 0
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
