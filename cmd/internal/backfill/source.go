package backfill

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// MaxWaiting bounds the blobs that were announced and have not landed.
const MaxWaiting = 2000

// source announces what is to be done, and ends.
type source struct {
	b      *Backfill
	tally  Tally
	landed atomic.Int64 // blobs
}

var _ pipeline.Source = (*source)(nil)

func (s *source) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	room := make(chan struct{}, MaxWaiting)
	return s.b.walk(ctx, func(ctx context.Context, f found) error {
		s.tally.add(f)
		if f.fate != Todo {
			return nil
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		a := pipeline.Announcement{Blob: f.ID, ContentLength: f.Size, From: f.from}
		if f.rewritten {
			a.ContentLength = -1
		}
		return emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{a}, Ack: func() {
			<-room
			s.landed.Add(1)
		}})
	})
}

// walk finds every blob of the period and its fate, in order.
func (b *Backfill) walk(ctx context.Context, visit func(ctx context.Context, f found) error) error {
	return b.period.Walk(ctx, b.Lister, func(ctx context.Context, hour time.Time, blobs []listing.Blob) error {
		for len(blobs) > 0 {
			some := blobs[:min(askAtOnce, len(blobs))]
			blobs = blobs[len(some):]
			fs, err := b.sort(ctx, hour, some)
			if err != nil {
				return err
			}
			for _, f := range fs {
				if err := visit(ctx, f); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Tally counts blobs by their fate.
type Tally struct {
	Blobs     map[Fate]int64 `json:"blobs"`
	Bytes     int64          `json:"bytes"`     // to be read
	Rewritten int64          `json:"rewritten"` // of those to be read: they land anew, as another generation
	Resumed   int64          `json:"resumed"`   // of those to be read: a part has landed already
	// Uncertain names some of the blobs that are left alone.
	Uncertain []string `json:"uncertain,omitempty"`
	// Oldest and Newest hour of what is to be read; zero when nothing is.
	Oldest time.Time `json:"oldest,omitzero"`
	Newest time.Time `json:"newest,omitzero"`
}

// maxNamed is how many blobs are named of a kind.
const maxNamed = 5

func (t *Tally) add(f found) {
	if t.Blobs == nil {
		t.Blobs = map[Fate]int64{}
	}
	t.Blobs[f.fate]++
	switch f.fate {
	case Todo:
		t.Bytes += f.left()
		if f.rewritten {
			t.Rewritten++
		} else if f.from != nil {
			t.Resumed++
		}
		if hour, ok := f.ID.Hour(); ok {
			if t.Oldest.IsZero() {
				t.Oldest = hour
			}
			t.Newest = hour
		}
	case Uncertain:
		if len(t.Uncertain) < maxNamed {
			t.Uncertain = append(t.Uncertain, f.ID.String())
		}
	case Landed, Live, Growing, Gone:
	}
}
