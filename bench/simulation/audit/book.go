// Package audit judges what one run of the simulation left: it compares the rows that
// landed with the tuples that were written, counts every window again from the tuples,
// and checks what the ledger's batches and the acknowledgements promise.
//
// A Book flows in, plain data; a Verdict flows out. The package imports nothing but
// the standard library: a mistake that it shared with the core would cancel out.
package audit

// Tuple is one flow tuple that the generator wrote: the ground truth.
//
// Its address is (Blob, Generation, Offset, Ordinal); its number is unique over the
// run and stands in its counters too, so that an altered row is found by either.
type Tuple struct {
	Number uint64
	Blob   string // account/container/path
	// Generation counts the contents that the blob had: 0, then 1 after it was rewritten
	// or deleted and made again, and so on. The pipeline's own numbers may be lower, for
	// it need not see every content; they rise with these.
	Generation int
	Offset     int64 // of its record in the blob, bytes
	Ordinal    int   // place in its record

	TimeMS           int64 // UTC
	MAC, Src, Dst    string
	SrcPort, DstPort int
	Protocol         int
	Allowed          bool
	Packets, Bytes   uint64

	Reason string // why it belongs into quarantine; "" for a good one
	// Gone: its blob was deleted or rewritten before it had to be read. It may be
	// missing; it must not be altered or doubled.
	Gone bool
}

// Row is one row as a reader of the target finds it: what it says of its tuple, and
// the batch that landed it. Reason and Gone are those of tuples alone.
type Row struct {
	Tuple
	BatchID uint64
}

// Rejected is one entry of the quarantine.
type Rejected struct {
	Blob       string
	Generation int
	Offset     int64
	Ordinal    int
	Reason     string
	BatchID    uint64
}

// WindowRow is one row of a table of windows, as it was written.
type WindowRow struct {
	Table                string
	StartMS              int64
	Key                  []string // values of the columns of Window.GroupBy, in order
	Rows, Packets, Bytes uint64
	Late                 bool // a correction row
	BatchID              uint64
}

// Window defines a table of tumbling windows.
type Window struct {
	Table      string
	SizeMS     int64
	LatenessMS int64
	GroupBy    []string // of Columns; every other column is the same in all rows
}

// Batch is what the manifest of a sequence number recorded: the first that was
// created, which is the one that counts.
type Batch struct {
	ID          uint64
	Shard       int
	Seq         uint64 // 1, 2, 3 ... in each shard
	WatermarkMS int64  // of the shard, after this batch
	Idle        int    // streams that the watermark did not wait for
	Units       []Unit
}

// Unit is one byte range of a blob.
type Unit struct {
	Blob           string
	Generation     int
	Offset, Length int64
	Rows           int64 // that it says it has: those that land
}

// Ack is one message that the source counts as dealt with: it was acknowledged, or a
// saved position passed it.
type Ack struct {
	Partition int
	Offset    int64 // of the message in its partition
	AtMS      int64
	Blob      string
	Length    int64 // bytes of the blob that the message announced, 0 when it needs none
	// DurableLength is how much of the blob was durable without a gap at that moment.
	DurableLength int64
}

// Book is all that one run left.
type Book struct {
	Seed       uint64
	Written    []Tuple
	Landed     []Row
	Topic      []Row // read at read_committed
	HasTopic   bool
	Rejected   []Rejected
	Windows    []WindowRow
	WindowDefs []Window
	Batches    []Batch
	Acks       []Ack

	// Drained: the pipeline came to an end after the faults had ended, in DrainMS of
	// simulated time.
	Drained bool
	DrainMS int64
	// EndOfInput: the end closes every window.
	EndOfInput bool
	// OutOfOrdernessMS is how far behind the highest event time of a stream the watermark
	// stays.
	OutOfOrdernessMS int64
	// Unstartable is the error of a start that failed for ever; "" when there was none.
	Unstartable string
}

// MaxDrainMS is how long a pipeline may take to finish once nothing fails any more.
const MaxDrainMS = 10 * 60 * 1000

// Verdict counts what is wrong, by kind. The zero value says that the run was right.
type Verdict struct {
	Lost    int // tuples that landed nowhere
	Dup     int // rows that landed once more than they were written
	Altered int // rows that differ from their tuple, or have none
	Stuck   int // 1 when the pipeline did not come to an end, or did not start
	Windows int // rows of windows that are wrong, missing or surplus
	Batches int // batches, ranges and watermarks that break a promise of the ledger
	Acks    int // messages acknowledged before what they announced was durable

	// Conservation: what was written has landed, or is in quarantine, or was gone before
	// it had to be read, or is under way; or it is lost.
	Written, Landed, Quarantined, Gone, Pending int

	// Findings says in words what was found, at most MaxFindings; More counts the others.
	Findings []string
	More     int
}

// MaxFindings bounds Verdict.Findings.
const MaxFindings = 20

// Clean says that nothing is wrong.
func (v Verdict) Clean() bool { return len(v.Findings) == 0 }
