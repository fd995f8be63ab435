package shard

import (
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// AckID names a delivery's wait for one shard; 0 means that nobody waits.
type AckID uint64

// JobID names one read of a blob.
type JobID uint64

// Event is what happened outside the core.
type Event interface{ event() }

// Events.
type (
	// Announced: a blob may have grown.
	Announced struct {
		Announcement pipeline.Announcement
		Ack          AckID
	}
	// ChunkArrived comes before a chunk is decoded, so that a full batch is sealed first.
	ChunkArrived struct{ Bytes int64 }
	// Decoded: the chunk's rows are in the open batch.
	Decoded struct {
		Job  JobID
		Unit pipeline.Unit
	}
	// FetchDone ends a read. Err is nil or of class pipeline.ErrTransient; an error
	// of no class is fatal for the blob and reported.
	FetchDone struct {
		Job     JobID
		Outcome Outcome
		Err     error
		// Again: the read stopped short of the blob's end.
		Again bool
	}
	// Sealed answers Seal: the batch's pieces are computed and held by the engine.
	Sealed struct {
		Seq    uint64
		Pieces []pipeline.PieceRef
		Sinks  []string // as the manifest records them
		// Transforms are those that the rows went through; Filtered counts, by unit, the
		// rows that they left out, nil when that is none.
		Transforms []pipeline.TransformRef
		Filtered   []int64
	}
	// Replayed answers Replay.
	Replayed struct{ Seq uint64 }
	// ManifestWritten answers WriteManifest: the intent is durable.
	ManifestWritten struct{ Seq uint64 }
	// PieceLanded answers Land for one piece. Err is nil or of class
	// pipeline.ErrTransient, ErrInDoubt or ErrFenced; any other is fatal.
	PieceLanded struct {
		Seq   uint64
		Piece int
		Epoch uint64
		Err   error
	}
	// FenceSet answers SetFence: no INSERT of an older epoch can happen any more.
	FenceSet struct{ Epoch uint64 }
	// Probed answers Probe: the rows found for each piece of the batch.
	Probed struct {
		Seq  uint64
		Rows []int64
	}
	// HeadWritten answers WriteHead.
	HeadWritten struct{ DoneSeq uint64 }
	// BaseWritten answers WriteBase.
	BaseWritten struct{ Seq uint64 }
	// Tick: time passed.
	Tick struct{}
	// Pressure: a read waits for memory that sealed batches would free.
	Pressure struct{}
	// Tune changes what may change while a shard runs: neither is part of what replay
	// repeats, since a manifest records its units and its watermark.
	Tune struct{ MaxBatchAge, OutOfOrderness time.Duration }
	// Drain: no announcement follows; finish what is there. EndOfInput closes every
	// window too.
	Drain struct{ EndOfInput bool }
	// Failed: an action can never succeed. The shard stops.
	Failed struct{ Err error }
)

func (Announced) event()       {}
func (ChunkArrived) event()    {}
func (Decoded) event()         {}
func (FetchDone) event()       {}
func (Sealed) event()          {}
func (Replayed) event()        {}
func (ManifestWritten) event() {}
func (PieceLanded) event()     {}
func (FenceSet) event()        {}
func (Probed) event()          {}
func (HeadWritten) event()     {}
func (BaseWritten) event()     {}
func (Tick) event()            {}
func (Pressure) event()        {}
func (Tune) event()            {}
func (Drain) event()           {}
func (Failed) event()          {}

// Outcome of a read that had no error.
type Outcome int

// Outcomes.
const (
	NothingNew Outcome = iota // the blob ends where it was read to
	Read                      // chunks were delivered
	Gone                      // the blob does not exist any more
	Rewritten                 // the bytes before the position differ
)

// Action is what the core wants done. The engine carries actions out in order
// and answers as each says.
type Action interface{ action() }

// Actions.
type (
	// Fetch reads a blob from the position on; chunks come as ChunkArrived and
	// Decoded, the end as FetchDone.
	Fetch struct {
		Job           JobID
		Position      ledger.Position
		ContentLength int64 // announced; -1 unknown
	}
	// Seal closes the open batch: run the operators, make the pieces, answer Sealed
	// before any other event. With Snapshot the operators' state is kept for a base.
	Seal struct {
		Seq       uint64
		Watermark pipeline.Watermark
		Snapshot  bool
	}
	// WriteManifest makes the intent durable.
	WriteManifest struct{ Manifest pipeline.Manifest }
	// Land inserts one piece of a batch.
	Land struct {
		Seq   uint64
		Piece int
		Epoch uint64
	}
	// SetFence shuts out every INSERT of an epoch before this one.
	SetFence struct{ Epoch uint64 }
	// Probe counts what is there of a batch.
	Probe struct {
		Seq    uint64
		Pieces []pipeline.PieceRef
	}
	// Replay reads the units of a manifest again, decodes them and runs the
	// operators, exactly as it was done live. Muted batches have landed: their pieces
	// are dropped. The others are kept for Land.
	Replay struct {
		Manifest pipeline.Manifest
		Muted    bool
	}
	// WriteHead makes it durable that every batch up to DoneSeq has landed.
	WriteHead struct{ DoneSeq uint64 }
	// WriteBase makes the state after a batch durable, with the operators' snapshots
	// taken at its Seal, or now when no batch was sealed since.
	WriteBase struct{ Base ledger.Base }
	// Ack tells the sources that everything behind the deliveries is durable.
	Ack struct{ IDs []AckID }
	// Release lets go of a landed batch's pieces and memory.
	Release struct{ Seq uint64 }
	// Ignore counts an announcement that is not acted on.
	Ignore struct {
		Blob   pipeline.BlobID
		Reason string
	}
	// Report tells people of something that they should know.
	Report struct {
		Blob pipeline.BlobID
		Kind string // "rewritten", "gone", "unreadable"
		Err  error
	}
	// Live: recovery is over.
	Live struct{}
	// Stop ends the shard: drained (Err nil) or failed.
	Stop struct{ Err error }
)

func (Fetch) action()         {}
func (Seal) action()          {}
func (WriteManifest) action() {}
func (Land) action()          {}
func (SetFence) action()      {}
func (Probe) action()         {}
func (Replay) action()        {}
func (WriteHead) action()     {}
func (WriteBase) action()     {}
func (Ack) action()           {}
func (Release) action()       {}
func (Ignore) action()        {}
func (Report) action()        {}
func (Live) action()          {}
func (Stop) action()          {}
