package kafka

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// A process is killed when the rows of a transaction are with the broker. Its
// successor finds out whether the batch has landed, lands it if not, and every row is there once.
func TestKilledInATransaction(t *testing.T) {
	for _, c := range []struct {
		name   string
		sent   bool
		landed bool
	}{
		{name: "before the commit is sent"},
		{name: "before the answer to the commit is read", sent: true, landed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ready(t, func(c *Config) { c.Topics = map[string]string{schemas.Flows.Name: c.Topics[schemas.Flows.Name]} })
			addr, topic := s.config.Broker.Brokers[0], s.config.Topics[schemas.Flows.Name]
			read := func(isolation string) []byte {
				return kcat(t, "-C", "-q", "-e", "-b", addr, "-t", topic, "-X", "isolation.level="+isolation)
			}
			asLeft := func() bool {
				stable, end := topicEnds(t, addr, topic)
				if c.landed {
					return stable == end && end > 0
				}
				return stable == 0 && end > 0 // rows whose transaction is open
			}
			kill := startChild(t, order{Config: s.config, Sent: c.sent})
			eventually(t, asLeft)
			kill()
			if !asLeft() {
				t.Error("the kill alone has changed the topic")
			}
			if len(read("read_uncommitted")) == 0 {
				t.Error("no row has reached the broker: nothing is shown")
			}
			if seen := len(read("read_committed")) > 0; seen != c.landed {
				t.Errorf("a reader of committed rows sees some: %v, want %v", seen, c.landed)
			}

			piece := childBatch()
			defer piece.Release()
			planned, err := s.Plan(childID, []pipeline.Piece{piece}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer planned[0].Release()
			want := int64(0)
			if c.landed {
				want = piece.Rows
			}
			if found := fenceAndProbe(t, s, childID, 2, planned[0].PieceRef); found != want {
				t.Errorf("the successor finds %d rows, want %d", found, want)
			}
			if stable, end := topicEnds(t, addr, topic); stable != end {
				t.Errorf("after the fence offsets %d to %d are in an open transaction", stable, end)
			}
			if seen := len(read("read_committed")) > 0; seen != c.landed {
				t.Errorf("after the fence a reader of committed rows sees some: %v, want %v", seen, c.landed)
			}
			_, before := topicEnds(t, addr, topic)
			for range 2 {
				if err := s.Land(t.Context(), childID, 2, planned[0]); err != nil {
					t.Fatal(err)
				}
			}
			if _, end := topicEnds(t, addr, topic); (end == before) != c.landed {
				t.Errorf("landing again moved the end from %d to %d", before, end)
			}
			rec := parseJSON(t, schemas.Flows, read("read_committed"))
			defer rec.Release()
			if diff := cmp.Diff(sorted(sinktest.Lines(piece.Record)), sinktest.Lines(rec)); diff != "" {
				t.Errorf("rows after the kill (-want +got):\n%.2000s", diff)
			}
		})
	}
}

// startChild gives what kills a child, which has stopped where it was told to.
func startChild(t *testing.T, o order) (kill func()) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childOrder+"="+string(text))
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			in.Close()
		}
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadBytes('\n'); err != nil || string(bytes.TrimSpace(line)) != childStopped {
		t.Fatalf("the child says %q, %v, want %q", line, err, childStopped)
	}
	return kill
}

// topicEnds gives the offset up to which the topic's partition has no open
// transaction, and its end.
func topicEnds(t *testing.T, addr, topic string) (stable, end int64) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offset := func(list func(context.Context, ...string) (kadm.ListedOffsets, error)) int64 {
		all, err := list(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		o, _ := all.Lookup(topic, 0)
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		return o.Offset
	}
	admin := kadm.NewClient(cl)
	return offset(admin.ListCommittedOffsets), offset(admin.ListEndOffsets)
}

// fenceAndProbe asks as the core does after a crash or doubt.
func fenceAndProbe(t *testing.T, s *Sink, batch pipeline.BatchID, epoch uint64, ref pipeline.PieceRef) (rows int64) {
	t.Helper()
	patiently(t, func() error { return s.Fence(t.Context(), batch.Ledger(), batch.Shard(), epoch) })
	patiently(t, func() error {
		found, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{ref})
		if err == nil {
			rows = found[0]
		}
		return err
	})
	return rows
}

// patiently tries again for 30 s what may be tried again.
func patiently(t *testing.T, f func() error) {
	t.Helper()
	for began := time.Now(); ; {
		err := f()
		if err == nil {
			return
		}
		if !errors.Is(err, pipeline.ErrTransient) || time.Since(began) > 30*time.Second {
			t.Fatal(err)
		}
	}
}
