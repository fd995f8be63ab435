// Package reread reads bytes of blobs a second time, by the addresses that rows and
// quarantine entries carry, for commands that look at what a pipeline did.
//
// Addresses flow in, bytes flow out. It owns no goroutine; the memory of what is read
// is the caller's and comes from no budget, so everything has a limit.
package reread

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

// MaxBytes is the largest record or range that is read.
const MaxBytes = 32 << 20

// Blobs reads blobs: *blob.Reader with its store.
type Blobs struct {
	Store  blob.Store
	Ranges interface {
		ReadRange(ctx context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error)
	}
}

// What became of bytes that are not there any more. Both are ErrExpired.
var (
	ErrExpired = errors.New("the source has expired")
	ErrGone    = fmt.Errorf("%w: the blob is gone", ErrExpired)
	ErrShorter = fmt.Errorf("%w: the blob is shorter now", ErrExpired)
)

// ErrTooLarge: the bytes are more than are ever decoded at once.
var ErrTooLarge = fmt.Errorf("more than %d bytes", MaxBytes)

// Range gives length bytes from offset on.
//
// Errors: ErrExpired, ErrTooLarge; others say why the blob cannot be read now.
func (b Blobs) Range(ctx context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error) {
	if length > MaxBytes {
		return nil, ErrTooLarge
	}
	data, err := b.Ranges.ReadRange(ctx, id, offset, length)
	return data, Expiry(err)
}

// Expiry tells a source that is gone from one that cannot be read now.
func Expiry(err error) error {
	var answer *blob.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrGone
	case errors.Is(err, blob.ErrShort), errors.As(err, &answer) && answer.Kind == blob.KindOutOfRange:
		return ErrShorter
	}
	return err
}

// recordTries is how often the stream of a record is begun.
const recordTries = 5

// Record gives the object that begins at offset, to its end and not further: the
// address of a tuple does not tell how long its record is.
//
// The end is found by brackets and quotes, as in package decode. encoding/json would
// refuse the comma before a closing bracket, which real logs have.
//
// Errors: as Range.
func (b Blobs) Record(ctx context.Context, id pipeline.BlobID, offset int64) ([]byte, error) {
	for try := 1; ; try++ {
		data, err := b.stream(ctx, id, offset)
		if err == nil || try == recordTries || ctx.Err() != nil || !errors.Is(err, pipeline.ErrTransient) {
			return data, Expiry(err)
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
			return nil, fmt.Errorf("%w: no record stands at byte %d", ErrExpired, offset)
		}
		if k := end.in(buf[:n]); k >= 0 {
			return append(data, buf[:k]...), nil
		}
		if data = append(data, buf[:n]...); len(data) > MaxBytes {
			return nil, ErrTooLarge
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: no record stands at byte %d", ErrExpired, offset)
		case err != nil:
			return nil, fmt.Errorf("read blob %q: %w: %w", id, pipeline.ErrTransient, err)
		}
	}
}

// RecordEnd gives the length of the object that text begins with, or -1 when it does
// not end in text.
func RecordEnd(text []byte) int { return new(ending).in(text) }

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
