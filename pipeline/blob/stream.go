package blob

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// stream reads a range of one version of a blob, over as many requests as it
// takes: a body that breaks off is resumed at the byte reached, on condition that
// the blob is still the version that it was.
type stream struct {
	reader *Reader
	id     pipeline.BlobID
	body   io.ReadCloser
	etag   string
	at     int64 // next byte of the blob
	end    int64 // behind the last byte of the range
	total  int64 // bytes of the blob
	tries  int   // requests in a row that went wrong without a byte of progress
}

// open asks for count bytes from offset on, 0 meaning to the end of the blob.
func (r *Reader) open(ctx context.Context, id pipeline.BlobID, offset, count int64) (*stream, error) {
	s := &stream{reader: r, id: id, at: offset}
	resp, err := s.request(ctx, count)
	if err != nil {
		return nil, err
	}
	s.body, s.etag, s.total, s.end = resp.Body, resp.ETag, resp.Total, resp.Total
	if count > 0 {
		s.end = min(resp.Total, offset+count)
	}
	return s, nil
}

func (s *stream) close() { _ = s.body.Close() }

// left is the number of bytes still to come.
func (s *stream) left() int64 { return s.end - s.at }

// fill reads until p is full. The caller asks for no more than is left.
//
// Errors: KindChanged when the body broke off and cannot be resumed.
func (s *stream) fill(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n, err := s.body.Read(p)
		if n > 0 {
			s.reader.count.bytes.Add(int64(n))
			s.at, p, s.tries = s.at+int64(n), p[n:], 0
		}
		if err == nil || len(p) == 0 {
			continue
		}
		s.close()
		if err := s.resume(ctx, bodyError(ctx, s.id, s.at, err)); err != nil {
			return err
		}
	}
	return nil
}

// resume opens the rest of the range after the body broke off.
func (s *stream) resume(ctx context.Context, cause *Error) error {
	if err := s.pause(ctx, cause); err != nil {
		return err
	}
	if s.etag == "" {
		return s.changed()
	}
	resp, err := s.request(ctx, s.end-s.at)
	if err != nil {
		if k := kindOf(err); k == KindChanged || k == KindOutOfRange {
			return s.changed()
		}
		return err
	}
	s.body = resp.Body
	if resp.Total != s.total {
		s.close()
		return s.changed()
	}
	return nil
}

func (s *stream) changed() error {
	return &Error{
		Op: "read blob", Object: s.id.String(), Offset: s.at, Kind: KindChanged,
		Detail: "the body broke off and the blob has changed since",
	}
}

// request sends requests until one is answered or may not be sent again. The
// first of a stream is unconditional.
func (s *stream) request(ctx context.Context, count int64) (Response, error) {
	for {
		s.reader.count.requests.Add(1)
		resp, err := s.reader.attempt(ctx, s.id, s.at, count, s.etag)
		if err == nil {
			return resp, nil
		}
		var e *Error
		if !errors.As(err, &e) || !e.transient() || e.Kind == KindChanged || e.context != nil {
			return Response{}, err
		}
		if err := s.pause(ctx, e); err != nil {
			return Response{}, err
		}
	}
}

// pause counts a fault and waits before the next request, or gives the fault when
// the tries are used up.
func (s *stream) pause(ctx context.Context, fault *Error) error {
	cfg := &s.reader.cfg
	if s.tries++; s.tries >= cfg.MaxTries || fault.context != nil {
		return fault
	}
	s.reader.count.retries.Add(1)
	if fault.Kind == KindThrottled {
		s.reader.count.throttled.Add(1)
	}
	return sleep(ctx, wait(cfg.BackoffMin, cfg.BackoffMax, cfg.RetryAfterMax, s.tries, fault.Wait))
}

// wait gives the time before try number tries+1: doubled with each try, half of it
// at random so that many readers do not come back at once, and never less than
// what the store asked for within asked's bound.
func wait(least, most, askedMost time.Duration, tries int, asked time.Duration) time.Duration {
	d := most
	if shift := tries - 1; shift < 32 && least<<shift > 0 {
		d = min(most, least<<shift)
	}
	d = d/2 + rand.N(d/2+1)
	return max(d, min(asked, askedMost))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// errIdle ends a request that gives no byte for too long.
var errIdle = errors.New("no byte for too long")

// attempt makes one request under a watch: it is cancelled when nothing arrives
// for Config.Idle, whether the answer or the next bytes of the body.
func (r *Reader) attempt(ctx context.Context, id pipeline.BlobID, offset, count int64, etag string) (Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(r.cfg.Idle, func() { cancel(errIdle) })
	resp, err := r.store.Get(ctx, id, offset, count, etag)
	watch.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errIdle) {
			err = bodyError(ctx, id, offset, errIdle)
		}
		cancel(nil)
		return Response{}, err
	}
	resp.Body = &watchedBody{body: resp.Body, ctx: ctx, cancel: cancel, watch: watch, idle: r.cfg.Idle}
	if resp.Offset != offset || resp.Length > resp.Total-offset && resp.Length > 0 {
		_ = resp.Body.Close()
		return Response{}, &Error{
			Op: "get blob", Object: id.String(), Offset: offset, Kind: KindUnavailable,
			Detail: "the answer is not the range asked for",
		}
	}
	return resp, nil
}

// watchedBody is a body whose request ends when a Read takes too long. The watch
// stands still between reads, where the reader may wait for budget.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context // of the request; lives and ends with the body
	cancel context.CancelCauseFunc
	watch  *time.Timer
	idle   time.Duration
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.Reset(b.idle)
	n, err := b.body.Read(p)
	b.watch.Stop()
	if err != nil && errors.Is(context.Cause(b.ctx), errIdle) {
		err = errIdle
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.watch.Stop()
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// bodyError turns what a body's Read gave into an Error; ctx is the caller's.
func bodyError(ctx context.Context, id pipeline.BlobID, at int64, err error) *Error {
	e := &Error{Op: "read blob", Object: id.String(), Offset: at, Kind: KindUnavailable, Detail: "the body broke off"}
	switch {
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errIdle):
		e.context, e.Detail = contextError(ctx.Err()), ctx.Err().Error()
	case errors.Is(err, errIdle):
		e.Detail = errIdle.Error()
	}
	return e
}

func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindOther
}
