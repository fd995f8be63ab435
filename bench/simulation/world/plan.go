package world

import (
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/shard"
)

// Plan is what a seed draws before anything happens: how the pipeline is configured,
// and which kinds of faults there are, how often.
type Plan struct {
	Length time.Duration // that the generator writes
	Quiet  time.Duration // without input, behind that: late events arrive

	NICs       int
	Every      time.Duration // between two records of a blob
	Tuples     int           // of a record, at most
	Partitions int           // of the hub
	Shards     int
	Instances  int           // that share a ledger; 0: one, with a folder
	Expiry     time.Duration // of an owner
	Core       shard.Config
	Chunk      int64 // bytes of a read
	Tries      int   // of a request for a blob
	Tick       time.Duration
	Sweep      time.Duration // between two passes of the sweeper
	Checkpoint time.Duration
	Windows    []window.Config
	Topic      bool // flows land in Kafka, too
	Bumps      bool // ... which has KIP-890

	// Rates are chances: of one event, read, insert, call ...
	Rates [kinds]float64
	// Gaps are the mean times between faults that come by themselves; 0: never.
	Gaps [kinds]time.Duration
}

// rates are the highest chances of the kinds that happen to something.
var rates = map[Kind]float64{
	EventLost: 0.5, EventDoubled: 0.4, EventReordered: 0.4, EventLate: 0.1, CheckpointFailed: 0.5,
	BlobMissing: 0.05, BlobThrottled: 0.4, BlobCut: 0.5, BlobGrewInRead: 0.3, ListingFailed: 0.3,
	InsertRefused: 0.3, InsertUnsent: 0.2, InsertUnanswered: 0.2, InsertLate: 0.2, InsertKilled: 0.05, InsertSlow: 0.2,
	QuestionFailed: 0.4, TupleMalformed: 0.1, DiskError: 0.002,
	StoreFailed: 0.03, StoreUnanswered: 0.03, TopicFailed: 0.2, TopicUnanswered: 0.2, TopicLateEnd: 0.3, TopicExpired: 0.1,
}

// gaps are the shortest mean times between faults that come by themselves.
var gaps = map[Kind]time.Duration{
	HubRedelivered: 4 * time.Minute, HubExpired: 10 * time.Minute, BlobReplaced: 20 * time.Minute, BlobAway: 15 * time.Minute,
	ServerKilled: 5 * time.Minute, ServerAway: 10 * time.Minute, DropOfNothing: 10 * time.Minute,
	ProcessKilled: 3 * time.Minute, ProcessKilledInside: 2 * time.Minute, ProcessFrozen: 5 * time.Minute, ProcessStopped: 10 * time.Minute,
	PowerLost: 10 * time.Minute, DiskFull: 15 * time.Minute, FileFlipped: 20 * time.Minute, FileCut: 20 * time.Minute,
	ClockJumped: 15 * time.Minute, ClockDrifted: 15 * time.Minute, MemoryShort: 5 * time.Minute,
	TopicShutOut: 5 * time.Minute,
}

// draw makes the plan of a seed.
func draw(rng *rand.Rand) Plan {
	p := Plan{
		Length: time.Hour + between(rng, 0, 20*time.Minute),
		NICs:   1 + rng.IntN(4), Every: between(rng, 20*time.Second, 90*time.Second), Tuples: 1 + rng.IntN(6),
		Partitions: 1 + rng.IntN(3), Shards: 1 + rng.IntN(3),
		Chunk: 600 + rng.Int64N(8000), Tries: 1 + rng.IntN(3),
		Tick: between(rng, 100*time.Millisecond, time.Second), Sweep: between(rng, time.Minute, 10*time.Minute),
		Checkpoint: between(rng, 5*time.Second, time.Minute),
	}
	if rng.IntN(4) == 0 {
		p.Quiet = between(rng, 0, 24*time.Hour)
	}
	if rng.IntN(5) < 2 {
		p.Instances, p.Expiry = 1+rng.IntN(3), between(rng, ledger.MinExpiry, 40*time.Second).Truncate(time.Millisecond)
		p.Quiet = min(p.Quiet, time.Hour)
	}
	p.Topic, p.Bumps = rng.IntN(3) == 0, rng.IntN(2) == 0
	p.core(rng)
	p.windows(rng)
	p.faults(rng)
	return p
}

func (p *Plan) core(rng *rand.Rand) {
	c := shard.DefaultConfig()
	c.MaxBatchAge = between(rng, time.Second, 10*time.Second)
	c.MaxBatchBytes = 1000 + rng.Int64N(32_000)
	c.MaxBatchRows = 10 + rng.Int64N(1000)
	c.MaxInFlight, c.MaxFetches = 1+rng.IntN(4), 1+rng.IntN(4)
	c.OutOfOrderness = between(rng, 0, 30*time.Second).Truncate(time.Millisecond)
	c.IdleAfter = between(rng, 30*time.Second, 5*time.Minute)
	c.BaseEvery = between(rng, 5*time.Second, 3*time.Minute)
	c.BaseBatches = 1 + rng.Uint64N(64)
	c.BaseBytes = 1000 + rng.Int64N(64_000)
	p.Core = c
}

// windows draws up to two tables.
func (p *Plan) windows(rng *rand.Rand) {
	columns := []string{"mac", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "action"}
	for i := range rng.IntN(3) {
		rng.Shuffle(len(columns), func(i, j int) { columns[i], columns[j] = columns[j], columns[i] })
		sizes := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}
		w := window.Config{
			Name: string(rune('a' + i)), Size: sizes[rng.IntN(3)], Sums: []string{"packets_sent", "bytes_sent"},
			GroupBy: append([]string(nil), columns[:rng.IntN(3)]...),
		}
		if rng.IntN(2) == 0 {
			w.Lateness = time.Duration(rng.IntN(120)) * time.Second
		}
		p.Windows = append(p.Windows, w)
	}
}

// faults draws a subset of the kinds, and how often each happens. One seed in twenty
// has none at all.
func (p *Plan) faults(rng *rand.Rand) {
	if rng.IntN(20) == 0 {
		return
	}
	share := rng.Float64() // of the kinds
	for _, k := range Kinds() {
		on, much := rng.Float64() < share, rng.Float64()
		if !on {
			continue
		}
		p.Rates[k] = rates[k] * much * much
		if gap := gaps[k]; gap > 0 {
			p.Gaps[k] = time.Duration(float64(gap) / max(much, 0.1))
		}
	}
}
