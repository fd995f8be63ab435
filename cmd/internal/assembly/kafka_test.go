package assembly_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

const eventsTopic = "blob-events"

// withKafka is a world with a broker: half of the notifications come from a topic,
// and rows land in topics. It gives what publishes notifications.
func withKafka(t *testing.T, addr, name string) (*world, func(context.Context, []byte) error) {
	t.Helper()
	w := newWorld(t, fmt.Sprintf(`
sweeper: {interval: 2s, discover: 2s}
kafka_sources:
  - {brokers: [%q], topic: %s, group: %s}
kafka:
  brokers: [%q]
  topics: {flows: %s-flows, windows_traffic_1m: %s-traffic}
  progress_topic: %s-progress
  create_topics: true
  partitions: 3
  replication: 1
`, addr, eventsTopic, name, addr, name, name, name))
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 2, 1, nil, eventsTopic); err != nil && !strings.Contains(err.Error(), "EXISTS") {
		t.Fatal(err)
	}
	sent := 0
	return w, func(ctx context.Context, body []byte) error {
		if sent++; sent%2 == 0 {
			_, err := w.Hub.Publish(jobtest.HubName, emulator.InTurn(), body, nil)
			return err
		}
		return client.ProduceSync(ctx, &kgo.Record{Topic: eventsTopic, Value: slices.Clone(body)}).FirstErr()
	}
}

// flowRow is what is compared of a row.
type flowRow struct {
	Blob         string
	Generation   uint32
	RecordOffset uint64 `json:"record_offset"`
	Ordinal      uint32
	BytesSent    uint64 `json:"bytes_sent"`
	BatchID      uint64 `json:"batch_id"`
}

func (r flowRow) String() string {
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d", r.Blob, r.Generation, r.RecordOffset, r.Ordinal, r.BytesSent, r.BatchID)
}

// inKafka reads the rows of a topic as others do: with kcat, what is committed.
func inKafka(t *testing.T, addr, topic string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), localtest.Kcat(t), "-C", "-q", "-e", "-b", addr, "-t", topic, "-X", "isolation.level=read_committed").Output()
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range bytes.Lines(out) {
		var r flowRow
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		rows = append(rows, r.String())
	}
	slices.Sort(rows)
	return rows
}

// inClickHouse reads the same rows in pages, as an answer has a limit.
func (w *world) inClickHouse() []string {
	w.T.Helper()
	const pages = 64
	var rows []string
	for page := range pages {
		text := w.Ask(fmt.Sprintf("SELECT blob, generation, record_offset, ordinal, bytes_sent, batch_id FROM millrace.flows WHERE cityHash64(blob, record_offset, ordinal) %% %d = %d", pages, page))
		rows = append(rows, strings.Split(text, "\n")...)
	}
	return rows
}

// without gives what is in a more often than in b.
func without(a, b []string) []string {
	count := map[string]int{}
	for _, s := range b {
		count[s]++
	}
	var out []string
	for _, s := range a {
		if count[s]--; count[s] < 0 {
			out = append(out, s)
		}
	}
	return out
}

// One pipeline into ClickHouse and Kafka at once, killed twice while it lands: both
// hold what was written, and the same.
func TestKafkaAndClickHouseReconcile(t *testing.T) {
	addr := localtest.StartKafka(t)
	w, publish := withKafka(t, addr, "both")
	stopEstate := w.EstateInto(4000, publish)
	var landed uint64
	for range 2 {
		p := w.StartProgram()
		before := landed
		w.WaitUntil("more rows", func() bool { return w.Number("SELECT count() FROM millrace.flows") > before+6000 })
		p.Stop(syscall.SIGKILL)
		landed = w.Number("SELECT count() FROM millrace.flows")
	}
	last := w.StartProgram("--end-of-input-on-stop")
	w.WaitUntil("more rows", func() bool { return w.Number("SELECT count() FROM millrace.flows") > landed })
	truth := stopEstate()
	if _, took := last.Stop(syscall.SIGTERM); last.Cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("end of input: exit code %d after %v", last.Cmd.ProcessState.ExitCode(), took)
	}
	kafka := inKafka(t, addr, "both-flows")
	clickhouse := w.inClickHouse()
	if n := uint64(len(kafka)); n != truth.Totals.Tuples {
		t.Errorf("%d rows in Kafka, want %d", n, truth.Totals.Tuples)
	}
	if a, b := without(clickhouse, kafka), without(kafka, clickhouse); len(a)+len(b) > 0 {
		t.Errorf("of %d rows in ClickHouse, Kafka lacks %d, as\n%.1000s\nof %d in Kafka, ClickHouse lacks %d, as\n%.1000s",
			len(clickhouse), len(a), strings.Join(a, "\n"), len(kafka), len(b), strings.Join(b, "\n"))
	}
	if twice := w.Number(jobtest.AddressesTwice); twice != 0 {
		t.Errorf("%d tuple addresses are twice", twice)
	}
	t.Logf("%d rows in both", len(kafka))

	t.Run("into Kafka alone", func(t *testing.T) { kafkaAlone(t, addr) })
}

// kafkaAlone is a pipeline without ClickHouse. Its ledger is registered in the progress
// topic, and one that lost its state is refused.
func kafkaAlone(t *testing.T, addr string) {
	w, publish := withKafka(t, addr, "alone")
	begin, end := strings.Index(w.YAML, "clickhouse:\n"), strings.Index(w.YAML, "\nsweeper:")
	w.YAML = w.YAML[:begin] + w.YAML[end:]
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		t.Fatal(err)
	}
	stopEstate := w.EstateInto(4000, publish)
	p := w.StartProgram()
	p.Until("landing", func(s jobtest.Status) bool { return s.Landed > 5000 })
	p.Stop(syscall.SIGKILL)
	p = w.StartProgram("--end-of-input-on-stop")
	p.Until("landing", func(s jobtest.Status) bool { return s.Landed > 1000 })
	truth := stopEstate()
	if _, took := p.Stop(syscall.SIGTERM); p.Cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("end of input: exit code %d after %v", p.Cmd.ProcessState.ExitCode(), took)
	}
	rows := inKafka(t, addr, "alone-flows")
	if n := uint64(len(rows)); n != truth.Totals.Tuples {
		t.Errorf("%d rows in Kafka, want %d", n, truth.Totals.Tuples)
	}
	if distinct := slices.Compact(slices.Clone(rows)); len(distinct) != len(rows) {
		t.Errorf("%d rows are twice", len(rows)-len(distinct))
	}
	w.YAML = strings.Replace(w.YAML, cfg.State, t.TempDir()+"/state", 1)
	p = w.Launch()
	<-p.Done
	if !strings.Contains(p.Said(), "this ledger never wrote to it") {
		t.Errorf("a ledger that lost its state says: %s", p.Said())
	}
}
