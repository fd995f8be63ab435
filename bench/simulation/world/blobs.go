package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
)

// blobFile is one blob.
type blobFile struct {
	id         pipeline.BlobID
	nic        int
	data       []byte
	etag       int
	generation int
	tuples     []int   // of the present content, in the order of their records
	ends       []int64 // of its records
	count      []int   // tuples up to the end of each record
	durable    int     // tuples from the beginning that are known to have landed
	touched    time.Duration
	missed     time.Duration // when it was last said not to be there, plus one
}

// blobService writes flow logs and serves them. It is the reader's blob.Store and the
// sweeper's listing.Lister.
type blobService struct {
	w     *World
	files []*blobFile // sorted by path
	byID  map[pipeline.BlobID]*blobFile
	away  time.Duration // nothing is answered before that time
}

func newBlobs(w *World) *blobService {
	return &blobService{w: w, byID: map[pipeline.BlobID]*blobFile{}}
}

// begin lets every interface write from time to time.
func (s *blobService) begin() {
	for nic := range s.w.plan.NICs {
		s.w.after(between(s.w.rng, 0, s.w.plan.Every), func() { s.write(nic) })
	}
}

func (s *blobService) write(nic int) {
	w := s.w
	if w.now >= w.plan.Length {
		return
	}
	s.append(s.file(nic, w.wall().Truncate(time.Hour)), w.wall())
	w.after(between(w.rng, w.plan.Every/2, w.plan.Every*3/2), func() { s.write(nic) })
}

// append writes a record and tells the hub.
func (s *blobService) append(f *blobFile, at time.Time) {
	s.record(f, at)
	s.w.say("append", f.id.Path, int64(len(f.data)))
	s.w.hub.event(f)
}

func (s *blobService) file(nic int, hour time.Time) *blobFile {
	id := blobOf(nic, hour)
	if f := s.byID[id]; f != nil {
		return f
	}
	f := &blobFile{id: id, nic: nic}
	s.byID[id] = f
	i, _ := slices.BinarySearchFunc(s.files, id.Path, func(f *blobFile, path string) int { return strings.Compare(f.id.Path, path) })
	s.files = slices.Insert(s.files, i, f)
	return f
}

// Get implements blob.Store.
func (s *blobService) Get(_ context.Context, id pipeline.BlobID, offset, count int64, ifMatch string) (blob.Response, error) {
	fail := func(kind blob.Kind, status int) (blob.Response, error) {
		s.w.say("blob refused", id.Path, int64(status), offset)
		return blob.Response{}, &blob.Error{Op: "get blob", Object: id.String(), Offset: offset, Kind: kind, Status: status}
	}
	f := s.byID[id]
	switch {
	case s.w.now < s.away:
		return fail(blob.KindUnavailable, 500)
	case s.w.hit(BlobThrottled):
		return fail(blob.KindThrottled, 503)
	case f == nil:
		return fail(blob.KindMissing, 404)
	case s.w.hit(BlobMissing):
		f.missed = s.w.now + 1
		return fail(blob.KindMissing, 404)
	case ifMatch != "" && ifMatch != f.tag():
		return fail(blob.KindChanged, 412)
	case offset >= int64(len(f.data)):
		return fail(blob.KindOutOfRange, 416)
	}
	end := int64(len(f.data))
	if count > 0 {
		end = min(end, offset+count)
	}
	s.w.say("blob served", id.Path, offset, end)
	r := blob.Response{ETag: f.tag(), Offset: offset, Length: end - offset, Total: int64(len(f.data))}
	r.Body = s.body(f, f.data[offset:end]) // which may let the blob grow
	return r, nil
}

func (f *blobFile) tag() string { return fmt.Sprintf(`"%d-%d"`, f.generation, f.etag) }

var errCut = errors.New("connection reset")

// body gives the bytes; it may break off, and the blob may grow meanwhile.
func (s *blobService) body(f *blobFile, data []byte) io.ReadCloser {
	data = bytes.Clone(data) // the version asked for, whatever is written meanwhile
	cut := s.w.hit(BlobCut)
	if cut {
		data = data[:s.w.rng.IntN(len(data))]
	}
	if s.w.now < s.w.plan.Length && s.w.hit(BlobGrewInRead) {
		if hour, _ := f.id.Hour(); hour.Equal(s.w.wall().Truncate(time.Hour)) {
			s.append(f, s.w.wall())
		}
	}
	return &body{data: data, cut: cut}
}

type body struct {
	data []byte
	cut  bool
}

func (b *body) Read(p []byte) (int, error) {
	if len(b.data) == 0 {
		if b.cut {
			return 0, errCut
		}
		return 0, io.EOF
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *body) Close() error { return nil }

// ListPage implements listing.Lister.
func (s *blobService) ListPage(_ context.Context, _, _, prefix, delimiter, _ string,
	visit func(path string, size int64, etag string), folder func(prefix string),
) (string, error) {
	if s.w.now < s.away || s.w.hit(ListingFailed) {
		return "", &blob.Error{Op: "list container", Object: account + "/" + container, Offset: -1, Kind: blob.KindUnavailable, Status: 500}
	}
	last := ""
	for _, f := range s.files {
		rest, ok := strings.CutPrefix(f.id.Path, prefix)
		if !ok || len(f.data) == 0 {
			continue
		}
		if i := strings.Index(rest, "/"); delimiter != "" && i >= 0 {
			if below := prefix + rest[:i+1]; below != last {
				folder(below)
				last = below
			}
			continue
		}
		if visit != nil {
			visit(f.id.Path, int64(len(f.data)), f.tag())
		}
	}
	return "", nil
}

// replace deletes a blob that nothing waits for any more, and writes another one under
// its name, which grows beyond it.
func (s *blobService) replace() {
	w := s.w
	var old []*blobFile
	for _, f := range s.files {
		if hour, _ := f.id.Hour(); len(f.data) > 0 && f.generation == 0 && w.now-f.touched > 3*time.Minute && w.wall().Sub(hour) > time.Hour {
			old = append(old, f)
		}
	}
	if len(old) == 0 || w.now >= w.plan.Length {
		return
	}
	f := old[w.rng.IntN(len(old))]
	if p := w.owner(); p == nil || !p.quiet() || w.ledger.needs(w.objects(), f.id) {
		return // a recovery would read it again
	}
	w.fault(BlobReplaced, f.id.Path)
	for _, i := range f.tuples {
		if t := &w.book.Written[i]; !w.target.has(*t) {
			t.Gone = true
		}
	}
	length := len(f.data)
	f.generation++
	f.data, f.tuples, f.ends, f.count, f.durable = nil, nil, nil, nil, 0
	hour, _ := f.id.Hour()
	for first := true; first || len(f.data) <= length+2 || w.rng.IntN(3) > 0; first = false {
		s.append(f, hour.Add(between(w.rng, 0, time.Hour)))
	}
}

// durableLength is how far a blob's present content has landed without a gap.
func (s *blobService) durableLength(f *blobFile) int64 {
	for f.durable < len(f.tuples) && s.w.target.has(s.w.book.Written[f.tuples[f.durable]]) {
		f.durable++
	}
	length := int64(len(header))
	for i, end := range f.ends {
		if f.count[i] > f.durable {
			break
		}
		length = end
	}
	return length
}
