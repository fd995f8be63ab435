package quarantine

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
)

// extent is a run of bytes that entries speak of: the record of refused tuples, or
// one record or range that was refused as a whole.
type extent struct {
	pipeline.Replay         // without run and ordinals; Length 0 of a record that is not known
	entries         []Entry // of tuples, or exactly one
}

func (x extent) ofTuples() bool { return x.entries[0].Scope == scopeTuple }

// extents gathers entries, which come in their order, by what has to be read.
//
// Errors: a blob name that is none.
func extents(entries []Entry) ([]extent, error) {
	var xs []extent
	records := map[Tuple]int{} // extent of tuples by its record
	for _, e := range entries {
		a, err := e.at()
		if err != nil {
			return nil, fmt.Errorf("quarantine entry of batch %d: %w", e.Batch, err)
		}
		record := Tuple{e.Blob, e.Generation, e.Offset, 0}
		if i, ok := records[record]; ok && e.Scope == scopeTuple {
			xs[i].entries = append(xs[i].entries, e)
			continue
		}
		x := extent{Replay: pipeline.Replay{Blob: a.Blob, Generation: e.Generation, Offset: e.Offset}, entries: []Entry{e}}
		if _, ok := a.Blob.Hour(); !ok {
			x.Clock = e.Time.UnixMilli()
		}
		if e.Scope == scopeTuple {
			records[record] = len(xs)
		} else {
			x.Length = e.Length
		}
		xs = append(xs, x)
	}
	return xs, nil
}

// read gives the extent's bytes.
//
// Errors: reread.ErrExpired, reread.ErrTooLarge; others say why the blob cannot be
// read now.
func (x extent) read(ctx context.Context, blobs reread.Blobs) ([]byte, error) {
	if x.Length > 0 {
		return blobs.Range(ctx, x.Blob, x.Offset, x.Length)
	}
	return blobs.Record(ctx, x.Blob, x.Offset)
}
