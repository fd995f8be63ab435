package pipeline

import (
	"context"
	"errors"
)

// Classes of errors, for errors.Is. An error of no class is fatal: stop and say
// what to do.
var (
	// ErrTransient: try again with back-off.
	ErrTransient = errors.New("transient")
	// ErrInDoubt: the effect may or may not have happened; probe before trying again.
	ErrInDoubt = errors.New("in doubt")
	// ErrFenced: a later owner has taken over; stop.
	ErrFenced = errors.New("fenced by a later owner")
)

// Source gives announcements until ctx ends.
type Source interface {
	// Run hands every delivery to emit, which blocks while the pipeline is full and
	// gives ctx's error when it stops. Run returns when all its goroutines are gone:
	// nil after ctx ended, an error when the source can never go on. Transient
	// trouble is retried inside and never returned.
	Run(ctx context.Context, emit func(context.Context, Delivery) error) error
}

// Sink lands pieces, each exactly once.
type Sink interface {
	// Land makes one INSERT of the piece (borrowed) and returns when its rows are
	// durable. epoch is the writer's: an INSERT of an older epoch than the fence's is
	// refused with ErrFenced. ErrInDoubt means that the rows may be there: the caller
	// probes before it lands again. ErrTransient means that they are not. ctx carries
	// no deadline.
	Land(ctx context.Context, batch BatchID, epoch uint64, piece Piece) error
	// Probe counts the rows of the batch that are there, for each piece. A count other
	// than 0 or the piece's rows is impossible while one piece is one part.
	Probe(ctx context.Context, batch BatchID, pieces []PieceRef) ([]int64, error)
	// Fence makes every INSERT of an older epoch of (ledger, shard) impossible, waits
	// until none runs any more, and returns.
	Fence(ctx context.Context, ledger uint16, shard int, epoch uint64) error
}

// Repeats is a Sink that lands pieces at least once. It cannot be asked what has
// landed: Probe says that nothing has, so after a crash or doubt rows come again.
type Repeats interface {
	Sink
	Repeats()
}

// Planner is a Sink that divides a batch's rows itself. Any other gets each piece of
// the batch as it is: one table, one partition, one record. Safe for concurrent use:
// every shard plans.
type Planner interface {
	// Plan gives what Land is called with, in an order that depends on its input
	// alone. The pieces are borrowed: Retain what is kept; the result is the caller's.
	// PieceRef.Sink is filled in by the caller. recorded is nil when a batch is new; at
	// a replay it is what the manifest holds of this sink, and Plan must give the same
	// again, whatever the sink's configuration has become.
	Plan(batch BatchID, pieces []Piece, recorded []PieceRef) ([]Piece, error)
}

// Reason says why input is in quarantine. The list is closed; each code has a
// test that produces it.
type Reason string

// Reasons, as they stand in the table quarantine.
const (
	ReasonSyntax       Reason = "json_syntax"       // the record is not JSON
	ReasonTruncated    Reason = "json_truncated"    // the range ends inside a record
	ReasonShape        Reason = "record_shape"      // JSON, but no flow record of a known format
	ReasonVersion      Reason = "unknown_version"   // a version that no decoder knows
	ReasonFieldCount   Reason = "tuple_field_count" // the tuple has the wrong number of fields
	ReasonTime         Reason = "tuple_time"        // no number
	ReasonTimeRange    Reason = "time_out_of_range" // outside the hour of the path -1 h, +2 h
	ReasonAddress      Reason = "tuple_address"     // no IP address
	ReasonPort         Reason = "tuple_port"        // no number from 0 to 65535
	ReasonProtocol     Reason = "tuple_protocol"    // no IANA number, or not T or U
	ReasonDirection    Reason = "tuple_direction"   // not I or O
	ReasonState        Reason = "tuple_state"       // not a flow state or decision
	ReasonCounter      Reason = "tuple_counter"     // no number from 0 to 2^64-1
	ReasonEncoding     Reason = "text_encoding"     // invalid UTF-8, NUL or a lone surrogate
	ReasonLimit        Reason = "limit_exceeded"    // deeper, longer or more than the limits
	ReasonDecoderPanic Reason = "decoder_panic"     // a defect of ours, contained to the range
)

// Reject is one thing that could not become rows.
type Reject struct {
	Reason  Reason
	Detail  string // what exactly, with no secrets
	Scope   string // "tuple", "record" or "range"
	Offset  int64  // of the record or range in the blob
	Ordinal uint32 // of the tuple in its record
	Length  int64  // bytes of the record or range; of the text for a tuple
	Excerpt string // first 256 bytes, valid UTF-8
}
