package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/shard"
)

// patience is how often in a row the same bytes of a blob must be found malformed
// before they go to quarantine: a store may show a commit half made.
const patience = 3

// place is where bytes were found that cannot be cut into records, and how often.
type place struct {
	offset int64
	seen   int
}

// malformed deals with bytes that cannot be cut into records. Seen often enough,
// they go to quarantine as one range, and the read goes on behind them.
func (r *runner) malformed(ctx context.Context, a shard.Fetch, f *blob.FormatError, emit func(chunk) error) shard.Event {
	id := a.Position.Blob
	if !r.oftenEnough(id, f.Offset) {
		return shard.FetchDone{Job: a.Job, Err: f}
	}
	data, err := r.malformedBytes(ctx, id, f)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return shard.FetchDone{Job: a.Job, Err: errors.Join(f, err)}
	case len(data) == 0:
		return shard.FetchDone{Job: a.Job, Outcome: shard.NothingNew}
	}
	c := chunk{
		job: a.Job, blob: id, generation: a.Position.Generation, malformed: f,
		data: blob.Chunk{Offset: f.Offset, Data: data, Tail: data[max(0, len(data)-blob.TailBytes):]},
	}
	if err := emit(c); err != nil {
		return nil
	}
	return shard.FetchDone{Job: a.Job, Outcome: shard.Read, Again: true}
}

// oftenEnough counts how often the blob was malformed in this place.
func (r *runner) oftenEnough(id pipeline.BlobID, offset int64) bool {
	r.placesMu.Lock()
	defer r.placesMu.Unlock()
	p := r.places[id]
	if p.offset != offset {
		p = place{offset: offset}
	}
	if p.seen++; p.seen >= patience {
		delete(r.places, id)
		return true
	}
	r.places[id] = p
	return false
}

// malformedBytes reads the range again, under the budget, and leaves the footer
// out: it moves when the blob grows, and a position behind it would look like a
// blob that was rewritten. The bytes that are given are reserved.
func (r *runner) malformedBytes(ctx context.Context, id pipeline.BlobID, f *blob.FormatError) ([]byte, error) {
	if err := r.e.budget.Acquire(ctx, f.Length); err != nil {
		return nil, err
	}
	data, err := r.e.parts.Reader.ReadRange(ctx, id, f.Offset, f.Length)
	if err != nil {
		r.e.budget.Release(f.Length)
		return nil, fmt.Errorf("read what is malformed: %w", err)
	}
	if end := bytes.TrimRight(data, " \t\r\n"); bytes.HasSuffix(end, []byte("]}")) {
		data = data[:len(end)-len("]}")]
	}
	r.e.budget.Release(f.Length - int64(len(data)))
	return data, nil
}

// excerptBytes is how much of a range quarantine keeps.
const excerptBytes = 256

// refuse makes the whole unit one entry of quarantine.
func (r *runner) refuse(ctx context.Context, u *pipeline.Unit, data []byte) {
	if r.e.cfg.Replay {
		return
	}
	u.Quarantined = 1
	r.rejects = append(r.rejects, rejected{unit: *u, reject: pipeline.Reject{
		Reason: u.Malformed, Detail: u.Detail, Scope: "range", Offset: u.Offset, Length: u.Length,
		Excerpt: strings.ToValidUTF8(string(data[:min(len(data), excerptBytes)]), "\uFFFD"),
	}})
	r.e.metrics.rejected(ctx, u.Malformed)
}
