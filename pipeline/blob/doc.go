// Package blob reads the new bytes of a growing blob.
//
// In flows the position where the last read ended; out flow chunks of whole
// records, each byte of the blob's records array exactly once per generation, and
// an outcome. The common case costs one request: everything from 16 bytes before
// the last end, unconditional, because an unconditional read of a block blob sees
// one committed version and a conditional one loses the race against the next
// minute's commit. The 16 bytes are compared with those remembered: if they differ
// the blob was rewritten.
//
// The package starts no goroutine. Memory is lent by a Budget before it is taken
// and passes to the receiver with each chunk. It only ever reads: no request
// writes to a blob or deletes one.
package blob

import (
	"context"
	"fmt"
	"io"

	"github.com/millrace/millrace/pipeline"
)

// TailBytes is how many bytes before the end are remembered and compared.
const TailBytes = 16

// Position is where the last read of a blob ended.
type Position struct {
	Generation uint32 // of the blob: it rises by one when the blob was rewritten
	End        int64  // offset behind the last byte taken; 0: never read
	Tail       []byte // the last bytes (at most TailBytes) before End; may be empty: nothing is compared
}

// Chunk is a run of whole records.
type Chunk struct {
	Offset int64  // of Data[0] in the blob
	Data   []byte // region bytes as they stand in the blob: may begin with the comma; ends at a record's end
	Tail   []byte // the last bytes (at most TailBytes) of the blob up to the chunk's end
	// Reserved is what of the budget passes to the receiver with this chunk; at least
	// len(Data). Whoever drops Data gives it back.
	Reserved int64
}

// End is the offset behind the chunk's last byte.
func (c Chunk) End() int64 { return c.Offset + int64(len(c.Data)) }

// Outcome is what a read found.
type Outcome int

// Outcomes of ReadNew.
const (
	NothingNew Outcome = iota // no whole record behind the position
	Read                      // chunks were emitted
	Gone                      // the blob does not exist (any more)
	Rewritten                 // what is before the position is not what was read: begin a new generation at End 0
)

// OutcomeCount is the number of outcomes.
const OutcomeCount = int(Rewritten) + 1

// String gives the outcome's name in metrics.
func (o Outcome) String() string {
	switch o {
	case NothingNew:
		return "nothing_new"
	case Read:
		return "read"
	case Gone:
		return "gone"
	case Rewritten:
		return "rewritten"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Budget lends memory. A *semaphore.Weighted is one.
type Budget interface {
	// Acquire blocks until n bytes are free or ctx ends. The reader never calls it
	// while it holds bytes, so readers cannot block each other for ever.
	Acquire(ctx context.Context, n int64) error
	// Release gives n bytes back.
	Release(n int64)
}

// Store reads blobs. An implementer makes one request for each call, does not
// retry, and returns an *Error.
type Store interface {
	// Get asks for count bytes from offset on, 0 meaning to the end; offset 0 with
	// count 0 asks for the whole blob. A non-empty ifMatch makes it conditional. ctx
	// lives as long as the body is read.
	Get(ctx context.Context, id pipeline.BlobID, offset, count int64, ifMatch string) (Response, error)
}

// Response is the answer to Get. The receiver closes Body.
type Response struct {
	Body   io.ReadCloser
	ETag   string // as the store spells it, with its quotes
	Offset int64  // of the body's first byte in the blob
	Length int64  // bytes of the body
	Total  int64  // bytes of the blob
}

// Split finds the end of the last whole record in data, which begins behind a
// record's end or behind the opening bracket of the records array, so possibly
// with white space or a comma. closed says that the array's closing bracket was
// reached; end may then be the bracket's place. Without a whole record, end is 0.
type Split func(data []byte) (end int, closed bool)
