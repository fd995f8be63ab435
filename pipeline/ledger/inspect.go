package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// ReadDirectory gives the objects of a folder for reading, while its owner works.
// It makes and locks nothing; every call that writes is an error.
func ReadDirectory(root string) (Store, error) {
	info, err := os.Stat(root)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open ledger: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("open ledger: %q is no folder", root)
	}
	return readOnly{ViewDirectory(root)}, nil
}

type readOnly struct{ *Directory }

var errReadOnly = errors.New("BUG: a write to a ledger that was opened for reading")

func (readOnly) Create(context.Context, string, []byte) error { return errReadOnly }
func (readOnly) Put(context.Context, string, []byte) error    { return errReadOnly }
func (readOnly) Delete(context.Context, string) error         { return errReadOnly }

// Summary is what people are shown of a ledger.
type Summary struct {
	Info
	Epoch uint64 `json:"epoch"`
	// Owner of a shared ledger; nil for a folder.
	Owner *Owner `json:"owner,omitempty"`
	// Resharding is the number of shards that an interrupted resharding goes to; 0
	// otherwise.
	Resharding int            `json:"resharding,omitempty"`
	State      []ShardSummary `json:"state"`
}

// ShardSummary is one shard of it.
type ShardSummary struct {
	Shard     int                `json:"shard"`
	Base      uint64             `json:"base"`      // batch that the newest base stands behind
	Done      uint64             `json:"done"`      // every batch up to here has landed, as far as the ledger says
	Pending   int                `json:"pending"`   // batches behind it, with an intent
	Next      uint64             `json:"next"`      // sequence number of the next batch
	Blobs     int                `json:"blobs"`     // whose offset is kept
	Streams   int                `json:"streams"`   // whose event time is kept
	Watermark pipeline.Watermark `json:"watermark"` // ms UTC; 0: nothing is known
	Written   int64              `json:"written"`   // ms UTC, when the newest manifest behind the base was made; 0: there is none
	Warnings  []string           `json:"warnings,omitempty"`
}

// inspectTries is how often a shard is read whose owner prunes it meanwhile: an
// object goes between its listing and its reading.
const inspectTries = 10

// Inspect reads a ledger without owning it, also while its owner works: each shard
// is then as it was at some moment of the call.
//
// Errors: ErrNotExist when there is no ledger.
func Inspect(ctx context.Context, store Store) (Summary, error) {
	var s Summary
	l := &Ledger{store: store}
	if err := l.get(ctx, "info", "info", &l.info); err != nil {
		return s, err
	}
	s.Info = l.info
	var e epochObject
	if err := l.get(ctx, "epoch", "epoch", &e); err != nil && !errors.Is(err, ErrNotExist) {
		return s, err
	}
	s.Epoch = e.Epoch
	if shared, ok := store.(Shared); ok {
		owner, _, err := readOwner(ctx, shared)
		if err != nil && !errors.Is(err, ErrNotExist) {
			return s, err
		}
		s.Owner, s.Epoch = &owner, owner.Epoch
	}
	m, err := l.marker(ctx)
	if err != nil {
		return s, err
	}
	if m != nil {
		s.Resharding = m.To
	}
	for shard := range l.info.Shards {
		found, err := l.inspect(ctx, shard)
		if err != nil {
			return s, err
		}
		s.State = append(s.State, summarize(shard, found))
	}
	return s, nil
}

// States reads every shard of a ledger that View gave, also while its owner works:
// each is then as it was at some moment of the call.
func (l *Ledger) States(ctx context.Context) ([]State, error) {
	states := make([]State, l.info.Shards)
	for shard := range states {
		var err error
		if states[shard], err = l.inspect(ctx, shard); err != nil {
			return nil, err
		}
	}
	return states, nil
}

func (l *Ledger) inspect(ctx context.Context, shard int) (State, error) {
	for try := 1; ; try++ {
		found, err := l.Recover(ctx, shard)
		if err == nil || try == inspectTries {
			return found, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return found, ctx.Err()
		}
	}
}

func summarize(shard int, found State) ShardSummary {
	s := ShardSummary{
		Shard: shard, Base: found.Base.Seq, Done: found.DoneSeq, Next: found.NextSeq(),
		Streams: len(found.Base.Streams), Watermark: found.Base.Watermark, Warnings: found.Warnings,
	}
	blobs := map[pipeline.BlobID]bool{}
	for _, p := range found.Base.Positions {
		blobs[p.Blob] = true
	}
	for _, m := range found.Manifests {
		s.Watermark, s.Written = max(s.Watermark, m.Watermark), m.Created
		if m.Seq > found.DoneSeq {
			s.Pending++
		}
		for _, u := range m.Units {
			blobs[u.Blob] = true
		}
	}
	s.Blobs = len(blobs)
	return s
}
