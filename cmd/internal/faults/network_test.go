package faults

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
)

var (
	faults   = flag.Int("faults", 12, "TestNetwork: faults over all services")
	jobs     = flag.Int("jobs", 2, "TestNetwork: jobs side by side, every second one over Kafka and ClickHouse's native protocol")
	progress = flag.Duration("progress", 25*time.Second, "TestNetwork: how soon after a fault something has landed again")
)

// Services that not every world has.
const (
	theLedger jobtest.Service = "ledger"
	theKafka  jobtest.Service = "kafka"
	native    jobtest.Service = "clickhouse_native"
)

type networkFigures struct {
	Faults    int                     `json:"faults"`
	ByKind    map[string]int          `json:"by_kind"`
	ByService map[jobtest.Service]int `json:"by_service"`
	// What the tables say at the end, of the jobs that came so far.
	Reconciled int    `json:"reconciled"`
	Lost       uint64 `json:"lost"`
	Dup        uint64 `json:"dup"`
	Altered    uint64 `json:"altered"`
	Rows       uint64 `json:"rows"`
	// From the end of a fault until a batch has landed.
	ProgressP50 float64 `json:"progress_p50_s"`
	ProgressP99 float64 `json:"progress_p99_s"`
	ProgressMax float64 `json:"progress_max_s"`
	Renewed     int     `json:"renewed"` // proxies that did not let go of a fault
	Aborts      int     `json:"aborts"`  // servers that ended by themselves, see killFigures
	Jobs        int     `json:"jobs"`
	Seconds     float64 `json:"seconds"`
	Seed        uint64  `json:"seed"`
}

// network is what all jobs report to.
type network struct {
	mu       sync.Mutex
	figures  networkFigures
	left     int
	progress []time.Duration
}

// claim is false when there were enough faults.
func (n *network) claim() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left--
	return n.left >= 0
}

func (n *network) count(f func(*networkFigures)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.figures)
}

// Whatever the network does between the pipeline and its services, one fault after the
// other while it is under load: nothing is lost or doubled, and soon after each fault
// something lands again.
func TestNetwork(t *testing.T) {
	began := time.Now()
	n := &network{left: *faults}
	n.figures = networkFigures{ByKind: map[string]int{}, ByService: map[jobtest.Service]int{}, Jobs: *jobs, Seed: drawSeed(t)}
	t.Run("jobs", func(t *testing.T) {
		for i := range *jobs {
			rng := rand.New(rand.NewPCG(n.figures.Seed, uint64(i)))
			// Each makes its world before any of them runs: the environment is one.
			j := &networkJob{n: n, rng: rng}
			if i%2 == 0 {
				j.overHub(t)
			} else {
				j.overKafka(t)
			}
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				j.World = j.In(t)
				j.run(t)
			})
		}
	})
	f := &n.figures
	f.ProgressP50, f.ProgressP99 = percentile(n.progress, 50).Seconds(), percentile(n.progress, 99).Seconds()
	most := percentile(n.progress, 100)
	f.ProgressMax, f.Seconds = most.Seconds(), time.Since(began).Seconds()
	jobtest.Figures(t, f)
	if f.Reconciled < *jobs {
		t.Errorf("the tables of %d of %d jobs were compared: what is said of lost and doubled rows is of them alone", f.Reconciled, *jobs)
	}
	if most > *progress {
		t.Errorf("it took up to %v until something landed again, want %v", most, *progress)
	}
}

// networkJob is one job with proxies in front of its services.
type networkJob struct {
	*jobtest.World
	n       *network
	rng     *rand.Rand
	paths   []*networkPath
	cluster *localtest.Cluster
	publish func(context.Context, []byte) error
	topic   func(t *testing.T) (rows, unique uint64) // what a topic holds; nil without one
	p       *jobtest.Program
}

// through puts a proxy in front of a service.
func (j *networkJob) through(t *testing.T, s jobtest.Service, addr string) string {
	p := newPath(t, s, addr)
	j.paths = append(j.paths, p)
	return p.proxy.Listen
}

// oneShard: with one shard something has landed only if nothing is stuck.
const oneShard = "shards: 1\n"

// overHub is a job with an event hub, ClickHouse over HTTP, and a shared ledger.
func (j *networkJob) overHub(t *testing.T) {
	t.Helper()
	var blobs string
	j.cluster = localtest.StartCluster(t, 1)
	j.World = jobtest.New(t, jobtest.Options{URL: j.cluster.Servers[0].HTTPURL, Extra: oneShard, Via: func(s jobtest.Service, addr string) string {
		if s == jobtest.Blobs {
			blobs = addr
		}
		return j.through(t, s, addr)
	}})
	a := j.Config().Accounts[0]
	j.YAML += fmt.Sprintf("ledger: {azure: {name: %s, endpoint: %q, container: ledgers, prefix: test, key: {env: TEST_STORAGE_KEY}}}\n",
		a.Name, "http://"+j.through(t, theLedger, blobs)+"/"+a.Name)
	j.publish = j.Notify
}

// overKafka is a job that reads notifications from a topic, and lands in topics and in
// ClickHouse over its native protocol.
func (j *networkJob) overKafka(t *testing.T) {
	t.Helper()
	front := newPath(t, theKafka, "127.0.0.1:1")
	k := localtest.StartKafkaIn(t, servers.KafkaOptions{Dir: t.TempDir(), Proxy: front.proxy.Listen})
	front.leadTo(t, k.ProxiedAddr)
	j.paths = append(j.paths, front)
	j.cluster = localtest.StartCluster(t, 1)
	server := j.cluster.Servers[0]
	j.World = jobtest.New(t, jobtest.Options{
		URL: server.HTTPURL, Target: "url: tcp://" + j.through(t, native, server.TCPAddr),
		Extra: oneShard + fmt.Sprintf(`
kafka_sources:
  - {brokers: [%q], topic: events, group: test}
kafka:
  brokers: [%q]
  topics: {flows: flows}
  progress_topic: progress
  create_topics: true
  partitions: 3
  replication: 1
`, front.proxy.Listen, front.proxy.Listen),
		Via: func(s jobtest.Service, addr string) string {
			if s == jobtest.Hub {
				return addr // nothing comes from it
			}
			return j.through(t, s, addr)
		},
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 2, 1, nil, "events"); err != nil {
		t.Fatal(err)
	}
	j.publish = func(ctx context.Context, body []byte) error {
		return client.ProduceSync(ctx, &kgo.Record{Topic: "events", Value: slices.Clone(body)}).FirstErr()
	}
	j.topic = func(t *testing.T) (rows, unique uint64) { return inTopic(t, k.Addr, "flows") }
}

// lively is an estate that has something new to read at every moment, in hours that
// are not over for the sweeper; every notification comes.
func lively(seed uint64) func(*traffic.Config) {
	return func(c *traffic.Config) {
		steady(seed, 64)(c)
		c.Start, c.Dropped = time.Now().Add(-time.Hour), 0
	}
}

// run breaks one path after the other, then drains and reconciles.
func (j *networkJob) run(t *testing.T) {
	began := time.Now()
	stopEstate := j.EstateInto(500, j.publish, lively(j.rng.Uint64()))
	j.p = j.StartProgram("--end-of-input-on-stop")
	j.landed(t, jobtest.Status{})
	for j.n.claim() {
		for _, path := range shuffled(j.rng, j.paths)[:1] {
			j.fault(t, path)
		}
	}
	truth := stopEstate()
	j.reconcile(t, truth)
	t.Logf("%v, %d rows", time.Since(began), truth.Totals.Tuples)
}

// fault is one.
func (j *networkJob) fault(t *testing.T, path *networkPath) {
	t.Helper()
	kind, lasts := drawFault(j.rng)
	path.begin(t, kind, j.rng)
	time.Sleep(lasts) // the fault, not a wait for something
	path.end(t, kind)
	ended := time.Now()
	before, _ := j.p.Ask()
	took := j.landed(t, before)
	j.n.count(func(f *networkFigures) {
		f.Faults++
		f.ByKind[kind]++
		f.ByService[path.service]++
		j.n.progress = append(j.n.progress, took)
	})
	if took > *progress/4 {
		t.Logf("%s of %s for %v, progress after %v; since %s it has said:\n%s", kind, path.service, lasts, took, ended.UTC().Format(time.RFC3339Nano), tail(j.p.Said(), 40))
	}
}

// landed waits until more has landed, in this life of the pipeline or a new one.
func (j *networkJob) landed(t *testing.T, before jobtest.Status) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < 2*jobtest.Patience {
		select {
		case <-j.p.Done:
			t.Fatalf("the pipeline ended: %s", tail(j.p.Said(), 60))
		case <-j.cluster.Servers[0].Done():
			j.n.count(func(f *networkFigures) { f.Aborts++ })
			j.cluster.Start(t, 0)
			began = time.Now() // the fault lasted until now
		case <-time.After(20 * time.Millisecond):
		}
		s, ok := j.p.Ask()
		if !ok {
			continue
		}
		if s.Landed < before.Landed {
			before.Landed = 0 // it owns the ledger again, and counts anew
		}
		if s.Live && s.Landed > before.Landed {
			return time.Since(began)
		}
	}
	t.Fatalf("nothing has landed for %v: %s", time.Since(began), tail(j.p.Said(), 60))
	return 0
}

func (j *networkJob) reconcile(t *testing.T, truth traffic.Truth) {
	t.Helper()
	j.p.Until("at the end of its sources", func(s jobtest.Status) bool { return s.Live && s.Behind == 0 })
	j.p.Stop(syscall.SIGTERM)
	if code := j.p.Cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, tail(j.p.Said(), 40))
	}
	v := j.Reconcile(truth)
	j.n.count(func(f *networkFigures) {
		f.Reconciled++
		f.Lost += v.Lost
		f.Dup += v.Duplicated
		f.Altered += v.Spoiled()
		f.Rows += v.RowsLanded
		for _, p := range j.paths {
			f.Renewed += p.renewed
		}
	})
	if !v.Exact() {
		t.Errorf("%+v", v)
	}
	if j.topic == nil {
		return
	}
	rows, unique := j.topic(t)
	if rows != truth.Totals.Tuples || unique != rows {
		t.Errorf("the topic has %d rows, %d of them distinct, want %d", rows, unique, truth.Totals.Tuples)
		j.n.count(func(f *networkFigures) {
			f.Dup += rows - unique
			f.Lost += truth.Totals.Tuples - min(unique, truth.Totals.Tuples)
		})
	}
}

// inTopic counts what others read of a topic, with a client that is not ours.
func inTopic(t *testing.T, addr, topic string) (rows, unique uint64) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), localtest.Kcat(t), "-C", "-q", "-e", "-b", addr, "-t", topic, "-X", "isolation.level=read_committed").Output()
	if err != nil {
		t.Fatal(err)
	}
	type address struct {
		Blob         string
		Generation   uint32
		RecordOffset uint64 `json:"record_offset"`
		Ordinal      uint32
	}
	seen := map[address]bool{}
	for line := range strings.Lines(string(out)) {
		var a address
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		rows++
		seen[a] = true
	}
	return rows, uint64(len(seen))
}

// tail gives the last lines.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
