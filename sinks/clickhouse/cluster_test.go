package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// duo is a cluster of two servers, the first spoken to over HTTP and the second
// over native TCP.
type duo struct {
	t       testing.TB
	cluster *localtest.Cluster
	use     *Sink // what sink gives

	mu sync.Mutex // one at a time looks whether a server has ended
}

// sink gives the sink in use, with both servers started.
func (d *duo) sink() *Sink {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, ch := range d.cluster.Servers {
		if closed(ch.Done()) {
			d.cluster.Start(d.t, i)
		}
	}
	return d.use
}

// fence and probe are the sink's, done patiently.
func (d *duo) fence(ledger uint16, shard int, epoch uint64) {
	d.t.Helper()
	patiently(d.t, d, func(s *Sink) error { return s.Fence(d.t.Context(), ledger, shard, epoch) })
}

func (d *duo) probe(batch pipeline.BatchID, pieces ...pipeline.PieceRef) []int64 {
	d.t.Helper()
	var rows []int64
	patiently(d.t, d, func(s *Sink) (err error) {
		rows, err = s.Probe(d.t.Context(), batch, pieces)
		return err
	})
	return rows
}

// config gives a configuration with a new database, the servers in the given order.
func (d *duo) config(order ...int) Config {
	c := config(d.t, "http://127.0.0.1:1")
	c.Cluster = localtest.ClusterName
	for _, i := range order {
		c.Servers = append(c.Servers, d.url(i))
	}
	return c
}

func (d *duo) url(i int) string { return urlOver(d.cluster.Servers[i], []string{"http", "tcp"}[i]) }

func (d *duo) name(i int) string {
	_, host, _ := strings.Cut(d.url(i), "://")
	return host
}

// planned plans as the engine does, which the conformance suite does not.
type planned struct{ *Sink }

func (p planned) Land(ctx context.Context, batch pipeline.BatchID, epoch uint64, piece pipeline.Piece) error {
	pieces, err := p.Plan(batch, []pipeline.Piece{piece}, nil)
	if err != nil {
		return err
	}
	defer pieces[0].Release()
	return p.Sink.Land(ctx, batch, epoch, pieces[0])
}

func (p planned) Probe(ctx context.Context, batch pipeline.BatchID, refs []pipeline.PieceRef) ([]int64, error) {
	refs = slices.Clone(refs)
	for i := range refs {
		refs[i].Server = p.home(batch.Shard()).server
	}
	return p.Sink.Probe(ctx, batch, refs)
}

// clusterTarget reads what people read: the Distributed tables.
type clusterTarget struct {
	target
	config Config
}

func (g clusterTarget) Open(t testing.TB) pipeline.Sink { return planned{open(t, g.config)} }

func (g clusterTarget) Parts(t testing.TB, table schemas.Table) []int64 {
	var out []int64
	for _, f := range strings.Fields(ask(t, g.http, fmt.Sprintf(
		"SELECT rows FROM clusterAllReplicas('%s', system.parts) WHERE active AND database = '%s' AND table = '%s_local' ORDER BY rows", localtest.ClusterName, g.config.Database, table.Name))) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

func TestCluster(t *testing.T) {
	d := &duo{t: t, cluster: localtest.StartCluster(t, 2)}
	t.Run("conformance", func(t *testing.T) {
		sinktest.Run(t, func(t *testing.T) sinktest.Target {
			c := d.config(0, 1)
			if err := open(t, c).Setup(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			single := c
			single.Servers, single.Cluster, single.URL = nil, "", d.cluster.Servers[0].HTTPURL
			s := open(t, single)
			return clusterTarget{target{s, s}, c}
		})
	})
	for name, f := range map[string]func(t *testing.T, d *duo){
		"set-up":           clusterSetup,
		"without its name": clusterWithoutName,
		"what is wrong":    clusterFaults,
		"ledgers":          clusterLedgers,
		"plans":            clusterPlans,
		"byte ranges":      clusterBatches,
		"excerpts":         clusterExcerpts,
	} {
		t.Run(name, func(t *testing.T) {
			f(t, &duo{t: t, cluster: d.cluster})
		})
	}
}

func clusterSetup(t *testing.T, d *duo) {
	c := d.config(1, 0)
	old := schemas.Flows
	old.Columns = append(append([]schemas.Column{}, old.Columns[:8]...), old.Columns[9:]...)
	bare := schemas.EnrichedFlows
	bare.Bare = true // The columns are known, and not made.
	if err := open(t, c, old).Setup(t.Context(), []schemas.View{schemas.FlowsReadable}); err != nil {
		t.Fatal(err)
	}
	s := open(t, c, bare, schemas.Quarantine, sinktest.Maps)
	for range 2 {
		if err := s.Setup(t.Context(), []schemas.View{schemas.FlowsReadable}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range s.nodes {
		have, err := n.existing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := n.plan(have, nil); err != nil || len(again) > 0 {
			t.Errorf("server %s would run %q, %v", n.server, again, err)
		}
	}
	if err := s.CheckSettings(t.Context()); err != nil {
		t.Error(err)
	}
	rows := map[int]int64{}
	for shard := range 4 {
		batch := pipeline.NewBatchID(1, shard, 1)
		p := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 100 + shard})
		defer p.Record.Release()
		if err := (planned{s}).Land(t.Context(), batch, 1, p); err != nil {
			t.Fatal(err)
		}
		rows[shard%2] += p.Rows
	}
	for i, n := range s.nodes {
		if got, err := n.execRaw(t.Context(), c.Database, "SELECT count() FROM flows_local"); err != nil || strings.TrimSpace(got) != strconv.FormatInt(rows[i], 10) {
			t.Errorf("server %s has %q rows, %v, want %d", n.server, got, err, rows[i])
		}
		for _, name := range []string{"flows", "flows_readable"} {
			if got, err := n.execRaw(t.Context(), c.Database, "SELECT count(), uniqExact(batch_id), countIf(protocol >= 0) FROM "+name); err != nil || strings.TrimSpace(got) != "406\t4\t406" {
				t.Errorf("server %s shows %q in %s, %v", n.server, got, name, err)
			}
		}
	}
	if err := open(t, c, schemas.EnrichedFlows, schemas.Quarantine, sinktest.Maps).Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := strconv.Itoa(len(schemas.EnrichedFlows.Columns))
	if got := ask(t, s, "SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'flows'"); got != want {
		t.Errorf("the Distributed table has %s columns, want %s", got, want)
	}
}

// Where the cluster is somebody else's business, set-up says what is missing.
func clusterWithoutName(t *testing.T, d *duo) {
	c := d.config(0, 1)
	c.Cluster = ""
	s := open(t, c)
	err := s.Setup(t.Context(), []schemas.View{schemas.FlowsReadable})
	if err == nil || !strings.Contains(err.Error(), "clickhouse.cluster") {
		t.Fatalf("error is %v", err)
	}
	for _, n := range s.nodes {
		for _, name := range n.order {
			if n.spread(name) {
				if _, err := n.exec(t.Context(), c.Database, n.distributedSQL("CREATE TABLE", name, localtest.ClusterName)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := s.Setup(t.Context(), []schemas.View{schemas.FlowsReadable}); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckSettings(t.Context()); err != nil {
		t.Error(err)
	}
}

func clusterFaults(t *testing.T, d *duo) {
	c := d.config(0, 1)
	single := c
	single.Servers, single.Cluster, single.URL = nil, "", d.url(1)
	if err := open(t, single).Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	err := open(t, c).Setup(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), `table "flows" is a MergeTree of a single server`) || !strings.Contains(err.Error(), "RENAME TABLE") || !strings.Contains(err.Error(), d.name(1)) {
		t.Errorf("tables of a single server: %v", err)
	}
	c = d.config(0, 1)
	if err := open(t, c).Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	c.Cluster = "nowhere"
	if err := open(t, c).CheckSettings(t.Context()); err == nil || !strings.Contains(err.Error(), `not of cluster "nowhere"`) {
		t.Errorf("another cluster: %v", err)
	}
	n := open(t, c).nodes[0]
	if faults, err := n.checkShards(t.Context()); err != nil || len(faults) != 1 || !strings.Contains(faults[0].Error(), "unknown") {
		t.Errorf("unknown cluster: %v, %v", faults, err)
	}
	n.config.Cluster, n.config.Servers = localtest.ClusterName, make([]string, 3)
	if faults, err := n.checkShards(t.Context()); err != nil || len(faults) != 1 || !strings.Contains(faults[0].Error(), "has 2 shards") {
		t.Errorf("three servers of two shards: %v, %v", faults, err)
	}
	bad := DefaultConfig()
	bad.Servers, bad.Cluster = []string{"http://h:1", "tcp://h:1", "nonsense"}, "a b"
	err = bad.Validate()
	for _, part := range []string{"lists h:1 twice", `url "nonsense"`, `cluster "a b"`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q: %v", part, err)
		}
	}
}

func clusterLedgers(t *testing.T, d *duo) {
	one := d.config(1)
	if err := open(t, one).Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	register := func(c Config, name string) uint16 {
		t.Helper()
		id, err := open(t, c).RegisterLedger(t.Context(), name, 4, false)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if id := register(one, "first"); id != 1 {
		t.Errorf("first ledger is %d, want 1", id)
	}
	both := d.config(0, 1)
	both.Database = one.Database
	s := open(t, both)
	if err := s.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	// A new server has nothing yet, and may be the one that decides.
	if id := register(both, "second"); id != 2 {
		t.Errorf("second ledger is %d, want 2", id)
	}
	turned := both
	turned.Servers = []string{both.Servers[1], both.Servers[0]}
	alone := both
	alone.Servers = both.Servers[:1]
	for name, want := range map[string]uint16{"first": 1, "second": 2} {
		for _, c := range []Config{both, turned, alone, one} {
			if name == "first" && len(c.Servers) == 1 && c.Servers[0] == both.Servers[0] {
				register(both, name) // Its copy comes with the next start.
			}
			if id := register(c, name); id != want {
				t.Errorf("ledger %q is %d on %v, want %d", name, id, c.Servers, want)
			}
		}
	}
	batch := pipeline.NewBatchID(1, 1, 1)
	p := remake(t, batch)
	if err := (planned{s}).Land(t.Context(), batch, 1, p); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RegisterLedger(t.Context(), "third", 4, false); !errors.Is(err, ErrForeignRows) {
		t.Errorf("a new ledger on a cluster with rows: %v, want ErrForeignRows", err)
	}
}

func clusterPlans(t *testing.T, d *duo) {
	s, turned := open(t, d.config(0, 1)), open(t, d.config(1, 0))
	batch := pipeline.NewBatchID(1, 3, 5)
	pieces := []pipeline.Piece{remake(t, batch), remake(t, batch)}
	plan := func(s *Sink, recorded []pipeline.PieceRef) []string {
		out, err := s.Plan(batch, pieces, recorded)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range out {
			names = append(names, p.Server)
			p.Release()
		}
		return names
	}
	want := s.nodes[1].server
	if diff := cmp.Diff([]string{want, want}, plan(s, nil)); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(plan(s, nil), plan(turned, nil)); diff != "" {
		t.Errorf("the list's order changes the plan:\n%s", diff)
	}
	gone := []pipeline.PieceRef{{Server: "gone:9000"}, {Server: ""}}
	if diff := cmp.Diff([]string{"gone:9000", ""}, plan(s, gone)); diff != "" {
		t.Errorf("a recorded plan changed:\n%s", diff)
	}
	for server, text := range map[string]string{"gone:9000": "put it back", "": "clickhouse.url"} {
		ref := pieces[0].PieceRef
		ref.Server = server
		_, probeErr := s.Probe(t.Context(), batch, []pipeline.PieceRef{ref})
		landErr := s.Land(t.Context(), batch, 1, pipeline.Piece{PieceRef: ref, Record: pieces[0].Record})
		for name, err := range map[string]error{"Probe": probeErr, "Land": landErr} {
			if err == nil || errors.Is(err, pipeline.ErrTransient) || errors.Is(err, pipeline.ErrInDoubt) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s for server %q: %v, want a fatal error with %q", name, server, err, text)
			}
		}
	}
}

// The byte ranges lie where the rows lie, also after the list has changed.
func clusterBatches(t *testing.T, d *duo) {
	c := d.config(0, 1)
	s := open(t, c)
	if err := s.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var manifests []pipeline.Manifest
	for seq := range 4 {
		m := pipeline.Manifest{
			Batch: pipeline.NewBatchID(1, seq%2, uint64(seq)), Shard: seq % 2, Created: 1_700_000_000_000,
			Units: []pipeline.Unit{{Blob: pipeline.BlobID{Account: "a", Container: "c", Path: "p"}, Offset: int64(seq), Length: 1}},
		}
		if seq >= 2 { // Planned while the servers were others.
			m.Pieces = []pipeline.PieceRef{{Server: s.nodes[1-seq%2].server}}
		}
		manifests = append(manifests, m)
	}
	manifests[0].Pieces = []pipeline.PieceRef{{Server: "gone:1"}}
	for range 2 {
		if err := s.LandBatches(t.Context(), manifests); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"0\n3", "1\n2"}
	for i, n := range s.nodes {
		got, err := n.execRaw(t.Context(), c.Database, "SELECT offset FROM batches_local FINAL ORDER BY offset")
		if diff := cmp.Diff(want[i], strings.TrimSpace(got)); err != nil || diff != "" {
			t.Errorf("byte ranges on server %d: %v (-want +got):\n%s", i, err, diff)
		}
	}
	if got := ask(t, s, "SELECT groupArray(offset) FROM (SELECT offset FROM batches FINAL ORDER BY offset)"); got != "[0,1,2,3]" {
		t.Errorf("batches shows %s", got)
	}
}

// One server of two is killed (-9) at random moments while four owners land batches.
// Those of the other server go on; those of the dead one wait for it, fence, probe
// and land what is missing. Meanwhile the list of servers is turned around. At the
// end every piece is there once, on the server that it was planned for.
func TestClusterSurvivesAKilledServer(t *testing.T) {
	const kills, rows = 4, 5000
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := &duo{t: t, cluster: localtest.StartCluster(t, 2)}
	c := d.config(0, 1)
	turned := c
	turned.Servers = []string{c.Servers[1], c.Servers[0]}
	sinks := []*Sink{open(t, c), open(t, turned)}
	if err := sinks[0].Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	writers := make([]*writer, 4)
	for i := range writers {
		writers[i] = &writer{t: t, l: d, shard: i, rows: rows}
	}
	through := make([]int64, 2)
	for kill := range kills {
		victim := kill % 2
		d.use = sinks[random.IntN(2)]
		var wg sync.WaitGroup
		for _, w := range writers {
			w.take()
			w.stop.Store(false)
			wg.Go(w.run)
		}
		time.Sleep(time.Duration(100+random.IntN(300)) * time.Millisecond)
		d.cluster.Servers[victim].Kill()
		time.Sleep(200 * time.Millisecond)
		landed := func() (rows int64) {
			for i, w := range writers {
				if sinks[0].home(i).server != d.name(victim) {
					rows += w.landed.Load()
				}
			}
			return rows
		}
		before := landed()
		time.Sleep(500 * time.Millisecond)
		through[victim] += landed() - before
		for _, w := range writers {
			w.stop.Store(true)
		}
		wg.Wait()
	}
	if through[0] == 0 || through[1] == 0 {
		t.Errorf("rows that the one server took while the other was away: %v", through)
	}
	total, doubts := int64(0), 0
	for _, w := range writers {
		w.take()
		w.finish()
		total += w.landed.Load()
		doubts += w.doubts
	}
	for _, n := range sinks[0].nodes {
		got, err := n.execRaw(t.Context(), c.Database, "SELECT count(), uniqExact(batch_id, toYYYYMMDD(time)) * "+strconv.Itoa(rows)+" FROM flows")
		if want := fmt.Sprintf("%d\t%[1]d", total); err != nil || strings.TrimSpace(got) != want {
			t.Errorf("server %s shows %q, %v, want %q", n.server, got, err, want)
		}
		strays, err := n.execRaw(t.Context(), c.Database, fmt.Sprintf("SELECT count() FROM flows_local WHERE bitAnd(bitShiftRight(batch_id, 36), 4095) %% 2 != %d", slices.Index(sinks[0].nodes, n)))
		if err != nil || strings.TrimSpace(strays) != "0" {
			t.Errorf("server %s has %q rows of the other's shards, %v", n.server, strays, err)
		}
	}
	t.Logf("%d rows, %d kills, %d INSERTs in doubt, %v rows while the other server was away", total, kills, doubts, through)
}
