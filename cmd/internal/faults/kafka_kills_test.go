package faults

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/cmd/internal/reconcile"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
)

var kafkaKills = flag.Int("kafka-kills", 2, "how often the pipeline into Kafka or the broker is killed")

const theBroker = "broker"

type kafkaFigures struct {
	Kills    int            `json:"kills"`
	ByTarget map[string]int `json:"by_target"`
	Lost     uint64         `json:"lost"`
	Dup      uint64         `json:"dup"`
	Altered  uint64         `json:"altered"`
	// From the start of what was killed until rows have been committed; a broker takes 5 s
	// to start.
	RestartP50 float64 `json:"restart_p50_s"`
	RestartP99 float64 `json:"restart_p99_s"`
	Rows       uint64  `json:"rows"`
	Seconds    float64 `json:"seconds"`
	Seed       uint64  `json:"seed"`
}

// intoKafka is a world whose rows land in topics alone.
func intoKafka(t *testing.T, addr string) *jobtest.World {
	t.Helper()
	w := jobtest.New(t, jobtest.Options{URL: "http://127.0.0.1:1", Extra: jobtest.SweeperSoon})
	begin, end := strings.Index(w.YAML, "clickhouse:\n"), strings.Index(w.YAML, jobtest.SweeperSoon)
	w.YAML = w.YAML[:begin] + w.YAML[end:] + fmt.Sprintf(`
kafka:
  brokers: [%q]
  topics: {flows: flows, windows_traffic_1m: traffic}
  progress_topic: progress
  create_topics: true
  partitions: 3
  replication: 1
`, addr)
	return w
}

// The pipeline into Kafka and the broker are killed by turns, at random moments. What
// a reader of committed messages finds in the end is what was written, once.
func TestKafkaKills(t *testing.T) {
	began := time.Now()
	s := drawSeed(t)
	rng := rand.New(rand.NewPCG(s, 2))
	broker := servers.KafkaOptions{Dir: t.TempDir(), Port: 20_000 + rng.IntN(10_000)}
	k := localtest.StartKafkaIn(t, broker)
	broker.Port = k.Port
	w := intoKafka(t, k.Addr)
	stopEstate := w.EstateInto(1000, w.Notify, steady(s, 24), func(c *traffic.Config) { c.Malformed = 0 })
	p := w.StartProgram("--end-of-input-on-stop")
	landing := func(more int64) { p.Until("landing", func(s jobtest.Status) bool { return s.Landed > more }) }
	landing(0)
	f := kafkaFigures{ByTarget: map[string]int{}, Seed: s}
	var restarts []time.Duration
	for ; f.Kills < *kafkaKills; f.Kills++ {
		time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second)))) // the moment is drawn, not waited for
		target := []string{thePipeline, theBroker}[f.Kills%2]
		f.ByTarget[target]++
		var restarted time.Time
		if target == thePipeline {
			p.Kill()
			restarted = time.Now()
			p = w.StartProgram("--end-of-input-on-stop")
			landing(0)
		} else {
			k.Kill()
			restarted = time.Now()
			before, _ := p.Ask()
			if k = localtest.StartKafkaIn(t, broker); k.PortMoved {
				t.Fatal("somebody took the broker's port meanwhile")
			}
			landing(before.Landed)
		}
		restarts = append(restarts, time.Since(restarted))
		t.Logf("kill %d: %s, landed after %.2f s", f.Kills+1, target, time.Since(restarted).Seconds())
	}
	truth := stopEstate()
	for deadline := time.Now().Add(jobtest.Patience); landed(committed(t, k.Addr)) < truth.Totals.Tuples && time.Now().Before(deadline); {
		time.Sleep(500 * time.Millisecond)
	}
	if _, took := p.Stop(syscall.SIGTERM); p.Cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("end of input: exit code %d after %v", p.Cmd.ProcessState.ExitCode(), took)
	}
	v, notes := reconcile.Judge(truth, committed(t, k.Addr))
	f.Lost, f.Dup, f.Altered, f.Rows, f.Seconds = v.Lost, v.Duplicated, v.Altered+v.MinutesAltered, v.RowsLanded, time.Since(began).Seconds()
	f.RestartP50, f.RestartP99 = percentile(restarts, 50).Seconds(), percentile(restarts, 99).Seconds()
	jobtest.Figures(t, f)
	if !v.Good() {
		t.Errorf("%+v: %.2000s", v, strings.Join(notes, "\n"))
	}
}

// message is what is compared of a row, or of a window.
type message struct {
	Blob         string
	Generation   uint32
	RecordOffset uint64 `json:"record_offset"`
	Ordinal      uint32
	Time         time.Time
	SrcIP        netip.Addr `json:"src_ip"`
	DstIP        netip.Addr `json:"dst_ip"`
	SrcPort      uint64     `json:"src_port"`
	DstPort      uint64     `json:"dst_port"`
	Protocol     uint64
	Packets      uint64 `json:"packets_sent"`
	Bytes        uint64 `json:"bytes_sent"`
	PacketsBack  uint64 `json:"packets_received"`
	BytesBack    uint64 `json:"bytes_received"`

	WindowStart time.Time `json:"window_start"`
	Rows        uint64
}

// committed reads the topics as others do: with kcat, what is committed.
func committed(t *testing.T, addr string) reconcile.Contents {
	t.Helper()
	c := reconcile.Contents{Blobs: map[string]reconcile.Blob{}, Minutes: map[int64]traffic.MinuteTruth{}}
	seen := map[string]bool{}
	each(t, addr, "flows", func(m message) {
		b := c.Blobs[m.Blob]
		b.Rows++
		if address := fmt.Sprint(m.Blob, m.Generation, m.RecordOffset, m.Ordinal); !seen[address] {
			seen[address] = true
			b.Addresses++
		}
		m.addTo(&b.Sums)
		c.Blobs[m.Blob] = b
	})
	each(t, addr, "traffic", func(m message) {
		at := c.Minutes[m.WindowStart.UnixMilli()]
		at.Tuples += m.Rows
		at.BytesSent += m.Bytes
		at.BytesReceived += m.BytesBack
		c.Minutes[m.WindowStart.UnixMilli()] = at
	})
	return c
}

// landed counts the rows.
func landed(c reconcile.Contents) (rows uint64) {
	for _, b := range c.Blobs {
		rows += b.Rows
	}
	return rows
}

func each(t *testing.T, addr, topic string, f func(message)) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), localtest.Kcat(t), "-C", "-q", "-e", "-b", addr, "-t", topic, "-X", "isolation.level=read_committed").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(out) {
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		f(m)
	}
}

// addTo adds the row to sums as traffic.Sums defines them.
func (m message) addTo(s *traffic.Sums) {
	halves := func(a netip.Addr) uint64 {
		b := a.As16()
		return binary.BigEndian.Uint64(b[:8]) + binary.BigEndian.Uint64(b[8:])
	}
	ms := uint64(m.Time.UnixMilli())
	s.TimeMS += ms
	s.SrcIP += halves(m.SrcIP)
	s.DstIP += halves(m.DstIP)
	s.SrcPort += m.SrcPort
	s.DstPort += m.DstPort
	s.Protocol += m.Protocol
	s.PacketsSent += m.Packets
	s.BytesSent += m.Bytes
	s.PacketsReceived += m.PacketsBack
	s.BytesReceived += m.BytesBack
	s.Cross += ms*(65536*m.SrcPort+m.DstPort) + m.Bytes*m.BytesBack
}
