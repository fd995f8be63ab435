package shard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/ledgertest"
	"github.com/millrace/millrace/pipeline/shard"
)

// insert is one INSERT that reached the target, or may still reach it.
type insert struct {
	epoch uint64
	seq   uint64
	piece int
	units []pipeline.Unit
}

// world is everything outside the core, driven by one seed: blobs that grow, a
// target whose answers get lost and whose inserts arrive late, and a ledger.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	store ledgertest.Memory // it survives the simulated process
	book  *ledger.Ledger
	core  *shard.Core
	epoch uint64 // of the fence

	blobs map[pipeline.BlobID]int64 // length without the footer
	ids   []pipeline.BlobID
	table map[string][]pipeline.Unit // landed units by "seq/piece"
	late  []insert

	work     []func() shard.Event // answers under way, in any order
	writes   []func() shard.Event // ledger writes, in order
	chunks   map[shard.JobID][]pipeline.Unit
	units    []pipeline.Unit // of the open batch
	held     map[uint64][]pipeline.Unit
	acked    map[shard.AckID]bool
	promised map[shard.AckID]promise
	nextAck  shard.AckID
	stopped  bool
	kills    int
	doubts   int

	zombies   [][]func() shard.Event // ledger writes of each dead owner that may still come, in order
	fenced    bool                   // a manifest was there already
	adoptions int

	rare     bool // bases are due in an hour
	replayed int  // manifests behind the base at the last start
}

// promise: when the id is acknowledged, the blob must be landed up to the length.
type promise struct {
	blob   pipeline.BlobID
	length int64
}

const header = 12

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 11, 23, 6, 30, 0, 0, time.UTC), store: ledgertest.Memory{},
		blobs: map[pipeline.BlobID]int64{}, table: map[string][]pipeline.Unit{},
	}
	for i := range 1 + w.rng.IntN(6) {
		id := pipeline.BlobID{Account: "a", Container: "c", Path: fmt.Sprintf("x/y=2026/m=11/d=23/h=06/m=00/macAddress=%012X/PT1H.json", i)}
		w.ids = append(w.ids, id)
		w.blobs[id] = header
	}
	w.start()
	return w
}

func (w *world) config() shard.Config {
	c := shard.DefaultConfig()
	c.MaxBatchAge, c.MaxBatchBytes, c.MaxBatchRows = time.Second, 5000, 1<<40
	c.BaseEvery, c.BaseBatches, c.BaseBytes = 5*time.Second, 4, 20_000
	if w.rare {
		c.BaseEvery, c.BaseBatches, c.BaseBytes = time.Hour, 1<<40, 1<<40
	}
	c.Start = w.now.Add(-24 * time.Hour)
	c.Epoch = w.book.Epoch() << 20
	return c
}

func (w *world) start() {
	var err error
	w.book, err = ledger.Open(context.Background(), w.store, ledger.Info{Shards: 1}, func(context.Context, string, int) (uint16, error) { return 1, nil })
	if err != nil {
		w.t.Fatal(err)
	}
	found, err := w.book.Recover(context.Background(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.core, w.replayed = shard.New(w.config(), found), len(found.Manifests)
	w.work, w.writes, w.units = nil, nil, nil
	w.chunks, w.held = map[shard.JobID][]pipeline.Unit{}, map[uint64][]pipeline.Unit{}
	w.promised, w.acked = map[shard.AckID]promise{}, map[shard.AckID]bool{}
	w.step(shard.Tick{})
}

func (w *world) step(ev shard.Event) {
	queue := w.core.Step(w.now, ev)
	for len(queue) > 0 {
		a := queue[0]
		queue = queue[1:]
		if answer := w.do(a); answer != nil {
			queue = append(queue, w.core.Step(w.now, answer)...)
		}
	}
}

func (w *world) later(f func() shard.Event) { w.work = append(w.work, f) }

func (w *world) do(a shard.Action) shard.Event {
	switch a := a.(type) {
	case shard.Fetch:
		w.fetch(a)
	case shard.Seal:
		w.held[a.Seq], w.units = w.units, nil
		return shard.Sealed{Seq: a.Seq, Pieces: pieces(w.held[a.Seq])}
	case shard.Replay:
		w.held[a.Manifest.Seq] = a.Manifest.Units
		return shard.Replayed{Seq: a.Manifest.Seq}
	case shard.WriteManifest:
		book := w.book
		w.writes = append(w.writes, func() shard.Event {
			err := book.WriteManifest(context.Background(), a.Manifest)
			if w.fenced = errors.Is(err, ledger.ErrExists); err != nil && !w.fenced {
				w.t.Fatal(err)
			}
			return shard.ManifestWritten{Seq: a.Manifest.Seq}
		})
	case shard.WriteHead:
		book := w.book
		w.writes = append(w.writes, func() shard.Event {
			if err := book.WriteHead(context.Background(), 0, a.DoneSeq); err != nil {
				w.t.Fatal(err)
			}
			return shard.HeadWritten(a)
		})
	case shard.WriteBase:
		book := w.book
		w.writes = append(w.writes, func() shard.Event {
			if err := book.WriteBase(context.Background(), a.Base); err != nil {
				w.t.Fatal(err)
			}
			return shard.BaseWritten{Seq: a.Base.Seq}
		})
	case shard.Land:
		in := insert{epoch: a.Epoch, seq: a.Seq, piece: a.Piece, units: w.held[a.Seq]}
		w.later(func() shard.Event { return w.land(in) })
	case shard.SetFence:
		w.later(func() shard.Event { w.epoch = max(w.epoch, a.Epoch); return shard.FenceSet(a) })
	case shard.Probe:
		w.later(func() shard.Event { return w.probe(a) })
	case shard.Ack:
		for _, id := range a.IDs {
			w.ack(id)
		}
	case shard.Stop:
		if a.Err != nil {
			w.t.Fatal(a.Err)
		}
		w.stopped = true
	}
	return nil
}

// pieces: every batch with rows has one piece in two tables.
func pieces(units []pipeline.Unit) []pipeline.PieceRef {
	rows := int64(0)
	for _, u := range units {
		rows += u.Rows
	}
	if rows == 0 {
		return nil
	}
	return []pipeline.PieceRef{{Table: "flows", Rows: rows}, {Table: "windows", Rows: rows}}
}

// fetch cuts what is new of a blob into one to three units; the read may fail
// behind any of them.
func (w *world) fetch(a shard.Fetch) {
	id := a.Position.Blob
	from := max(a.Position.End, header)
	to := w.blobs[id]
	var units []pipeline.Unit
	for from < to && len(units) < 3 {
		end := to
		if len(units) < 2 && w.rng.IntN(3) == 0 {
			end = from + 1 + w.rng.Int64N(to-from)
		}
		units = append(units, pipeline.Unit{Blob: id, Generation: a.Position.Generation, Offset: from, Length: end - from, Rows: end - from, MaxTime: w.now.UnixMilli()})
		from = end
	}
	var err error
	if w.rng.IntN(8) == 0 {
		units, err = units[:w.rng.IntN(len(units)+1)], pipeline.ErrTransient
	}
	w.chunks[a.Job] = units
	w.later(func() shard.Event { return w.chunk(a.Job, err) })
}

func (w *world) chunk(job shard.JobID, err error) shard.Event {
	units := w.chunks[job]
	if len(units) == 0 {
		delete(w.chunks, job)
		return shard.FetchDone{Job: job, Outcome: shard.Read, Err: err}
	}
	w.later(func() shard.Event { return w.chunk(job, err) })
	if !w.core.Accepts(units[0].Length) {
		return shard.Tick{}
	}
	w.chunks[job] = units[1:]
	w.step(shard.ChunkArrived{Bytes: units[0].Length})
	w.units = append(w.units, units[0])
	return shard.Decoded{Job: job, Unit: units[0]}
}

// land answers truthfully, or loses the answer before or after the insert, or
// lets the insert arrive much later.
func (w *world) land(in insert) shard.Event {
	answer := func(err error) shard.Event {
		return shard.PieceLanded{Seq: in.seq, Piece: in.piece, Epoch: in.epoch, Err: err}
	}
	switch w.rng.IntN(12) {
	case 0:
		return answer(pipeline.ErrTransient)
	case 1:
		w.doubts++
		return answer(pipeline.ErrInDoubt)
	case 2:
		w.doubts++
		w.late = append(w.late, in)
		return answer(pipeline.ErrInDoubt)
	case 3:
		w.doubts++
		if w.insert(in) == nil {
			return answer(pipeline.ErrInDoubt)
		}
	}
	return answer(w.insert(in))
}

// insert is the target: a fenced epoch is refused, everything else lands, also a
// second time.
func (w *world) insert(in insert) error {
	if in.epoch < w.epoch {
		return pipeline.ErrFenced
	}
	key := fmt.Sprintf("%d/%d", in.seq, in.piece)
	w.table[key] = append(w.table[key], in.units...)
	return nil
}

func (w *world) probe(a shard.Probe) shard.Event {
	rows := make([]int64, len(a.Pieces))
	for i := range rows {
		for _, u := range w.table[fmt.Sprintf("%d/%d", a.Seq, i)] {
			rows[i] += u.Rows
		}
	}
	return shard.Probed{Seq: a.Seq, Rows: rows}
}

func (w *world) ack(id shard.AckID) {
	p, ok := w.promised[id]
	if !ok || w.acked[id] {
		w.t.Fatalf("acknowledgement %d twice or never asked for", id)
	}
	w.acked[id] = true
	if got := w.landedUpTo(p.blob); got < p.length {
		w.t.Fatalf("acknowledged %q up to %d, landed %d", p.blob, p.length, got)
	}
}

func (w *world) landedUpTo(id pipeline.BlobID) int64 {
	var units []pipeline.Unit
	for key, us := range w.table {
		if strings.HasSuffix(key, "/0") {
			for _, u := range us {
				if u.Blob == id {
					units = append(units, u)
				}
			}
		}
	}
	sort.Slice(units, func(i, j int) bool { return units[i].Offset < units[j].Offset })
	at := int64(header)
	for _, u := range units {
		if u.Offset != at {
			break
		}
		at = u.End()
	}
	return at
}

// act lets one thing happen.
func (w *world) act() {
	w.now = w.now.Add(time.Duration(w.rng.IntN(60)) * time.Millisecond)
	switch n := w.rng.IntN(20); {
	case n < 3:
		id := w.ids[w.rng.IntN(len(w.ids))]
		w.blobs[id] += 1 + w.rng.Int64N(2000)
		if w.rng.IntN(5) > 0 {
			w.announce(id)
		}
	case n == 3:
		w.step(shard.Tick{})
	case n == 4 && len(w.late) > 0:
		in := w.late[0]
		w.late = w.late[1:]
		_ = w.insert(in) // nobody hears the answer
	case n == 5 && w.rng.IntN(4) == 0:
		w.kill()
	case n == 6 && len(w.zombies) > 0:
		w.zombie(w.rng.IntN(len(w.zombies)))
	case n < 10 && len(w.writes) > 0:
		w.write()
	case len(w.work) > 0:
		i := w.rng.IntN(len(w.work))
		f := w.work[i]
		w.work = append(w.work[:i], w.work[i+1:]...)
		w.step(f())
	}
}

func (w *world) announce(id pipeline.BlobID) {
	w.nextAck++
	w.promised[w.nextAck] = promise{blob: id, length: w.blobs[id]}
	length := w.blobs[id] + 2
	if w.rng.IntN(6) == 0 {
		length = -1
	}
	w.step(shard.Announced{Announcement: pipeline.Announcement{Blob: id, ContentLength: length}, Ack: w.nextAck})
}

// write lets the owner's next ledger write happen. A manifest that is there already
// came from an owner before it: the engine ends, and the owner recovers again under
// another epoch, which adopts it.
func (w *world) write() {
	f := w.writes[0]
	w.writes = w.writes[1:]
	ev := f()
	if w.fenced {
		w.fenced = false
		w.adoptions++
		w.start()
		return
	}
	w.step(ev)
}

// zombie lets the next ledger write of a dead owner happen, who ends when he hears
// that he is none any more.
func (w *world) zombie(i int) {
	z := w.zombies[i]
	z[0]()
	if w.fenced || len(z) == 1 {
		w.zombies = append(w.zombies[:i], w.zombies[i+1:]...)
	} else {
		w.zombies[i] = z[1:]
	}
	w.fenced = false
}

// kill ends the process at any point, or freezes it: some ledger writes and inserts
// under way still happen, some do not, some happen after the next start.
func (w *world) kill() {
	w.kills++
	rest := w.writes
	for len(rest) > 0 && w.rng.IntN(2) == 0 {
		rest[0]()
		rest = rest[1:]
	}
	if len(rest) > 0 && w.rng.IntN(2) == 0 {
		w.zombies = append(w.zombies, rest)
	}
	for _, f := range w.work {
		if w.rng.IntN(2) == 0 {
			w.during(f)
		}
	}
	w.start()
}

// during runs an answer of the dead process for its effect on the world alone.
func (w *world) during(f func() shard.Event) {
	core := w.core
	w.core = shard.New(w.config(), ledger.State{})
	chunks, units := w.chunks, w.units
	w.chunks = map[shard.JobID][]pipeline.Unit{}
	f()
	w.core, w.chunks, w.units = core, chunks, units
}

// drain asks the core to finish everything.
func (w *world) drain() {
	for _, id := range w.ids {
		w.announce(id) // the sweeper finds everything
	}
	w.step(shard.Drain{EndOfInput: true})
}

func (w *world) settle() {
	for len(w.zombies) > 0 {
		w.zombie(0)
	}
	w.drain()
	for i := 0; !w.stopped; i++ {
		if i > 20_000 {
			w.t.Fatalf("does not end: %+v", w.core.Status())
		}
		if adopted := w.adoptions; w.pass() > adopted {
			w.drain()
		}
	}
	for _, in := range w.late {
		_ = w.insert(in)
	}
}

// pass lets 50 ms go by, in which everything happens in its order. It gives the
// adoptions so far.
func (w *world) pass() int {
	w.now = w.now.Add(50 * time.Millisecond)
	w.step(shard.Tick{})
	if len(w.writes) > 0 {
		w.write()
	}
	if len(w.work) > 0 {
		f := w.work[0]
		w.work = w.work[1:]
		w.step(f())
	}
	return w.adoptions
}

// check: in both tables each byte of each blob is there exactly once.
func (w *world) check() {
	for piece := range 2 {
		count := map[pipeline.BlobID]int64{}
		for key, us := range w.table {
			if !strings.HasSuffix(key, fmt.Sprintf("/%d", piece)) {
				continue
			}
			for _, u := range us {
				count[u.Blob] += u.Length
			}
		}
		for _, id := range w.ids {
			if want := w.blobs[id] - header; count[id] != want {
				w.t.Errorf("piece %d of %q: %d bytes landed, want %d", piece, id, count[id], want)
			}
			if piece == 0 && w.landedUpTo(id) != w.blobs[id] {
				w.t.Errorf("%q is landed without a gap up to %d of %d", id, w.landedUpTo(id), w.blobs[id])
			}
		}
	}
	for id := range w.promised {
		if !w.acked[id] {
			w.t.Errorf("promise %d was never acknowledged", id)
		}
	}
}

// Law: whatever is killed, lost, delayed or refused, at the end each byte of each
// blob has landed exactly once, and nothing was acknowledged before it had.
func TestExactlyOnceUnderCrashes(t *testing.T) {
	seeds := 400
	if testing.Short() {
		seeds = 50
	}
	kills, doubts, adoptions := 0, 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed))
			for range 1500 {
				w.act()
			}
			w.settle()
			w.check()
			kills += w.kills
			doubts += w.doubts
			adoptions += w.adoptions
		})
	}
	if kills < seeds || doubts < seeds || adoptions < seeds/10 {
		t.Errorf("only %d kills, %d landings in doubt and %d late manifests adopted in %d seeds: the test proves little", kills, doubts, adoptions, seeds)
	}
	t.Logf("%d seeds, %d kills, %d landings in doubt, %d late manifests adopted", seeds, kills, doubts, adoptions)
}

// A shard that is killed every few seconds, long before a base is due, replays what
// came in one life, not in all of them: each restart would take longer than the one
// before.
func TestRestartsStayShort(t *testing.T) {
	w := newWorld(t, 3)
	w.rare = true
	w.start()
	most := 0
	for life := range 30 {
		for range 80 { // 4 s
			id := w.ids[w.rng.IntN(len(w.ids))]
			w.blobs[id] += 500
			w.announce(id)
			w.pass()
		}
		w.start()
		most = max(most, w.replayed)
		if life == 0 && w.replayed < 3 {
			t.Fatalf("%d batches in one life: the test proves little", w.replayed)
		}
	}
	if most > 15 {
		t.Errorf("a start had to replay %d batches", most)
	}
	w.settle()
	w.check()
}

// The same events at the same times give the same actions.
func TestStepIsDeterministic(t *testing.T) {
	run := func() string {
		w := newWorld(t, 7)
		for range 800 {
			w.act()
		}
		return fmt.Sprintf("%+v %v", w.core.Status(), len(w.table))
	}
	if a, b := run(), run(); a != b {
		t.Errorf("two runs of one seed differ:\n%s\n%s", a, b)
	}
}
