package quarantine

import (
	"context"
	"errors"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/engine"
)

// reader is the engine's Reader of replays: each is a blob of one record, whose
// bytes stand in another blob.
type reader struct {
	blobs reread.Blobs
	want  map[pipeline.BlobID]record // the round's

	mu     sync.Mutex
	failed map[pipeline.BlobID]error
}

var _ engine.Reader = (*reader)(nil)

// ReadNew gives the record as one chunk. A record that cannot be read, or that is
// not the one that was judged, is left out of the batch and remembered: unlike a
// blob that grows it would be asked for without end.
func (r *reader) ReadNew(ctx context.Context, id pipeline.BlobID, pos blob.Position, _ int64, budget blob.Budget, emit func(blob.Chunk) error) (blob.Outcome, error) {
	p, err := pipeline.ParseReplay(id)
	if err != nil {
		return blob.NothingNew, err
	}
	if pos.End >= p.Offset+p.Length {
		return blob.NothingNew, nil
	}
	if err := budget.Acquire(ctx, p.Length); err != nil {
		return blob.NothingNew, err
	}
	data, err := r.blobs.Ranges.ReadRange(ctx, p.Blob, p.Offset, p.Length)
	if err == nil && xxh3.Hash128(data) != r.want[id].hash {
		err = errChanged
	}
	if err != nil {
		budget.Release(p.Length)
		return blob.Gone, r.fail(ctx, id, err)
	}
	tail := data[max(0, len(data)-blob.TailBytes):]
	c := blob.Chunk{Offset: p.Offset, Data: data, Tail: append([]byte(nil), tail...), Reserved: p.Length}
	return blob.Read, emit(c)
}

var errChanged = errors.New("the bytes changed while the replay ran")

func (r *reader) fail(ctx context.Context, id pipeline.BlobID, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[id] = reread.Expiry(err)
	return nil
}

// ReadRange gives the bytes of a unit again, to finish a replay that was killed.
func (r *reader) ReadRange(ctx context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error) {
	p, err := pipeline.ParseReplay(id)
	if err != nil {
		return nil, err
	}
	return r.blobs.Ranges.ReadRange(ctx, p.Blob, offset, length)
}

// announcer is a Source that names the replays of a round and ends.
type announcer []pipeline.BlobID

func (a announcer) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	for _, id := range a {
		d := pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: id, ContentLength: -1}}}
		if err := emit(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// checkpoints lists the ranges behind commits under the blobs that they are in.
type checkpoints struct{ engine.Checkpoints }

func (c checkpoints) LandBatches(ctx context.Context, manifests []pipeline.Manifest) error {
	placed := make([]pipeline.Manifest, len(manifests))
	for i, m := range manifests {
		units, err := UnitsOf(m)
		if err != nil {
			return err
		}
		placed[i] = m
		placed[i].Units = units
	}
	return c.Checkpoints.LandBatches(ctx, placed)
}

// UnitsOf gives the units of a batch of replays by what they read, one for each
// record.
//
// Errors: a unit that is no replay.
func UnitsOf(m pipeline.Manifest) ([]pipeline.Unit, error) {
	type place struct {
		blob       pipeline.BlobID
		generation uint32
		offset     int64
	}
	var units []pipeline.Unit
	have := map[place]int{}
	for _, u := range m.Units {
		p, err := pipeline.ParseReplay(u.Blob)
		if err != nil {
			return nil, err
		}
		at := place{p.Blob, p.Generation, p.Offset}
		if i, ok := have[at]; ok {
			units[i].Rows += u.Rows
			continue
		}
		have[at] = len(units)
		u.Blob, u.Generation, u.Clock = p.Blob, p.Generation, p.Clock
		units = append(units, u)
	}
	return units, nil
}
