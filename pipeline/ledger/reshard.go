package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/pipeline"
)

// ErrResharding: a resharding was interrupted, and has to be finished first.
var ErrResharding = errors.New("the number of shards is being changed")

const markerName = "reshard"

// markerObject is there from before the first step of a resharding until behind its
// last one. Once Moved is set it holds everything that the shards held, so that
// nothing is read from them any more and every later step can be done again.
type markerObject struct {
	From int `json:"from"`
	To   int `json:"to"`
	// Watermark is the least of the shards before their windows were closed.
	Watermark pipeline.Watermark `json:"watermark"`
	Moved     bool               `json:"moved,omitempty"`
	// Seq is the highest batch of any shard; all new shards go on behind it, so that no
	// batch id is ever used twice, however often shards come and go.
	Seq       uint64       `json:"seq,omitempty"`
	Positions []Position   `json:"positions,omitempty"`
	Streams   []StreamTime `json:"streams,omitempty"`
}

// marker gives the mark of a resharding, or nil.
func (l *Ledger) marker(ctx context.Context) (*markerObject, error) {
	var m markerObject
	err := l.get(ctx, markerName, markerName, &m)
	if errors.Is(err, ErrNotExist) {
		return nil, nil
	}
	return &m, err
}

// BeginReshard marks the ledger: from here on only a resharding opens it. Behind it,
// unless the answer is that this was done already, the caller lands everything that
// is pending, closes every window, and calls FinishReshard. The caller owns the
// ledger.
//
// Errors: an interrupted resharding to another number of shards.
func BeginReshard(ctx context.Context, store Store, to int) (closed bool, err error) {
	l := &Ledger{store: store}
	if err := l.get(ctx, "info", "info", &l.info); err != nil {
		return false, err
	}
	m, err := l.marker(ctx)
	switch {
	case err != nil:
		return false, err
	case m != nil && m.To != to:
		return false, fmt.Errorf("an interrupted change to %d shards comes first: run millrace ledger reshard --shards %d --yes", m.To, m.To)
	case m != nil:
		return m.Moved, nil
	}
	m = &markerObject{From: l.info.Shards, To: to}
	for shard := range l.info.Shards {
		found, err := l.Recover(ctx, shard)
		if err != nil {
			return false, err
		}
		w := summarize(shard, found).Watermark
		if w > 0 && w != pipeline.EndOfInput && (m.Watermark == 0 || w < m.Watermark) {
			m.Watermark = w
		}
	}
	return false, l.put(ctx, markerName, markerName, m)
}

// FinishReshard moves offsets and event times to the new shards. retarget tells the
// target: the number of shards, and the batch up to which the old ones wrote. After
// an error or a crash the same call goes on.
func FinishReshard(ctx context.Context, store Store, retarget func(ctx context.Context, info Info, seq uint64) error) error {
	l := &Ledger{store: store}
	if err := l.get(ctx, "info", "info", &l.info); err != nil {
		return err
	}
	m, err := l.marker(ctx)
	if err != nil {
		return err
	}
	if m == nil {
		return errors.New("BUG: a resharding ends that never began")
	}
	if !m.Moved {
		if err := l.collect(ctx, m); err != nil {
			return err
		}
		if err := l.put(ctx, markerName, markerName, m); err != nil {
			return err
		}
	}
	bases := m.spread()
	for _, b := range bases {
		if err := l.put(ctx, object(b.Shard, "base", b.Seq), "base", b); err != nil {
			return err
		}
	}
	for shard := range max(m.From, m.To) {
		if err := l.clear(ctx, shard, shard < m.To, m.Seq); err != nil {
			return err
		}
	}
	l.info.Shards = m.To
	if err := l.put(ctx, "info", "info", l.info); err != nil {
		return err
	}
	if err := retarget(ctx, l.info, m.Seq); err != nil {
		return err
	}
	return l.store.Delete(ctx, markerName)
}

// collect takes what the old shards hold into the mark.
func (l *Ledger) collect(ctx context.Context, m *markerObject) error {
	for shard := range m.From {
		found, err := l.Recover(ctx, shard)
		if err != nil {
			return err
		}
		if len(found.Manifests) > 0 || found.Base.Watermark != pipeline.EndOfInput {
			return fmt.Errorf("shard %d has %d pending commits, or open windows: they come first", shard, len(found.Manifests))
		}
		m.Seq = max(m.Seq, found.Base.Seq)
		m.Positions = append(m.Positions, found.Base.Positions...)
		m.Streams = append(m.Streams, found.Base.Streams...)
	}
	m.Moved = true
	return nil
}

// spread gives the first base of each new shard. Operators begin anew: their windows
// are closed, and what comes later of one makes further rows that add up.
func (m *markerObject) spread() []Base {
	bases := make([]Base, m.To)
	for i := range bases {
		bases[i] = Base{Shard: i, Seq: m.Seq, Watermark: m.Watermark}
	}
	for _, p := range m.Positions {
		b := &bases[pipeline.ShardOf(p.Blob.Stream(), m.To)]
		b.Positions = append(b.Positions, p)
	}
	for _, s := range m.Streams {
		b := &bases[pipeline.ShardOf(s.Stream, m.To)]
		b.Streams = append(b.Streams, s)
	}
	for _, b := range bases {
		slices.SortFunc(b.Positions, func(a, b Position) int { return cmp.Compare(a.Blob.String(), b.Blob.String()) })
		slices.SortFunc(b.Streams, func(a, b StreamTime) int { return cmp.Compare(a.Stream, b.Stream) })
	}
	return bases
}

// clear removes what a shard held, except the new base where it lives on. What is
// older must not be there to fall back to: it was spread otherwise.
func (l *Ledger) clear(ctx context.Context, shard int, lives bool, keep uint64) error {
	for _, kind := range []string{"m", "base"} {
		seqs, err := l.sequences(ctx, shard, kind)
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			if lives && kind == "base" && seq == keep {
				continue
			}
			if err := l.store.Delete(ctx, object(shard, kind, seq)); err != nil {
				return err
			}
		}
	}
	return l.store.Delete(ctx, fmt.Sprintf("%03d/head", shard))
}
