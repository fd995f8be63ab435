package kafka

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// What a cutter loses of the next commit.
const (
	loseNothing int32 = iota
	loseRequest
	loseAnswer
)

// forever is a time that does not come, in ms since 1970.
const forever = math.MaxInt64

// cutter passes requests and answers on to the broker until it is told to cut: then
// the connections end, some in the midst of either. It listens where the broker says
// that it is, so that the client has no way around it.
type cutter struct {
	listener net.Listener
	to       atomic.Value // string: where the broker is
	dark     atomic.Int64 // until when nobody is let through, ms since 1970
	left     atomic.Int64 // bytes until all connections are cut; below 0 never
	lose     atomic.Int32 // what is lost of the next commit; nobody is let through after it
	mu       sync.Mutex
	conns    []net.Conn
	pipes    sync.WaitGroup
	cuts     atomic.Int64
}

func newCutter() (*cutter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &cutter{listener: l}
	c.to.Store("")
	c.left.Store(-1)
	c.pipes.Go(c.accept)
	return c, nil
}

func (c *cutter) close() {
	c.listener.Close()
	c.cut()
	c.pipes.Wait()
}

func (c *cutter) accept() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to.Load().(string))
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		if time.Now().UnixMilli() < c.dark.Load() {
			in.Close()
			out.Close()
		} else {
			c.conns = append(c.conns, in, out)
			var awaited atomic.Int64 // id of the request whose answer is lost, plus 1
			c.pipes.Go(func() { c.pass(out, in, func(frame []byte) bool { return c.request(frame, &awaited) }) })
			c.pipes.Go(func() { c.pass(in, out, func(frame []byte) bool { return awaited.Load() != 1+requestID(frame[4:]) }) })
		}
		c.mu.Unlock()
	}
}

// request says whether one gets through.
func (c *cutter) request(frame []byte, awaited *atomic.Int64) bool {
	if !isCommit(frame) {
		return true
	}
	switch c.lose.Swap(loseNothing) {
	case loseRequest:
		return false
	case loseAnswer:
		awaited.Store(1 + requestID(frame[8:]))
	}
	return true
}

// requestID reads by what an answer is matched with its request.
func requestID(b []byte) int64 { return int64(binary.BigEndian.Uint32(b)) }

// pass hands on what comes; after the first that may not pass nothing does.
func (c *cutter) pass(to, from net.Conn, may func(frame []byte) bool) {
	defer to.Close()
	defer from.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(from, size[:]); err != nil {
			return
		}
		frame := slices.Concat(size[:], make([]byte, binary.BigEndian.Uint32(size[:])))
		if _, err := io.ReadFull(from, frame[4:]); err != nil {
			return
		}
		if !may(frame) {
			c.dark.Store(forever)
			c.cut()
			return
		}
		for chunk := range slices.Chunk(frame, 4096) {
			if left := c.left.Load(); left >= 0 && c.left.Add(int64(-len(chunk))) < 0 {
				c.cut()
			}
			if _, err := to.Write(chunk); err != nil {
				return
			}
		}
	}
}

// cut ends all connections, and lets new ones live.
func (c *cutter) cut() {
	c.left.Store(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	if len(c.conns) > 0 {
		c.cuts.Add(1)
	}
	c.conns = nil
}

// behindFront gives a sink that reaches the broker through front.
func behindFront(t *testing.T, timeout time.Duration) *Sink {
	t.Helper()
	front.to.Store(shared.Broker(t).ProxiedAddr)
	front.dark.Store(0)
	c := config(t, front.listener.Addr().String())
	c.Topics = map[string]string{schemas.Flows.Name: c.Topics[schemas.Flows.Name]}
	c.Compression, c.RequestTimeout, c.TransactionTimeout = "none", 10*time.Second, timeout
	s := open(t, c)
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// The connection ends with the commit and does not come back while the landing waits:
// whether the brokers have committed is in doubt. The next owner knows.
func TestCommitInDoubt(t *testing.T) {
	for _, c := range []struct {
		name   string
		lose   int32
		landed bool
	}{
		{"its request is lost", loseRequest, false},
		{"its answer is lost", loseAnswer, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := behindFront(t, time.Second)
			id, p := pipeline.NewBatchID(5, 1, 1), faultyBatch(1)
			defer p.Release()
			planned, err := s.Plan(id, []pipeline.Piece{p}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer planned[0].Release()
			patiently(t, func() error { return s.Fence(t.Context(), id.Ledger(), id.Shard(), 1) })
			front.lose.Store(c.lose)
			if err := s.Land(t.Context(), id, 1, planned[0]); !errors.Is(err, pipeline.ErrInDoubt) {
				t.Fatalf("landing: %v, want ErrInDoubt", err)
			}
			front.dark.Store(0)
			want := int64(0)
			if c.landed {
				want = p.Rows
			}
			if found := fenceAndProbe(t, s, id, 2, planned[0].PieceRef); found != want {
				t.Errorf("%d rows are found, want %d", found, want)
			}
			for range 2 {
				if err := s.Land(t.Context(), id, 2, planned[0]); err != nil {
					t.Fatal(err)
				}
			}
			rec := suite{s.config}.Read(t, schemas.Flows)[0]
			defer rec.Release()
			if diff := cmp.Diff(sorted(sinktest.Lines(p.Record)), sinktest.Lines(rec)); diff != "" {
				t.Errorf("rows (-want +got):\n%.2000s", diff)
			}
		})
	}
}

// wire is about what a batch of the test takes on the wire, in bytes.
const wire = 400_000

// landThrough lands batches the way the core does, while connections are cut: after
// doubt it fences at a higher epoch and probes, after a transient error it tries again.
func landThrough(t *testing.T, s *Sink, batches uint64, random *rand.Rand) (doubts, transients int) {
	t.Helper()
	epoch := uint64(1)
	for seq := uint64(1); seq <= batches; seq++ {
		id := pipeline.NewBatchID(5, 1, seq)
		p := faultyBatch(seq)
		planned, err := s.Plan(id, []pipeline.Piece{p}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Release()
		for landed := false; !landed; {
			front.left.Store(random.Int64N(wire))
			err := s.Land(t.Context(), id, epoch, planned[0])
			front.left.Store(-1)
			switch {
			case err == nil:
				landed = true
			case errors.Is(err, pipeline.ErrInDoubt):
				doubts++
				epoch++
				landed = fenceAndProbe(t, s, id, epoch, planned[0].PieceRef) > 0
			case errors.Is(err, pipeline.ErrTransient):
				transients++
			default:
				t.Fatal(err)
			}
		}
		planned[0].Release()
	}
	return doubts, transients
}

func faultyBatch(seq uint64) pipeline.Piece {
	return sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: pipeline.NewBatchID(5, 1, seq), Seed: seq, Rows: 400})
}

// Answers are lost at any byte. The cluster is one without the repair of transactions
// (transaction.version below 2), where a late request could end a later transaction.
// Every row is there once.
func TestLostAnswers(t *testing.T) {
	const batches, seed = 6, 7
	transactionVersion(t, 0)
	defer transactionVersion(t, 2)
	s := behindFront(t, 5*time.Second)
	cutsBefore := front.cuts.Load()
	doubts, transients := landThrough(t, s, batches, rand.New(rand.NewPCG(seed, 0)))
	var want []string
	for seq := uint64(1); seq <= batches; seq++ {
		p := faultyBatch(seq)
		want = append(want, sinktest.Lines(p.Record)...)
		p.Release()
	}
	rec := suite{s.config}.Read(t, schemas.Flows)[0]
	defer rec.Release()
	if diff := cmp.Diff(sorted(want), sinktest.Lines(rec)); diff != "" {
		t.Errorf("rows (-want +got):\n%.2000s", diff)
	}
	cuts := front.cuts.Load() - cutsBefore
	t.Logf("%d cuts: %d landings in doubt, %d tried again", cuts, doubts, transients)
	if cuts < batches/2 {
		t.Error("too few faults to show anything")
	}
}

// transactionVersion makes the broker one of an older or newer cluster.
func transactionVersion(t *testing.T, version int16) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(shared.Broker(t).Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	change := kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: version, UpgradeType: 1}
	if version < 2 {
		change.UpgradeType = 2 // a downgrade that loses nothing
	}
	updated, err := kadm.NewClient(cl).UpdateFeatures(t.Context(), false, change)
	if err == nil {
		err = updated.Error()
	}
	if err != nil {
		t.Fatalf("set transaction.version to %d: %v", version, err)
	}
}

// The progress of a shard stands behind a transaction of another one that nobody has
// ended, as after the death of a process: it is found all the same.
func TestProgressBehindAnOpenTransaction(t *testing.T) {
	s := ready(t, nil)
	x, err := begin(t.Context(), s.config, s.producerOptions(), s.shardID(7, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	if err := x.client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	uncommitted := progress{Version: progressVersion, Epoch: 9, Before: 100}
	value, err := json.Marshal(uncommitted)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.client.ProduceSync(t.Context(), &kgo.Record{Topic: s.config.ProgressTopic, Key: []byte(progressKey(7, 1)), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}

	id := pipeline.NewBatchID(7, 0, 1)
	p := sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: id, Seed: 1, Rows: 50})
	defer p.Release()
	planned, err := s.Plan(id, []pipeline.Piece{p}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer planned[0].Release()
	if found := fenceAndProbe(t, s, id, 1, planned[0].PieceRef); found != 0 {
		t.Errorf("%d rows before anything landed", found)
	}
	if err := s.Land(t.Context(), id, 1, planned[0]); err != nil {
		t.Fatal(err)
	}
	successor := open(t, s.config)
	if found := fenceAndProbe(t, successor, id, 2, planned[0].PieceRef); found != 50 {
		t.Errorf("the successor finds %d rows, want 50", found)
	}
	if err := successor.Land(t.Context(), id, 2, planned[0]); err != nil {
		t.Fatal(err)
	}
	// What was never committed counts for nothing, before its end and after.
	for range 2 {
		other, err := successor.shardProgress(t.Context(), 7, 1)
		if err != nil || other.Epoch != 0 || other.Before != 0 {
			t.Errorf("the open transaction's progress is %+v, %v", other, err)
		}
		_ = x.client.EndTransaction(t.Context(), kgo.TryAbort) // the second one finds none
	}
	if n := len(rows(consume(t, s.config.Broker.Brokers[0], s.config.Topics[schemas.Flows.Name]))); n != 50 {
		t.Errorf("%d rows, want 50", n)
	}
}

// A late owner wakes up while its successor lands: it stops, the successor goes on, and
// nothing is there twice.
func TestLateOwnerWakesUp(t *testing.T) {
	s := ready(t, nil)
	late := open(t, s.config)
	batch := func(seq uint64) (pipeline.BatchID, pipeline.Piece) {
		return pipeline.NewBatchID(7, 0, seq), sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: pipeline.NewBatchID(7, 0, seq), Seed: seq, Rows: 50})
	}
	land := func(s *Sink, seq, epoch uint64) error {
		id, p := batch(seq)
		defer p.Release()
		planned, err := s.Plan(id, []pipeline.Piece{p}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer planned[0].Release()
		return s.Land(t.Context(), id, epoch, planned[0])
	}
	if err := late.Fence(t.Context(), 7, 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := land(late, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Fence(t.Context(), 7, 0, 2); err != nil {
		t.Fatal(err)
	}
	// The late owner's writer begins anew without having seen the fence, as it would when
	// it read the epoch just before: the rightful owner is shut out, and mends itself.
	x, err := begin(t.Context(), s.config, s.producerOptions(), s.shardID(7, 0))
	if err != nil {
		t.Fatal(err)
	}
	x.close()
	if err := land(s, 2, 2); !errors.Is(err, pipeline.ErrTransient) {
		t.Errorf("the owner that was shut out: %v, want ErrTransient", err)
	}
	if err := land(late, 2, 1); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("the late owner: %v, want ErrFenced", err)
	}
	for seq := range uint64(3) {
		if err := land(s, seq+1, 2); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(rows(consume(t, s.config.Broker.Brokers[0], s.config.Topics[schemas.Flows.Name]))); n != 150 {
		t.Errorf("%d rows, want 150", n)
	}
}

// The progress topic registers ledgers as ClickHouse does.
func TestRegisterLedger(t *testing.T) {
	s := ready(t, nil)
	other := open(t, s.config)
	register := func(s *Sink, name string, shards int, given uint16, foreign bool) (uint16, error) {
		return s.RegisterLedger(t.Context(), name, shards, given, foreign)
	}
	for range 2 {
		if id, err := register(s, "a", 4, 0, false); id != 1 || err != nil {
			t.Fatalf("id %d, %v, want 1", id, err)
		}
	}
	if id, err := register(other, "b", 2, 0, false); id != 2 || err != nil {
		t.Fatalf("id %d, %v, want 2", id, err)
	}
	// Many at once get an id each.
	var wg sync.WaitGroup
	var mu sync.Mutex
	ids := map[uint16]string{}
	for _, name := range []string{"c", "d", "e", "f"} {
		wg.Go(func() {
			one := open(t, s.config)
			for {
				id, err := register(one, name, 1, 0, false)
				if errors.Is(err, pipeline.ErrTransient) {
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil || ids[id] != "" {
					t.Errorf("ledger %q has id %d, which is that of %q: %v", name, id, ids[id], err)
				}
				ids[id] = name
				return
			}
		})
	}
	wg.Wait()
	landAs(t, s, pipeline.NewBatchID(1, 0, 1), sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: pipeline.NewBatchID(1, 0, 1), Seed: 1, Rows: 5}))
	eventually(t, func() bool {
		_, err := register(other, "new", 4, 0, false)
		return errors.Is(err, ErrForeignRows)
	})
	if id, err := register(other, "new", 4, 0, true); err != nil || id < 7 {
		t.Errorf("a new ledger that is allowed: %d, %v", id, err)
	}
	if id, err := register(other, "a", 4, 0, false); err != nil || id != 1 {
		t.Errorf("a known ledger beside rows: %d, %v", id, err)
	}
}

// eventually waits for what the brokers tell a moment later.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not so within 10 s")
		}
	}
}

// Topics that would lose rows are refused, with the remedy.
func TestTopicsAreChecked(t *testing.T) {
	c := config(t, shared.Broker(t).Addr)
	s := open(t, c)
	c.CreateTopics = false
	if err := open(t, c).Setup(t.Context()); err == nil || !strings.Contains(err.Error(), "set create_topics") || strings.Count(err.Error(), "is missing") != 4 {
		t.Errorf("topics that are missing: %v", err)
	}
	for range 2 {
		if err := s.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, c).Setup(t.Context()); err != nil {
		t.Errorf("topics that are there: %v", err)
	}
	swapped := c
	swapped.ProgressTopic, swapped.Topics = c.Topics[schemas.Flows.Name], map[string]string{schemas.Flows.Name: c.ProgressTopic}
	err := open(t, swapped).Setup(t.Context())
	if err == nil || !strings.Contains(err.Error(), "want compact") || !strings.Contains(err.Error(), "want delete") {
		t.Errorf("a progress topic that forgets, and rows that are compacted: %v", err)
	}
}

// Without transactions rows land at least once, with the headers to tell them by.
func TestAtLeastOnce(t *testing.T) {
	c := ready(t, nil).config
	s, err := NewAtLeastOnce(c, sinktest.Tables(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	batch := pipeline.NewBatchID(1, 0, 1)
	for range 2 { // as after a crash
		landAs(t, s, batch, sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 500}))
	}
	seen := map[string]int{}
	for _, r := range rows(consume(t, c.Broker.Brokers[0], c.Topics[schemas.Flows.Name])) {
		seen[header(r, HeaderBatch)+"/"+header(r, HeaderRows)]++
	}
	if len(seen) != 500 {
		t.Errorf("%d rows by their headers, want 500", len(seen))
	}
	for name, n := range seen {
		if n != 2 {
			t.Errorf("row %s came %d times, want twice", name, n)
		}
	}
	if found, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{{Table: "flows", Rows: 500}}); err != nil || found[0] != 0 {
		t.Errorf("a probe says %v, %v; it cannot know", found, err)
	}
	if id, err := s.RegisterLedger(t.Context(), "name", 4, 0, false); err != nil || id == 0 {
		t.Errorf("ledger id %d, %v", id, err)
	}
}
