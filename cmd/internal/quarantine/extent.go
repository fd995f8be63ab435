package quarantine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
)

// MaxRecordBytes is the largest record or range that is read again.
const MaxRecordBytes = 32 << 20

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

// Blobs reads blobs: *blob.Reader with its store.
type Blobs struct {
	Store  blob.Store
	Ranges interface {
		ReadRange(ctx context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error)
	}
}

// errExpired: what was refused is not there any more.
var errExpired = errors.New("the source has expired")

// errTooLarge: the bytes are more than are ever decoded at once.
var errTooLarge = fmt.Errorf("more than %d bytes", MaxRecordBytes)

// read gives the extent's bytes.
//
// Errors: errExpired, errTooLarge; others say why the blob cannot be read now.
func (b Blobs) read(ctx context.Context, x extent) ([]byte, error) {
	var data []byte
	var err error
	switch {
	case x.Length > MaxRecordBytes:
		return nil, errTooLarge
	case x.Length > 0:
		data, err = b.Ranges.ReadRange(ctx, x.Blob, x.Offset, x.Length)
	default:
		data, err = b.record(ctx, x.Blob, x.Offset)
	}
	return data, expiry(err)
}

// expiry tells a source that is gone from one that cannot be read now.
func expiry(err error) error {
	var answer *blob.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the blob is gone", errExpired)
	case errors.Is(err, blob.ErrShort), errors.As(err, &answer) && answer.Kind == blob.KindOutOfRange:
		return fmt.Errorf("%w: the blob is shorter now", errExpired)
	}
	return err
}

// recordTries is how often the stream of a record is begun.
const recordTries = 5

// record reads the value that begins at offset, to its end and not further: an
// entry of a tuple does not know how long its record is.
//
// The end is found by brackets and quotes, as in package decode. encoding/json would
// refuse the comma before a closing bracket, which real logs have.
func (b Blobs) record(ctx context.Context, id pipeline.BlobID, offset int64) ([]byte, error) {
	for try := 1; ; try++ {
		data, err := b.stream(ctx, id, offset)
		if err == nil || try == recordTries || ctx.Err() != nil || !errors.Is(err, pipeline.ErrTransient) {
			return data, err
		}
		select {
		case <-time.After(200 * time.Millisecond << try):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (b Blobs) stream(ctx context.Context, id pipeline.BlobID, offset int64) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the rest of the blob is not wanted
	resp, err := b.Store.Get(ctx, id, offset, 0, "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var data []byte
	var end ending
	for buf := make([]byte, 64<<10); ; {
		n, err := resp.Body.Read(buf)
		if len(data) == 0 && n > 0 && buf[0] != '{' {
			return nil, fmt.Errorf("%w: no record stands at byte %d", errExpired, offset)
		}
		if k := end.in(buf[:n]); k >= 0 {
			return append(data, buf[:k]...), nil
		}
		if data = append(data, buf[:n]...); len(data) > MaxRecordBytes {
			return nil, errTooLarge
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: no record stands at byte %d", errExpired, offset)
		case err != nil:
			return nil, fmt.Errorf("read blob %q: %w: %w", id, pipeline.ErrTransient, err)
		}
	}
}

// ending finds where an object ends, over as many calls of in as it takes.
type ending struct {
	depth           int
	inText, escaped bool
}

// in gives the offset behind the bracket that closes the object, or -1.
func (s *ending) in(data []byte) int {
	for i, c := range data {
		switch {
		case s.escaped:
			s.escaped = false
		case s.inText:
			s.escaped, s.inText = c == '\\', c != '"'
		case c == '"':
			s.inText = true
		case c == '{' || c == '[':
			s.depth++
		case c == '}' || c == ']':
			if s.depth--; s.depth <= 0 {
				return i + 1
			}
		}
	}
	return -1
}
