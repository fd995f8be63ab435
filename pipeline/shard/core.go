// Package shard is the core of the pipeline: for one shard it decides what is
// read, when a batch closes, in which order intent, landing, done and
// acknowledgement follow each other, and what happens after a crash.
//
// The core is a state machine without goroutines, clock or I/O: Step takes the
// time and one event and gives actions. Whoever carries them out answers with
// further events. The same events at the same times give the same actions, so a
// seeded simulation can drive it through any crash.
//
// The rows themselves never pass through: the engine holds them under the
// sequence number of their batch.
package shard

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/mutant"
)

// Config of a core. Times are durations, sizes are bytes of blob text.
type Config struct {
	Ledger uint16
	Shard  int
	Epoch  uint64    // of this owner; the core raises it when a landing is in doubt
	Start  time.Time // blobs of hours before this one are ignored

	MaxBatchAge   time.Duration // a batch closes after this time
	MaxBatchBytes int64         // ... or this much input
	MaxBatchRows  int64         // ... or this many rows
	MaxInFlight   int           // batches between intent and done
	MaxFetches    int           // reads at one time

	OutOfOrderness time.Duration // how far behind the highest event time rows are still expected
	IdleAfter      time.Duration // a stream not announced for so long is not waited for
	MaxAhead       time.Duration // event times further ahead of the clock do not move the watermark
	// MaxHourAhead: blobs of hours further ahead of the clock are ignored; 0: none is.
	// More than a day, as what is ignored is acknowledged: a machine whose clock or
	// zone is wrong by hours must not let go of what is true.
	MaxHourAhead time.Duration

	BaseEvery   time.Duration // a base is written after this time
	BaseBatches uint64        // ... or this many batches
	BaseBytes   int64         // ... or this much input: what a restart reads again at most
	KeepOffsets time.Duration // positions are kept so long behind their blob's hour
	// Once says that no blob is announced again once it has landed: its position is
	// kept no longer than that.
	Once     bool
	RetryMin time.Duration // first wait after a transient error, doubled each time
	RetryMax time.Duration
	// StallAfter without anything landing, while something should, no more is read: the
	// target is away, and whatever is read would only lie in memory.
	StallAfter time.Duration
}

// DefaultConfig gives the defaults of the design.
func DefaultConfig() Config {
	return Config{
		MaxBatchAge: 5 * time.Second, MaxBatchBytes: 64 << 20, MaxBatchRows: 400_000,
		MaxInFlight: 2, MaxFetches: 4,
		OutOfOrderness: 10 * time.Second, IdleAfter: 3 * time.Minute, MaxAhead: 5 * time.Minute, MaxHourAhead: 48 * time.Hour,
		BaseEvery: time.Minute, BaseBatches: 256, BaseBytes: 16 << 20, KeepOffsets: 50 * time.Hour,
		RetryMin: 100 * time.Millisecond, RetryMax: 5 * time.Second, StallAfter: 30 * time.Second,
	}
}

// Core is the state of one shard. One goroutine at a time steps it.
type Core struct {
	cfg Config
	now time.Time
	out []Action

	blobs   map[pipeline.BlobID]*blobState
	ready   []*blobState // wait for a read, in order
	waiting []*blobState // wait for time to pass
	fetches map[JobID]*fetch
	nextJob JobID
	streams map[string]*streamState

	open      openBatch
	batches   []*batch // sealed, in order, until done is durable
	nextSeq   uint64
	sealing   bool
	watermark pipeline.Watermark
	lastSeal  time.Time

	epoch       uint64
	landing     int       // Land actions that were not answered
	landedAt    time.Time // when a piece was last known to be durable
	doubt       bool      // some landing is in doubt: fence, probe, then go on
	fencing     bool
	doneSeq     uint64 // landed without a gap
	durable     uint64 // ... and the ledger says so
	heading     bool   // a WriteHead was not answered
	baseSeq     uint64 // of the newest base
	baseTime    time.Time
	sealedBytes int64 // input of the batches sealed since the newest base was taken
	basing      bool

	live     bool
	draining bool
	eoi      bool // end of input: the last batch closes every window
	eoiSeal  bool // that batch was sealed
	stopped  bool
}

type openBatch struct {
	units  []pipeline.Unit
	bytes  int64
	rows   int64
	since  time.Time
	acks   []AckID
	urgent bool // memory is short
}

type batchState int

const (
	closed    batchState = iota // sealed; the manifest waits for the one before it
	intending                   // the manifest is being written
	intended                    // the manifest is durable
	landed                      // every piece is durable
)

type batch struct {
	manifest pipeline.Manifest
	state    batchState
	replayed bool
	pieces   []pieceState
	acks     []AckID
	base     *ledger.Base // to be written once this batch is done
}

type pieceState struct {
	landed   bool
	flying   bool
	probing  bool
	attempts int
	retryAt  time.Time
}

// New makes the core of a shard from what recovery found. Step it with Tick to
// start.
func New(cfg Config, found ledger.State) *Core {
	c := &Core{
		cfg: cfg, epoch: cfg.Epoch,
		blobs: map[pipeline.BlobID]*blobState{}, fetches: map[JobID]*fetch{}, streams: map[string]*streamState{},
		nextSeq: found.NextSeq(), watermark: found.Base.Watermark,
		doneSeq: found.DoneSeq, durable: found.DoneSeq, baseSeq: found.Base.Seq,
		// An INSERT of the owner before us may still arrive.
		doubt: !mutant.On(mutant.StartTrusts),
	}
	for _, p := range found.Base.Positions {
		c.blobs[p.Blob] = &blobState{id: p.Blob, position: p}
	}
	for _, s := range found.Base.Streams {
		c.streams[s.Stream] = &streamState{maxTime: s.MaxTime}
	}
	for _, m := range found.Manifests {
		for _, u := range m.Units {
			if !m.Warm && !mutant.On(mutant.UnitTwice) {
				c.advance(u, m.Seq, time.UnixMilli(m.Created))
			}
			c.sealedBytes += u.Length // replayed again at the next start, unless a base comes first
		}
		if !mutant.On(mutant.WatermarkForgotten) {
			c.watermark = max(c.watermark, m.Watermark)
		}
		b := &batch{manifest: m, state: intended, pieces: make([]pieceState, len(m.Pieces))}
		if m.Seq <= found.DoneSeq {
			b.state = landed
		}
		c.batches = append(c.batches, b)
	}
	return c
}

// Step takes one event at a time and gives what is to be done, in order. The
// slice is the caller's.
func (c *Core) Step(now time.Time, ev Event) []Action {
	if c.stopped {
		return nil
	}
	c.begin(now)
	switch e := ev.(type) {
	case Announced:
		c.announced(e)
	case ChunkArrived:
		if !c.fits(e.Bytes) {
			c.seal()
		}
	case Decoded:
		c.decoded(e)
	case FetchDone:
		c.fetchDone(e)
	case Sealed:
		c.sealed(e)
	case Replayed:
		c.replayed(e)
	case ManifestWritten:
		c.manifestWritten(e)
	case PieceLanded:
		c.pieceLanded(e)
	case FenceSet:
		c.fenceSet(e)
	case Probed:
		c.probed(e)
	case HeadWritten:
		c.heading = false
		c.setDurable(e.DoneSeq)
	case BaseWritten:
		c.basing = false
		c.baseSeq = e.Seq
		c.setDurable(e.Seq)
	case Tune:
		c.cfg.MaxBatchAge, c.cfg.OutOfOrderness = e.MaxBatchAge, e.OutOfOrderness
	case Pressure:
		c.open.urgent = len(c.open.units) > 0
	case Drain:
		c.draining, c.eoi = true, c.eoi || e.EndOfInput
	case Failed:
		c.fail(e.Err)
	case Tick:
	}
	c.proceed()
	out := c.out
	c.out = nil
	return out
}

func (c *Core) begin(now time.Time) {
	// A clock that steps back must not reorder what was decided.
	if now.After(c.now) {
		c.now = now
	}
	if c.baseTime.IsZero() {
		c.baseTime, c.lastSeal = now, now
		for _, s := range c.streams {
			s.announced = now
		}
	}
}

func (c *Core) do(a Action) { c.out = append(c.out, a) }

func (c *Core) fail(err error) {
	if c.stopped {
		return
	}
	c.stopped = true
	c.do(Stop{Err: fmt.Errorf("shard %d: %w", c.cfg.Shard, err)})
}

// proceed starts whatever has become possible.
func (c *Core) proceed() {
	if c.stopped {
		return
	}
	c.proceedReplay()
	c.proceedDoubt()
	c.proceedLanding()
	if c.live {
		c.wake()
		c.startFetches()
		if c.due() {
			c.seal()
		}
	}
	c.proceedLedger()
	c.proceedDrain()
}

// Accepts says whether a chunk of so many bytes may be decoded now. When not, the
// chunk waits; an answer that changes this is under way.
func (c *Core) Accepts(bytes int64) bool {
	return !c.sealing && c.live && !c.stalled() && (c.fits(bytes) || c.unlanded() < c.cfg.MaxInFlight)
}

// stalled says that the target has been away for some time.
func (c *Core) stalled() bool {
	for _, b := range c.batches {
		if b.state != landed {
			oldest := time.UnixMilli(b.manifest.Created)
			return c.now.Sub(oldest) > c.cfg.StallAfter && c.now.Sub(c.landedAt) > c.cfg.StallAfter
		}
	}
	return false
}

// minTuple is fewer bytes than any tuple has, to bound the rows of a chunk.
const minTuple = 48

func (c *Core) fits(bytes int64) bool {
	if len(c.open.units) == 0 {
		return true
	}
	return c.open.bytes+bytes <= c.cfg.MaxBatchBytes && c.open.rows+bytes/minTuple <= c.cfg.MaxBatchRows
}

func (c *Core) unlanded() int {
	n := 0
	for _, b := range c.batches {
		if b.state != landed {
			n++
		}
	}
	return n
}

// due says whether the open batch closes now.
func (c *Core) due() bool {
	if c.sealing {
		return false
	}
	if len(c.open.units) == 0 {
		// Without rows only the watermark moves: streams fell idle.
		return c.now.Sub(c.lastSeal) >= 5*c.cfg.MaxBatchAge && c.nextWatermark() > c.watermark && c.unlanded() == 0
	}
	return c.open.urgent || c.draining && c.quiet() || c.now.Sub(c.open.since) >= c.cfg.MaxBatchAge
}

// quiet says that no blob is being read or waits for it.
func (c *Core) quiet() bool {
	return len(c.ready) == 0 && len(c.waiting) == 0 && len(c.fetches) == 0
}

func (c *Core) seal() {
	if c.sealing || c.unlanded() >= c.cfg.MaxInFlight {
		return
	}
	c.sealing = true
	c.lastSeal = c.now
	c.watermark = c.nextWatermark()
	last := c.draining && c.quiet()
	if last && c.eoi {
		c.watermark, c.eoiSeal = pipeline.EndOfInput, true
	}
	b := &batch{acks: c.open.acks}
	if mutant.On(mutant.AckAtSeal) {
		c.do(Ack{IDs: c.open.acks})
		b.acks = nil
	}
	b.manifest = pipeline.Manifest{
		Batch: pipeline.NewBatchID(c.cfg.Ledger, c.cfg.Shard, c.nextSeq), Ledger: c.cfg.Ledger, Shard: c.cfg.Shard, Seq: c.nextSeq,
		Epoch: c.epoch, Created: c.now.UnixMilli(), Watermark: c.watermark, Idle: c.idleStreams(), Units: c.open.units,
	}
	c.sealedBytes += c.open.bytes
	if last || c.now.Sub(c.baseTime) >= c.cfg.BaseEvery || c.nextSeq-c.baseSeq >= c.cfg.BaseBatches || c.sealedBytes >= c.cfg.BaseBytes {
		b.base = c.snapshot(c.nextSeq)
		c.baseTime, c.sealedBytes = c.now, 0
	}
	c.batches = append(c.batches, b)
	c.nextSeq++
	c.open = openBatch{}
	c.do(Seal{Seq: b.manifest.Seq, Watermark: c.watermark, Snapshot: b.base != nil})
}

func (c *Core) sealed(e Sealed) {
	b := c.batch(e.Seq)
	if b == nil || !c.sealing {
		panic(fmt.Sprintf("BUG: batch %d sealed out of order", e.Seq))
	}
	c.sealing = false
	b.manifest.Pieces, b.manifest.Sinks, b.manifest.Transforms = e.Pieces, e.Sinks, e.Transforms
	for i, n := range e.Filtered {
		b.manifest.Units[i].Rows -= n
		b.manifest.Units[i].Filtered = n
	}
	b.pieces = make([]pieceState, len(e.Pieces))
	b.replayed = true
}

func (c *Core) batch(seq uint64) *batch {
	for _, b := range c.batches {
		if b.manifest.Seq == seq {
			return b
		}
	}
	return nil
}

func (c *Core) manifestWritten(e ManifestWritten) {
	b := c.batch(e.Seq)
	b.state = intended
	c.setDurable(b.manifest.DoneSeq)
}

// ErrImpossible: the target holds what no crash can explain. Nothing more is
// landed.
var ErrImpossible = errors.New("impossible row count")
