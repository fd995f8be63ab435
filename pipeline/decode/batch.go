package decode

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Limits bound what one record or one call may cost. What passes them is refused
// with limit_exceeded; it never ends the program.
type Limits struct {
	Depth   int // brackets within brackets, from the record's own on
	Text    int // bytes between the quotes of a text that becomes a column or a tuple
	Tuples  int // in one record
	Members int // in one object of the known structure
	Rejects int // from one call of Decode; then the rest of the range is refused
}

// DefaultLimits are far above anything that a real log holds.
func DefaultLimits() Limits {
	return Limits{Depth: 32, Text: 64 << 10, Tuples: 1 << 20, Members: 256, Rejects: 1 << 17}
}

const minRoom = 1024 // rows of the first buffers

// Range says where the bytes stand.
type Range struct {
	Blob       string // value of the column blob: account/container/path
	Generation uint32
	Offset     int64 // of data[0] in the blob
	// MinTime <= t < MaxTime bounds the event time, ms UTC; both 0: no bounds.
	MinTime, MaxTime int64
	// Ordinals, when not empty, picks tuples of the (single) record; the others are
	// neither rows nor rejects. Quarantine replay uses it.
	Ordinals []uint32
}

// Result says what became of one range.
type Result struct {
	Rows    int // added to the batch
	Records int // read as flow records; refused ones are not counted
	// MinTime and MaxTime are of the added rows, ms UTC; both 0 without rows.
	MinTime, MaxTime int64
	Rejects          []pipeline.Reject
	// RejectAt gives, for each reject, where the refused text itself begins in the
	// blob: for a tuple behind its opening quote.
	RejectAt []int64
}

// Batch is one record batch under construction over many ranges.
//
// One goroutine at a time. Its memory comes from the allocator and belongs to the
// batch until Flush or Take hands it over.
type Batch struct {
	alloc  memory.Allocator
	limits Limits

	n    int // rows
	cols columns
	hint int // the room that the next batch starts with: about that of the last ones

	macs, encryptions, acls, rules, flowLogs, targets, blobs names

	d    decoder
	trap func(offset int64) // tests let it panic before a record
}

// NewBatch makes an empty batch with the default limits.
func NewBatch(alloc memory.Allocator) *Batch { return NewBatchWithLimits(alloc, DefaultLimits()) }

// NewBatchWithLimits makes an empty batch.
func NewBatchWithLimits(alloc memory.Allocator, limits Limits) *Batch {
	return &Batch{alloc: alloc, limits: limits}
}

// Rows counts the rows in the batch.
func (b *Batch) Rows() int { return b.n }

// Release frees everything. The batch is empty and may be used again.
func (b *Batch) Release() {
	b.cols.release()
	b.reset()
}

func (b *Batch) reset() {
	b.hint = max(b.hint/2, b.n)
	b.n = 0
	for _, d := range b.dictionaries() {
		d.reset()
	}
}

func (b *Batch) dictionaries() map[int]*names {
	return map[int]*names{
		colMAC: &b.macs, colEncryption: &b.encryptions, colACL: &b.acls, colRule: &b.rules,
		colFlowLog: &b.flowLogs, colTarget: &b.targets, colBlob: &b.blobs,
	}
}

// Take gives all rows in the order of the input as one record batch, nil when
// there are none. The batch is empty and reusable afterwards.
//
// Shape: schemas.Flows. The caller releases the record.
func (b *Batch) Take(id pipeline.BatchID) arrow.Record {
	if b.n == 0 {
		b.Release()
		return nil
	}
	dicts := b.finish(id)
	defer releaseNames(dicts)
	n := b.n
	b.reset()
	return wrap(b.cols.take(n), dicts, n)
}

// Flush gives the rows as pieces, as Pieces makes them. The batch is empty and
// reusable afterwards.
//
// Shape: schemas.Flows. The caller releases each piece's record.
func (b *Batch) Flush(id pipeline.BatchID) []pipeline.Piece {
	return pipeline.Pieces(b.alloc, schemas.Flows, b.Take(id))
}

// finish writes the columns that are the same for the whole batch and gives the
// dictionary of each column.
func (b *Batch) finish(id pipeline.BatchID) [columnCount]arrow.Array {
	fill(b.cols.cloud[:b.n], schemas.CloudAzure)
	fill(b.cols.batchID[:b.n], uint64(id))
	dicts := wordArrays
	for column, d := range b.dictionaries() {
		dicts[column] = d.array(b.alloc)
	}
	return dicts
}

func releaseNames(dicts [columnCount]arrow.Array) {
	for i, d := range dicts {
		if d != nil && wordArrays[i] == nil {
			d.Release()
		}
	}
}
