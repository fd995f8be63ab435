package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/shard"
)

// chunk is a read's piece of text on its way to the shard.
type chunk struct {
	job        shard.JobID
	blob       pipeline.BlobID
	generation uint32
	data       blob.Chunk        // its length is reserved in the budget
	malformed  *blob.FormatError // not nil: the bytes cannot be cut into records
}

// fetch reads one blob and hands its chunks to the shard. It runs beside the
// shard and never waits for budget while it holds a chunk that was not taken.
func (r *runner) fetch(ctx context.Context, a shard.Fetch) shard.Event {
	pos := a.Position
	tail, err := hex.DecodeString(pos.Tail)
	if err != nil {
		return shard.Failed{Err: err}
	}
	pass := func(c chunk) error {
		if r.hands != nil {
			r.fetched[c.job] = append(r.fetched[c.job], c)
			return nil
		}
		select {
		case r.chunks <- c:
			return nil
		case <-ctx.Done():
			r.e.budget.Release(int64(len(c.data.Data)))
			return ctx.Err()
		}
	}
	emit := func(c blob.Chunk) error {
		// What was reserved beyond the chunk's real size goes back at once.
		r.e.budget.Release(c.Reserved - int64(len(c.Data)))
		return pass(chunk{job: a.Job, blob: pos.Blob, generation: pos.Generation, data: c})
	}
	began := time.Now()
	outcome, err := r.e.parts.Reader.ReadNew(ctx, pos.Blob,
		blob.Position{Generation: pos.Generation, End: pos.End, Tail: tail}, a.ContentLength, r.e.budget, emit)
	endFetch(ctx, outcome, err)
	if ctx.Err() != nil {
		return nil
	}
	r.e.metrics.fetched(ctx, time.Since(began), err)
	if f, ok := errors.AsType[*blob.FormatError](err); ok {
		return r.malformed(ctx, a, f, pass)
	}
	return shard.FetchDone{Job: a.Job, Outcome: outcomes[outcome], Err: err}
}

var outcomes = map[blob.Outcome]shard.Outcome{
	blob.NothingNew: shard.NothingNew, blob.Read: shard.Read, blob.Gone: shard.Gone, blob.Rewritten: shard.Rewritten,
}

// take decodes a chunk into the open batch, which the core may seal first.
func (r *runner) take(ctx context.Context, c chunk) {
	r.step(ctx, shard.ChunkArrived{Bytes: int64(len(c.data.Data))})
	if r.stopped {
		r.e.budget.Release(int64(len(c.data.Data)))
		return
	}
	r.reserved += int64(len(c.data.Data))
	u := pipeline.Unit{
		Blob: c.blob, Generation: c.generation, Offset: c.data.Offset, Length: int64(len(c.data.Data)),
		Hash: pipeline.Hash(c.data.Data), Tail: hex.EncodeToString(c.data.Tail),
	}
	if c.malformed != nil {
		u.Malformed, u.Detail = c.malformed.Reason, c.malformed.Detail
	}
	if _, ok := c.blob.Hour(); !ok {
		u.Clock = r.e.parts.Now().UnixMilli()
	}
	decoding, span := r.trace.decode(ctx, c)
	err := r.decode(decoding, &u, c.data.Data)
	end(span, err)
	if err != nil {
		r.step(ctx, shard.Failed{Err: err})
		return
	}
	r.step(ctx, shard.Decoded{Job: c.job, Unit: u})
}

// decode appends the unit's rows and rejects to the open batch and completes the
// unit. It is a function of the unit's address, its bytes and, for a blob without
// an hour in its path, the clock that the unit carries: replay gives the same.
//
// What a replay of quarantine refuses again is in quarantine already.
func (r *runner) decode(ctx context.Context, u *pipeline.Unit, data []byte) error {
	if u.Malformed != "" {
		r.refuse(ctx, u, data)
		r.unitRows = append(r.unitRows, 0)
		return nil
	}
	began := time.Now()
	at, err := r.rangeOf(*u)
	if err != nil {
		return err
	}
	result := r.decoded.Decode(at, data)
	u.Rows = int64(result.Rows)
	r.unitRows = append(r.unitRows, u.Rows)
	if result.Rows > 0 {
		u.MaxTime = result.MaxTime
	}
	r.e.metrics.decoded(ctx, len(data), result.Rows, time.Since(began))
	if r.e.cfg.Replay {
		r.e.metrics.refusedAgain(ctx, len(result.Rejects))
		return nil
	}
	u.Quarantined = int64(len(result.Rejects))
	for _, reject := range result.Rejects {
		r.rejects = append(r.rejects, rejected{unit: *u, reject: reject})
		r.e.metrics.rejected(ctx, reject.Reason)
	}
	return nil
}

// readUnit reads the bytes of a unit again and proves that they are the same.
func (r *runner) readUnit(ctx context.Context, u pipeline.Unit) ([]byte, error) {
	for attempt := 0; ; attempt++ {
		data, err := r.e.parts.Reader.ReadRange(ctx, u.Blob, u.Offset, u.Length)
		if err == nil && pipeline.Hash(data) != u.Hash {
			return nil, errChanged
		}
		if err == nil || !errors.Is(err, pipeline.ErrTransient) || attempt > 10 {
			return data, err
		}
		if r.hands != nil {
			continue
		}
		if err := pipeline.Wait(ctx, min(100*time.Millisecond<<attempt, 10*time.Second)); err != nil {
			return nil, err
		}
	}
}

var errChanged = errors.New("the blob's bytes are not those that were committed: the blob was rewritten")
