package backfill

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/shard"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// Fate is what becomes of a blob.
type Fate string

// Fates.
const (
	Todo      Fate = "todo"      // read, from From on
	Landed    Fate = "landed"    // everything in it has landed
	Live      Fate = "live"      // the live pipeline may still read it
	Growing   Fate = "growing"   // its hour has hardly ended
	Uncertain Fate = "uncertain" // some of it landed, and what exactly is not known
	Gone      Fate = "gone"      // it went away while it was listed
)

// settled is how long after its beginning an hour is complete.
const settled = 2 * time.Hour

// border says which hours are the live pipeline's.
type border struct {
	start time.Time     // of the live ledger
	keep  time.Duration // the live pipeline's KeepOffsets
	now   time.Time
}

// cutoff is the end of the hours that the live pipeline reads no more: the first
// hour that it may still read.
func (b border) cutoff() time.Time {
	h := b.now.Add(-b.keep).Truncate(time.Hour).Add(-time.Hour)
	if s := b.start.Truncate(time.Hour).Add(-time.Hour); s.After(h) {
		h = s
	}
	for shard.Outside(h, b.start, b.now, b.keep) != "" {
		h = h.Add(time.Hour)
	}
	return h
}

// fate says what the hour alone decides, or "".
func (b border) fate(hour time.Time) Fate {
	switch {
	case !hour.Before(b.cutoff()):
		return Live
	case hour.Add(settled).After(b.now):
		return Growing
	}
	return ""
}

// found is a blob with its fate.
type found struct {
	listing.Blob
	fate      Fate
	from      *pipeline.Progress // of Todo; nil: from the beginning
	rewritten bool               // the bytes that had landed are not there any more
}

// left is how many bytes are to be read.
func (f found) left() int64 {
	if f.from == nil {
		return f.Size
	}
	return max(f.Size-f.from.End, 0)
}

// askAtOnce is how many blobs one question to the target names.
const askAtOnce = 500

// sort finds the fates of some blobs of one hour, at most askAtOnce.
func (b *Backfill) sort(ctx context.Context, hour time.Time, blobs []listing.Blob) ([]found, error) {
	out := make([]found, len(blobs))
	names := make([]string, len(blobs))
	for i, x := range blobs {
		out[i], names[i] = found{Blob: x}, x.ID.String()
	}
	for i := range out {
		out[i].fate = b.fate(hour, out[i].ID)
	}
	if !slices.ContainsFunc(out, func(f found) bool { return f.fate == "" }) {
		return out, nil
	}
	// A clock that went wrong by a day does no harm.
	since, from, to := hour.Add(-24*time.Hour), hour.Add(-time.Hour), hour.Add(2*time.Hour)
	if hour.IsZero() {
		since, from, to = time.Time{}, time.Time{}, b.border.now.Add(24*time.Hour)
	}
	units, err := b.Table.Units(ctx, names, since)
	if err != nil {
		return nil, err
	}
	rows, err := b.Table.Rows(ctx, names, from, to)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		if out[i].fate != "" {
			continue
		}
		last, any := rows[name]
		if err := b.judge(ctx, &out[i], cover(append(units[name], b.pending[name]...)), last, any); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fate says what name and hour alone decide, or "". A name without an hour is the
// live pipeline's for ever when it reads the container.
func (b *Backfill) fate(hour time.Time, id pipeline.BlobID) Fate {
	switch {
	case !hour.IsZero():
		return b.border.fate(hour)
	case b.IsLive(id):
		return Live
	}
	return ""
}

// footerBytes end every blob and move as it grows.
const footerBytes = 2

// judge decides about a blob of which c has landed; last is the highest address that
// the target has of it, if any.
func (b *Backfill) judge(ctx context.Context, f *found, c coverage, last Last, any bool) error {
	switch {
	case c.hole || any && c.beyond(last):
		f.fate = Uncertain
	case c.end == 0:
		f.fate = Todo
	case f.Size >= c.end && f.Size <= c.end+footerBytes:
		f.fate = Landed
	default:
		return b.resume(ctx, f, c)
	}
	return nil
}

// resume finds where reading of a blob goes on of which a part has landed. The bytes
// of its last unit are read again: they tell whether the blob was rewritten since,
// and a later read compares their end.
func (b *Backfill) resume(ctx context.Context, f *found, c coverage) error {
	whole, err := b.wholeFromStart(ctx, f.ID, c.start)
	if err != nil {
		return b.vanished(f, err)
	}
	if !whole {
		f.fate = Uncertain
		return nil
	}
	f.fate = Todo
	f.from = &pipeline.Progress{Generation: c.generation, End: c.end}
	data, err := b.Reader.ReadRange(ctx, f.ID, c.last.Offset, c.last.Length)
	switch {
	case isShort(err), err == nil && hash(data) != c.last.Hash:
		f.from, f.rewritten = &pipeline.Progress{Generation: c.generation + 1}, true
		return nil
	case err != nil:
		return b.vanished(f, err)
	}
	f.from.Tail = hex.EncodeToString(data[max(0, len(data)-blob.TailBytes):])
	return b.footer(ctx, f)
}

// longFooter bounds a footer with white space in it.
const longFooter = 64

// footer sees that what follows is only the end of the records array, with more
// space around it than the service writes.
func (b *Backfill) footer(ctx context.Context, f *found) error {
	if f.left() > longFooter {
		return nil
	}
	rest, err := b.Reader.ReadRange(ctx, f.ID, f.from.End, f.left())
	if err != nil {
		return b.vanished(f, err)
	}
	if bytes.HasPrefix(bytes.TrimLeft(rest, " \t\r\n,"), []byte("]")) {
		f.fate, f.from = Landed, nil
	}
	return nil
}

// wholeFromStart says whether the first unit is that of the first record: nothing
// stands before it but the opening of the records array.
func (b *Backfill) wholeFromStart(ctx context.Context, id pipeline.BlobID, start int64) (bool, error) {
	const header = int64(len(`{"records":[`))
	if start == 0 || start == header {
		return true, nil
	}
	n := min(start, 64) // white space behind the bracket is rare and short
	data, err := b.Reader.ReadRange(ctx, id, start-n, n)
	if isShort(err) {
		return true, nil // rewritten; the last unit will say so
	}
	return bytes.HasSuffix(bytes.TrimRight(data, " \t\r\n"), []byte("[")), err
}

// isShort says that a blob ends before what has landed of it.
func isShort(err error) bool {
	var answer *blob.Error
	return errors.Is(err, blob.ErrShort) || errors.As(err, &answer) && answer.Kind == blob.KindOutOfRange
}

// vanished: a blob that is gone is no reason to stop.
func (b *Backfill) vanished(f *found, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		f.fate, f.from = Gone, nil
		return nil
	}
	return fmt.Errorf("read what has landed of blob %q: %w", f.ID, err)
}

func hash(data []byte) string {
	sum := xxh3.Hash128(data).Bytes()
	return hex.EncodeToString(sum[:])
}
