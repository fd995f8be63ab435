package quarantine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
)

// Entry is one row of the table quarantine.
type Entry struct {
	Address    string          `json:"address"` // to be pasted into show and replay
	Time       time.Time       `json:"time"`    // hour of the blob's path, or when it was read
	Reason     pipeline.Reason `json:"reason"`
	Detail     string          `json:"detail"`
	Scope      string          `json:"scope"` // tuple, record or range
	Blob       string          `json:"blob"`  // account/container/path
	Generation uint32          `json:"generation"`
	Offset     int64           `json:"record_offset"`
	Ordinal    uint32          `json:"ordinal"`
	Length     int64           `json:"length"` // of the tuple's text, or of the record or range
	Excerpt    string          `json:"excerpt"`
	Batch      uint64          `json:"batch_id"`
}

const scopeTuple = "tuple"

// at gives the place of the entry.
//
// Errors: the blob's name is none.
func (e Entry) at() (reread.Address, error) {
	id, err := pipeline.ParseBlobID(e.Blob)
	if err != nil {
		return reread.Address{}, err
	}
	a := reread.Address{Blob: id, Generation: e.Generation, Offset: e.Offset, Ordinal: -1}
	if e.Scope == scopeTuple {
		a.Ordinal = int64(e.Ordinal)
	}
	return a, nil
}

// Filter picks entries: those that meet all of what is set.
type Filter struct {
	Reason    pipeline.Reason
	Blob      string // part of the blob's name
	Addresses []reread.Address
}

// Reasons lists the codes that an entry may have.
var Reasons = []pipeline.Reason{
	pipeline.ReasonSyntax, pipeline.ReasonTruncated, pipeline.ReasonShape, pipeline.ReasonVersion, pipeline.ReasonFieldCount, pipeline.ReasonTime,
	pipeline.ReasonTimeRange, pipeline.ReasonAddress, pipeline.ReasonPort, pipeline.ReasonProtocol, pipeline.ReasonDirection, pipeline.ReasonState,
	pipeline.ReasonCounter, pipeline.ReasonEncoding, pipeline.ReasonLimit, pipeline.ReasonDecoderPanic,
}

// maxAddresses is how many addresses one command takes.
const maxAddresses = 1000

// NewFilter makes a filter of what a person typed.
//
// Errors: an unknown reason, no address, or too many.
func NewFilter(reason, blob string, addresses []string) (Filter, error) {
	f := Filter{Reason: pipeline.Reason(reason), Blob: blob}
	known := reason == ""
	var codes []string
	for _, r := range Reasons {
		known = known || r == f.Reason
		codes = append(codes, string(r))
	}
	if !known {
		return Filter{}, fmt.Errorf("reason %q: want one of %s", reason, strings.Join(codes, ", "))
	}
	if len(addresses) > maxAddresses {
		return Filter{}, fmt.Errorf("%d addresses, at most %d: use --reason or --blob", len(addresses), maxAddresses)
	}
	for _, s := range addresses {
		a, err := reread.ParseAddress(s)
		if err != nil {
			return Filter{}, err
		}
		f.Addresses = append(f.Addresses, a)
	}
	return f, nil
}

// Count is what one reason comes to.
type Count struct {
	Reason  pipeline.Reason `json:"reason"`
	Entries int64           `json:"entries"`
	Newest  Entry           `json:"newest"`
}

// Tuple is the address of a row of the table flows.
type Tuple struct {
	Blob       string
	Generation uint32
	Offset     int64 // of the record
	Ordinal    uint32
}

// Region is a part of the addresses of a blob.
type Region struct {
	Blob       string
	Generation uint32
	Start, End int64 // record offsets: Start <= offset < End
	// Ordinals narrows a region of one record down; empty: all tuples.
	Ordinals []uint32
	// MinTime <= time < MaxTime holds for every row of the region, ms UTC.
	MinTime, MaxTime int64
}

// Table answers questions about the target.
type Table interface {
	// Counts gives the entries by reason, the most frequent first.
	Counts(ctx context.Context, f Filter) ([]Count, error)
	// Entries gives at most limit entries behind after (nil: from the start), in the
	// order of blob, generation, offset, ordinal.
	Entries(ctx context.Context, f Filter, after *Entry, limit int) ([]Entry, error)
	// Generations gives the highest generation that the target knows of each blob.
	Generations(ctx context.Context, blobs []string) (map[string]uint32, error)
	// Landed gives the rows that the regions have.
	Landed(ctx context.Context, regions []Region) (map[Tuple]bool, error)
}
