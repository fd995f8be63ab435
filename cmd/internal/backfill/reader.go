package backfill

import (
	"context"
	"errors"
	"sync"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/engine"
)

// patience is how many reads of one blob in a row may go wrong; the reader below has
// tried each for half a minute or so.
const patience = 3

// reader gives up a blob that cannot be read, and remembers it: the engine would try
// for ever, and the backfill never end. What was read of the blob lands.
type reader struct {
	engine.Reader

	mu     sync.Mutex
	failed map[pipeline.BlobID]failure
	gone   int64
}

type failure struct {
	tries int
	err   error
}

func (r *reader) ReadNew(ctx context.Context, id pipeline.BlobID, pos blob.Position, contentLength int64, budget blob.Budget, emit func(blob.Chunk) error) (blob.Outcome, error) {
	outcome, err := r.Reader.ReadNew(ctx, id, pos, contentLength, budget, emit)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		delete(r.failed, id)
		if outcome == blob.Gone {
			r.gone++
		}
		return outcome, nil
	case ctx.Err() != nil, errors.As(err, new(*blob.FormatError)):
		return outcome, err
	}
	f := failure{r.failed[id].tries + 1, err}
	r.failed[id] = f
	if f.tries >= patience {
		return blob.NothingNew, nil
	}
	return outcome, err
}

// failures gives the blobs that were given up.
func (r *reader) failures() map[string]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]error{}
	for id, f := range r.failed {
		out[id.String()] = f.err
	}
	return out
}
