package evidence

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
)

// Deps are what a checker is made of; all are borrowed.
type Deps struct {
	Conn      driver.Conn // of the target
	Blobs     reread.Blobs
	Allocator memory.Allocator
}

// Outcome says what the bytes say to a row.
type Outcome string

// Outcomes.
const (
	Verified   Outcome = "verified"       // the bytes are there, and the row is what they say
	Differs    Outcome = "differs"        // the bytes are there, and say something else
	Rewritten  Outcome = "rewritten"      // other bytes stand in the blob now
	Expired    Outcome = "source expired" // the blob is gone
	Unreadable Outcome = "unreadable"     // the blob cannot be read now; try again
	Unknown    Outcome = "unknown"        // there is no such row
)

// ByteRange is what one commit read of the blob.
type ByteRange struct {
	Offset    int64     `json:"offset"`
	Length    int64     `json:"length"`
	Committed time.Time `json:"committed"`
	Hash      string    `json:"xxh3_128"`       // as committed
	Now       string    `json:"now,omitempty"`  // of the bytes that stand there now; "" when they were not read
	Note      string    `json:"note,omitempty"` // why they were not
}

// Record is where the row's record stands in the blob.
type Record struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// Finding is what is known of one row.
type Finding struct {
	Outcome     Outcome           `json:"outcome"`
	Address     string            `json:"address"`
	Cause       string            `json:"cause,omitempty"`
	Batch       uint64            `json:"batch_id,omitempty"`
	Tuple       string            `json:"tuple,omitempty"` // raw, as it stands in the blob
	TupleOffset int64             `json:"tuple_offset,omitempty"`
	Record      *Record           `json:"record,omitempty"`
	Range       *ByteRange        `json:"byte_range,omitempty"`
	Differences []Difference      `json:"differences,omitempty"`
	Row         map[string]string `json:"row,omitempty"` // as it landed
	Hints       []string          `json:"hints,omitempty"`
}

// Checker proves rows. One goroutine at a time.
type Checker struct {
	deps   Deps
	batch  *decode.Batch
	newest map[pipeline.BlobID]uint32 // generations

	// The last byte range that was read: rows of one come one after the other.
	held     pipeline.BlobID
	heldUnit unit
	heldData []byte
}

// New makes a checker. Release it.
func New(deps Deps) *Checker {
	return &Checker{deps: deps, batch: decode.NewBatch(deps.Allocator), newest: map[pipeline.BlobID]uint32{}}
}

// Release frees the memory of the checker.
func (c *Checker) Release() { c.batch.Release() }

// check reads the bytes of a row and compares.
//
// Errors: the target cannot be asked; ctx ended.
func (c *Checker) check(ctx context.Context, r Row) (Finding, error) {
	f := Finding{Address: r.At.String(), Batch: uint64(r.Batch), Row: map[string]string{}}
	for i, col := range compared {
		f.Row[col.Name] = r.Values[i]
	}
	u, err := c.unitOf(ctx, r)
	if err != nil {
		return f, err
	}
	if u != nil {
		f.Range = &ByteRange{Offset: u.offset, Length: u.length, Committed: u.committed, Hash: u.hash}
	}
	newest, err := c.generation(ctx, r.At.Blob)
	if err != nil {
		return f, err
	}
	if newest > r.At.Generation {
		f.Outcome, f.Cause = Rewritten, fmt.Sprintf("the row is of generation %d, and generation %d of the blob has been read since", r.At.Generation, newest)
		return f, nil
	}
	text, err := c.record(ctx, r, u, &f)
	switch {
	case ctx.Err() != nil:
		return f, ctx.Err()
	case err != nil:
		f.failed(err)
		return f, nil
	case f.Outcome != "":
		return f, nil
	}
	f.Record = &Record{r.At.Offset, int64(len(text))}
	return f, c.decode(r, text, &f)
}

// failed says why there are no bytes to compare.
func (f *Finding) failed(err error) {
	f.Cause = strings.TrimPrefix(err.Error(), reread.ErrExpired.Error()+": ")
	switch {
	case errors.Is(err, reread.ErrGone):
		f.Outcome = Expired
	case errors.Is(err, reread.ErrExpired):
		f.Outcome = Rewritten
	default:
		f.Outcome = Unreadable
	}
}

// record gives the text of the row's record: out of its byte range, whose hash it
// compares, or, when that is unknown or too large, alone. It may decide the outcome.
func (c *Checker) record(ctx context.Context, r Row, u *unit, f *Finding) ([]byte, error) {
	if u == nil || u.length > reread.MaxBytes {
		if u != nil {
			f.Range.Note = fmt.Sprintf("not compared: the range has %v", reread.ErrTooLarge)
		}
		return c.deps.Blobs.Record(ctx, r.At.Blob, r.At.Offset)
	}
	data, err := c.unitBytes(ctx, r.At.Blob, *u)
	if err != nil {
		return nil, err
	}
	sum := xxh3.Hash128(data).Bytes()
	if f.Range.Now = hex.EncodeToString(sum[:]); f.Range.Now != u.hash {
		f.Outcome, f.Cause = Rewritten, "the bytes of the range are not those that were read: their xxh3-128 differs"
		return nil, nil
	}
	text := data[r.At.Offset-u.offset:]
	end := reread.RecordEnd(text)
	if text[0] != '{' || end < 0 {
		f.Outcome, f.Cause = Differs, fmt.Sprintf("no record begins at byte %d of the blob, and its bytes are as they were", r.At.Offset)
		return nil, nil
	}
	return text[:end], nil
}

func (c *Checker) unitBytes(ctx context.Context, id pipeline.BlobID, u unit) ([]byte, error) {
	if c.heldData != nil && c.held == id && c.heldUnit == u {
		return c.heldData, nil
	}
	c.heldData = nil
	data, err := c.deps.Blobs.Range(ctx, id, u.offset, u.length)
	if err == nil {
		c.held, c.heldUnit, c.heldData = id, u, data
	}
	return data, err
}

// decode makes the row anew and compares. The event time has no bounds here: they
// were held when the row landed.
func (c *Checker) decode(r Row, text []byte, f *Finding) error {
	at := decode.Range{Blob: r.At.Blob.String(), Generation: r.At.Generation, Offset: r.At.Offset, Ordinals: []uint32{uint32(r.At.Ordinal)}}
	c.raw(at, text, f)
	c.batch.Release()
	result := c.batch.Decode(at, text)
	if result.Rows != 1 {
		f.Outcome, f.Cause = Differs, fmt.Sprintf("the record has no tuple %d", r.At.Ordinal)
		if len(result.Rejects) > 0 {
			f.Cause = fmt.Sprintf("this program's decoder refuses the tuple: %s: %s", result.Rejects[0].Reason, result.Rejects[0].Detail)
		}
		return nil
	}
	rec := c.batch.Take(0)
	defer rec.Release()
	found, err := r.differences(rec)
	if f.Outcome, f.Differences = Verified, found; len(found) > 0 {
		f.Outcome, f.Cause = Differs, "the row is not what the bytes say"
	}
	return err
}

// raw finds the text of the tuple: with bounds of time that no tuple meets, it
// comes back with its place.
func (c *Checker) raw(at decode.Range, text []byte, f *Finding) {
	at.MinTime, at.MaxTime = 1, 1
	c.batch.Release()
	result := c.batch.Decode(at, text)
	for i, reject := range result.Rejects {
		if reject.Scope == "tuple" && reject.Ordinal == at.Ordinals[0] {
			f.TupleOffset = result.RejectAt[i]
			from := f.TupleOffset - at.Offset
			f.Tuple = string(text[from : from+reject.Length])
		}
	}
}
