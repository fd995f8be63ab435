package pipeline

import (
	"fmt"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/schemas"
)

// BlobID names one blob. The parts are kept as the configuration and the store
// spell them; two blobs are the same when all three parts are equal.
type BlobID struct {
	Account   string `json:"account"`
	Container string `json:"container"`
	Path      string `json:"path"`
}

// String gives account/container/path: the value of the column "blob".
func (b BlobID) String() string { return b.Account + "/" + b.Container + "/" + b.Path }

// ParseBlobID reads what String wrote.
//
// Errors: a text without an account, a container or a path.
func ParseBlobID(s string) (BlobID, error) {
	account, rest, ok := strings.Cut(s, "/")
	container, path, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || account == "" || container == "" || path == "" {
		return BlobID{}, fmt.Errorf("parse blob name %q: want account/container/path", s)
	}
	return BlobID{Account: account, Container: container, Path: path}, nil
}

// Stream names what writes blob after blob, hour after hour: the blob's name
// with the /y=…/m=00 part cut out. For network flow logs it is one NIC.
func (b BlobID) Stream() string {
	path := b.Path
	if _, start, end, ok := hourSegment(path); ok {
		path = path[:start] + path[end:]
	}
	return b.Account + "/" + b.Container + "/" + path
}

// Hour gives the hour that the blob's path names, UTC.
func (b BlobID) Hour() (time.Time, bool) {
	t, _, _, ok := hourSegment(b.Path)
	return t, ok
}

// ShardOf gives the shard of a stream among count shards. It is part of the
// ledger's format: a changed hash would hand blobs to other shards.
func ShardOf(stream string, count int) int {
	return int(xxh3.HashString(stream) % uint64(count))
}

// Announcement says that a blob may have more bytes. It is a hint: the blob is
// the truth.
type Announcement struct {
	Blob          BlobID
	ContentLength int64     // bytes including the footer; -1 when unknown
	Sequencer     string    // orders announcements of one blob; may be empty
	EventTime     time.Time // when the store says it happened; may be zero
	// From is where reading begins when the shard knows nothing of the blob: behind
	// what another ledger landed of it. Nil: at the beginning.
	From *Progress
}

// Progress is how far a blob has landed.
type Progress struct {
	Generation uint32
	End        int64  // bytes
	Tail       string // last bytes (at most 16) before End, hex; empty: they are not compared
}

// Delivery is one message of a source with the announcements found in it.
type Delivery struct {
	Announcements []Announcement
	// Ack tells the source that everything behind the message is durable. It is
	// called exactly once, from any goroutine, and must not block. Nil when the
	// source needs no answer.
	Ack func()
}

// Unit is one byte range of a blob that ends at a record's end.
type Unit struct {
	Blob       BlobID `json:"blob"`
	Generation uint32 `json:"generation"`
	Offset     int64  `json:"offset"` // first byte in the blob
	Length     int64  `json:"length"` // bytes
	Hash       string `json:"hash"`   // xxh3-128 of the bytes, 32 hex digits
	// Rows counts the rows that land.
	Rows int64 `json:"rows"`
	// Filtered counts the rows that filters left out.
	Filtered int64 `json:"filtered,omitempty"`
	// Quarantined counts the entries that the unit left in quarantine.
	Quarantined int64 `json:"quarantined,omitempty"`
	// MaxTime is the highest event time among its rows, left out or not, in ms UTC,
	// never ahead of the clock at fetch plus five minutes; 0 when it has no rows.
	MaxTime int64 `json:"max_time,omitempty"`
	// Tail holds the last bytes (at most 16) of the blob up to the unit's end, hex:
	// the next read compares them to see that the blob was not rewritten.
	Tail string `json:"tail"`
	// Clock is when a unit of a blob without an hour in its path was fetched, ms UTC:
	// it bounds the event times of such a unit. 0 for all others.
	Clock int64 `json:"clock,omitempty"`
	// Malformed says why the range as a whole went to quarantine, with Detail: its
	// bytes cannot be cut into records. "" for all others.
	Malformed Reason `json:"malformed,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

// End is the offset behind the unit's last byte.
func (u Unit) End() int64 { return u.Offset + u.Length }

// BatchID packs ledger (16 bits), shard (12) and sequence (36) into the value of
// the column batch_id.
type BatchID uint64

// Limits of a BatchID's parts.
const (
	MaxLedger = 1<<16 - 1
	MaxShards = 1 << 12
	MaxSeq    = 1<<36 - 1
)

// NewBatchID packs the parts. A part out of range is a broken invariant.
func NewBatchID(ledger uint16, shard int, seq uint64) BatchID {
	if shard < 0 || shard >= MaxShards || seq > MaxSeq {
		panic(fmt.Sprintf("BUG: batch id of shard %d, sequence %d", shard, seq))
	}
	return BatchID(uint64(ledger)<<48 | uint64(shard)<<36 | seq)
}

// Ledger, Shard and Seq give the parts back.
func (b BatchID) Ledger() uint16 { return uint16(b >> 48) }

// Shard gives the shard of the batch.
func (b BatchID) Shard() int { return int(b >> 36 & (MaxShards - 1)) }

// Seq gives the sequence number of the batch in its shard.
func (b BatchID) Seq() uint64 { return uint64(b) & MaxSeq }

// String gives ledger/shard/seq for people.
func (b BatchID) String() string {
	return fmt.Sprintf("%d/%d/%d", b.Ledger(), b.Shard(), b.Seq())
}

// Watermark says that no row before it is expected any more.
//
// Units: milliseconds, UTC. The zero value means that nothing is known yet.
type Watermark int64

// EndOfInput is the watermark behind the last row of an input that ended: every
// window closes.
const EndOfInput Watermark = 1<<63 - 1

// DefaultSink is what people are told of the sink that manifests leave unnamed.
const DefaultSink = "clickhouse"

// PieceRef names what lands at one time (for ClickHouse one INSERT) and what a
// probe needs to find it again.
type PieceRef struct {
	// Sink names the sink that the piece is for; "" is the default one. So a manifest
	// of a pipeline with ClickHouse alone reads as it did before there were others.
	Sink      string   `json:"sink,omitempty"`
	Table     string   `json:"table"`
	Partition string   `json:"partition"` // YYYYMMDD
	Rows      int64    `json:"rows"`
	MinTime   int64    `json:"min_time"` // of the table's time column, ms UTC
	MaxTime   int64    `json:"max_time"`
	MACs      []string `json:"macs,omitempty"` // distinct MACs, sorted; empty when too many or none
	Server    string   `json:"server,omitempty"`
}

// Manifest is the durable intent of one batch: with the bytes of its units it
// decides everything that lands.
type Manifest struct {
	Batch     BatchID    `json:"batch"`
	Ledger    uint16     `json:"ledger"`
	Shard     int        `json:"shard"`
	Seq       uint64     `json:"seq"`
	Epoch     uint64     `json:"epoch"`
	Created   int64      `json:"created"`        // ms UTC, for people
	DoneSeq   uint64     `json:"done_seq"`       // every batch up to here is done
	Watermark Watermark  `json:"watermark"`      // the shard's, after this batch
	Idle      int        `json:"idle,omitempty"` // streams that the watermark did not wait for, being idle
	Units     []Unit     `json:"units"`
	Pieces    []PieceRef `json:"pieces"`
	// Sinks are those that the batch lands in, "" being the default one; nil is that
	// one alone. A sink that is configured later starts with a later batch.
	Sinks []string `json:"sinks,omitempty"`
	// Transforms are what the flow rows went through, in order.
	Transforms []TransformRef `json:"transforms,omitempty"`
	// Decoder is the decode.Version that made rows of the units; 0 in manifests of
	// releases that did not write it, which is version 1.
	Decoder int `json:"decoder,omitempty"`
	// Warm says that the batch is none: its units have landed in other batches long
	// ago, their offsets stand in the base, and only the operators see them again. A
	// ledger that was rebuilt begins with such manifests.
	Warm bool `json:"warm,omitempty"`
}

// OperatorInput is one batch as operators see it.
type OperatorInput struct {
	Batch     BatchID
	Flows     []arrow.Record // borrowed; schema schemas.Flows, or schemas.EnrichedFlows
	Watermark Watermark
}

// Operator computes over the batches of one shard. Its state after a batch is a
// function of the state before it and the input alone: no clock, no goroutine, no
// map order. One goroutine at a time calls it.
type Operator interface {
	// Tables are what Apply writes.
	Tables() []schemas.Table
	// Apply folds the batch into the state and gives the rows that became final.
	// The caller owns the pieces and releases their records. An error is fatal for
	// the shard.
	Apply(in OperatorInput) ([]Piece, error)
	// Snapshot gives the state, with its own version and checksum. Equal states
	// give equal bytes.
	Snapshot() ([]byte, error)
	// Restore replaces the state by what Snapshot gave.
	Restore(snapshot []byte) error
	// Release frees what the operator holds.
	Release()
}
