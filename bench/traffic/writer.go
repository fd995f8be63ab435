package traffic

import (
	"context"
	"errors"
	"fmt"
)

// writer makes appends, one after the other. It owns the blobs of its interfaces.
type writer struct {
	s     *Simulator
	gen   *generator
	buf   []byte
	blobs map[int]*openBlob // By interface: the blob of the current hour.
}

// openBlob is a blob that still grows.
type openBlob struct {
	name    BlobName
	key     string // In Truth.
	place   uint64 // Of its random choices.
	hour    int64
	ids     []string // The committed list: header, data, footer.
	end     int64    // Offset of the footer; the header's length if nothing was committed.
	appends uint64
}

func (s *Simulator) newWriter() *writer {
	return &writer{s: s, gen: newGenerator(s.estate), blobs: map[int]*openBlob{}}
}

// run makes the appends of a queue until that is closed. After ctx has ended it
// only empties the queue.
func (w *writer) run(ctx context.Context, queue <-chan task) error {
	for t := range queue {
		if ctx.Err() != nil {
			continue
		}
		if err := w.append(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) blobOf(t task) *openBlob {
	hour := t.nic.hour(t.window)
	b := w.blobs[t.nic.index]
	if b == nil || b.hour != hour {
		b = &openBlob{
			name: t.nic.blob(hour),
			hour: hour,
			end:  int64(len(blobHeader)),
		}
		b.key = b.name.key()
		b.place = place(w.s.cfg.Seed, forBlock, textPlace(b.key))
		w.blobs[t.nic.index] = b
	}
	return b
}

// append writes, commits, accounts and announces some windows.
func (w *writer) append(ctx context.Context, t task) error {
	b := w.blobOf(t)
	w.gen.tally.reset()
	w.buf = w.buf[:0]
	for i := range t.windows {
		if i > 0 || len(b.ids) > 0 {
			w.buf = append(w.buf, ',')
		}
		w.buf = w.gen.record(w.buf, t.nic, t.window+i, b.key, b.end+int64(len(w.buf)))
	}
	free, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendTimeout)
	defer cancel()
	etag, err := w.commit(free, b)
	if err != nil {
		if errors.Is(err, ErrDoubt) {
			w.s.book.doubt(b.key)
		}
		return fmt.Errorf("append to blob: %w", err)
	}
	w.account(b)
	w.announce(ctx, b, etag)
	return nil
}

// commit puts the new blocks and the new list.
func (w *writer) commit(ctx context.Context, b *openBlob) (etag string, err error) {
	blobs := w.s.deps.Blobs
	ids := b.ids
	if len(ids) == 0 {
		ids = []string{blockID(b.place, 0), blockID(b.place, 1)}
		if err := blobs.Stage(ctx, b.name, ids[0], []byte(blobHeader)); err != nil {
			return "", err
		}
		if err := blobs.Stage(ctx, b.name, ids[1], []byte(blobFooter)); err != nil {
			return "", err
		}
	}
	id := blockID(b.place, 2+b.appends)
	if err := blobs.Stage(ctx, b.name, id, w.buf); err != nil {
		return "", err
	}
	last := len(ids) - 1
	ids = append(ids[:last:last], id, ids[last])
	etag, err = blobs.Commit(ctx, b.name, ids)
	if err == nil {
		b.ids = ids
	}
	return etag, err
}

// account enters a committed append in the books.
func (w *writer) account(b *openBlob) {
	s, t := w.s, &w.gen.tally
	before := b.end + int64(len(blobFooter))
	if b.appends == 0 {
		before = 0
	}
	b.end += int64(len(w.buf))
	b.appends++
	length := b.end + int64(len(blobFooter))
	if s.book.commit(b.key, t, before, length) {
		s.blobs.Add(1)
	}
	s.tuples.Add(t.tuples)
	s.malformed.Add(t.malformed)
	s.records.Add(t.records)
	s.appends.Add(1)
	s.bytes.Add(uint64(length - before))
}

// announce tells of an append, and now and then of something else.
func (w *writer) announce(ctx context.Context, b *openBlob, etag string) {
	s := w.s
	key := place(s.cfg.Seed, forEvent, b.place, b.appends)
	now := s.deps.Clock.Now()
	length := b.end + int64(len(blobFooter))
	s.courier.send(ctx, createdNotice(&s.cfg, key, b.name, etag, length, s.sequence.Add(1), now))
	if noise := place(s.cfg.Seed, forNoise, b.place, b.appends); chance(noise, s.cfg.Noise) {
		s.courier.sendNoise(ctx, noiseNotice(&s.cfg, noise, b.name, s.sequence.Add(1), now))
	}
}
