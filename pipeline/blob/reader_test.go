package blob_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
)

func TestDefaultConfigIsValid(t *testing.T) {
	if err := blob.DefaultConfig(split).Validate(); err != nil {
		t.Error(err)
	}
	err := blob.Config{}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") < 5 {
		t.Errorf("an empty configuration gives %v, want every fault at once", err)
	}
	if _, err := blob.New(blob.DefaultConfig(split), nil); err == nil {
		t.Error("a reader without a store")
	}
}

// The common case: one request for each append, 16 + 2 bytes over the new ones.
func TestGrowingBlobTakesOneRequestForEachAppend(t *testing.T) {
	s := blobtest.Start(t)
	f := &follower{t: t, reader: newReader(t, quick(), newStore(t, s)), id: id}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 60 {
		s.Append(id, record(r, n, 3000))
		if out, err := f.read(int64(len(s.Bytes(id)))); err != nil || out != blob.Read {
			t.Fatalf("append %d: %v, %v", n, out, err)
		}
		f.want(s.Bytes(id))
	}
	size, stats := len(s.Bytes(id)), f.reader.Stats()
	ratio := float64(stats.Bytes) / float64(size)
	t.Logf("60 appends of 3 KB: %d bytes in the blob, %d fetched: %.4f", size, stats.Bytes, ratio)
	if ratio > 1.05 || stats.Requests != 60 || stats.Retries != 0 {
		t.Errorf("ratio %.4f, want at most 1.05; %+v", ratio, stats)
	}
	want := []string{"", fmt.Sprintf("bytes=%d-", 12+f.chunks[0]-16)}
	for i, log := range s.Requests() {
		if log.Method != "GET" || log.IfMatch != "" {
			t.Errorf("request %d: %s with If-Match %q", i, log.Method, log.IfMatch)
		}
		if i < len(want) && log.Range != want[i] {
			t.Errorf("request %d: range %q, want %q", i, log.Range, want[i])
		}
	}
}

func TestOutcomes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	one, two := record(r, 1, 500), record(r, 2, 500)
	full := blobtest.Header + one + "," + two + blobtest.Footer
	end := int64(len(full) - 2)
	read := blob.Position{End: end, Tail: []byte(full[end-16 : end])}
	for _, c := range []struct {
		name     string
		pos      blob.Position
		blob     string // "" means none
		length   int64
		want     blob.Outcome
		requests int
		got      string
	}{
		{"first read", blob.Position{}, full, -1, blob.Read, 1, one + "," + two},
		{"no record yet", blob.Position{}, blobtest.Header + blobtest.Footer, -1, blob.NothingNew, 1, ""},
		{"header alone", blob.Position{}, blobtest.Header, -1, blob.NothingNew, 1, ""},
		{"half a header", blob.Position{}, `{"reco`, -1, blob.NothingNew, 1, ""},
		{"empty blob", blob.Position{}, " ", -1, blob.NothingNew, 1, ""},
		{"announced empty", blob.Position{}, full, 14, blob.NothingNew, 0, ""},
		{"announcement that came late", read, full, end + 2, blob.NothingNew, 0, ""},
		{"announcement of long ago", read, full, 20, blob.NothingNew, 0, ""},
		{"one byte more announced", read, full + " ", end + 3, blob.NothingNew, 1, ""},
		{"only the footer", read, full, -1, blob.NothingNew, 1, ""},
		{"footer not there", read, full[:end], -1, blob.NothingNew, 1, ""},
		{"footer with space", read, full[:end] + "\n ]\r\n}\n", -1, blob.NothingNew, 1, ""},
		{"other members behind", read, full[:end] + `],"version":4}`, -1, blob.NothingNew, 1, ""},
		{"one more", read, full[:end] + "," + one + "]}", -1, blob.Read, 1, "," + one},
		{"one more, spaced", read, full[:end] + "\n ,\n" + one + "\n]\n}\n", -1, blob.Read, 1, "\n ,\n" + one},
		{"one and a half more", read, full[:end] + "," + one + "," + two[:100], -1, blob.Read, 1, "," + one},
		{"half a record more", read, full[:end] + "," + two[:100], -1, blob.NothingNew, 1, ""},
		{"comma more", read, full[:end] + ",", -1, blob.NothingNew, 1, ""},
		{"gone", read, "", -1, blob.Gone, 1, ""},
		{"never there", blob.Position{}, "", -1, blob.Gone, 1, ""},
		{"much shorter: 416", read, blobtest.Header + one + blobtest.Footer, -1, blob.Rewritten, 1, ""},
		{"a byte shorter", read, full[:end-1], -1, blob.Rewritten, 1, ""},
		{"other bytes", read, strings.ReplaceAll(full, "FlowLogFlowEvent", "FlowLogFlowEvents") + "    ", -1, blob.Rewritten, 1, ""},
		{"tail not known", blob.Position{End: end}, full[:end] + "," + one + "]}", -1, blob.Read, 1, "," + one},
		{"tail not known, shorter", blob.Position{End: end}, full[:end-40], -1, blob.Rewritten, 1, ""},
		{"read to the header", blob.Position{End: 12, Tail: []byte(blobtest.Header)}, full, -1, blob.Read, 1, one + "," + two},
		{"trailing comma", blob.Position{}, blobtest.Header + one + ", ]}", -1, blob.Read, 1, one},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := blobtest.Start(t)
			s.Create(account, container)
			if c.blob == " " {
				s.Put(id, nil)
			} else if c.blob != "" {
				s.Put(id, []byte(c.blob))
			}
			f := &follower{t: t, reader: newReader(t, quick(), newStore(t, s)), id: id, pos: c.pos}
			out, err := f.read(c.length)
			if err != nil || out != c.want {
				t.Errorf("%v, %v, want %v", out, err, c.want)
			}
			if n := len(s.Requests()); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
			if diff := cmp.Diff(c.got, string(f.got)); diff != "" {
				t.Errorf("chunks (-want +got):\n%s", diff)
			}
			if got := f.reader.Stats().Outcomes[c.want]; got != 1 {
				t.Errorf("outcome counted %d times", got)
			}
		})
	}
}

func TestHeaderMayBeDressedUp(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	one := record(r, 1, 300)
	for name, head := range map[string]string{
		"mark":    "\xef\xbb\xbf" + blobtest.Header,
		"space":   "\n { \"records\" :\t[",
		"members": `{"version":4,"x":{"records":[{"a":"]"}],"y":[1,2]},"text":"\"records\":[","records":[`,
		"escaped": "{\"recor\\u0064s\":[",
		"long":    `{"pad":"` + strings.Repeat("x", 4000) + `","records":[`,
	} {
		for _, size := range []int64{1, 64, 1 << 20} {
			t.Run(fmt.Sprint(name, "/", size), func(t *testing.T) {
				s := blobtest.Start(t)
				s.Put(id, []byte(head+one+blobtest.Footer))
				cfg := quick()
				cfg.ChunkBytes = size
				f := &follower{t: t, reader: newReader(t, cfg, newStore(t, s)), id: id}
				if out, err := f.read(-1); err != nil || out != blob.Read || string(f.got) != one || f.begin != int64(len(head)) {
					t.Errorf("%v, %v: %d bytes from %d", out, err, len(f.got), f.begin)
				}
			})
		}
	}
}

func TestMalformedBlobsGiveTypedErrors(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	one := record(r, 1, 300)
	full := blobtest.Header + one + blobtest.Footer
	end := int64(len(full) - 2)
	read := blob.Position{End: end, Tail: []byte(full[end-16 : end])}
	for _, c := range []struct {
		name, blob string
		pos        blob.Position
		reason     pipeline.Reason
		offset     int64
	}{
		{"no object", `[1,2,3]`, blob.Position{}, pipeline.ReasonShape, 0},
		{"text", "hello, world", blob.Position{}, pipeline.ReasonShape, 0},
		{"no records", `{"a":1}`, blob.Position{}, pipeline.ReasonShape, 0},
		{"records is no array", `{"records":{}}`, blob.Position{}, pipeline.ReasonShape, 0},
		{"records too far away", `{"pad":"` + strings.Repeat("x", 5000) + `","records":[]}`, blob.Position{}, pipeline.ReasonShape, 0},
		{"records of numbers", `{"records":[1,2]}`, blob.Position{}, pipeline.ReasonSyntax, 12},
		{"comma first", `{"records":[,` + one + `]}`, blob.Position{}, pipeline.ReasonSyntax, 12},
		{"no comma between", full[:end] + one + "]}", read, pipeline.ReasonSyntax, end},
		{"second document behind", full + full, read, pipeline.ReasonSyntax, end},
		{"brace missing", full[:end] + "]]", read, pipeline.ReasonSyntax, end},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := blobtest.Start(t)
			s.Put(id, []byte(c.blob))
			f := &follower{t: t, reader: newReader(t, quick(), newStore(t, s)), id: id, pos: c.pos}
			_, err := f.read(-1)
			var e *blob.FormatError
			if !errors.As(err, &e) || e.Reason != c.reason || e.Offset != c.offset || e.Blob != id || len(e.Excerpt) == 0 {
				t.Fatalf("%v (%+v)", err, e)
			}
			if len(f.got) > 0 || !strings.Contains(err.Error(), id.String()) {
				t.Errorf("%d bytes emitted; %v", len(f.got), err)
			}
		})
	}
}

// A writer that goes on behind the footer is reported after the records before it.
func TestBytesBehindTheArrayAreReported(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 9))
	one := record(r, 1, 300)
	s := blobtest.Start(t)
	s.Put(id, []byte(blobtest.Header+one+"]}"+blobtest.Header+one+"]} trailer"))
	f := &follower{t: t, reader: newReader(t, quick(), newStore(t, s)), id: id}
	out, err := f.read(-1)
	var e *blob.FormatError
	if out != blob.Read || !errors.As(err, &e) || string(f.got) != one || e.Offset != int64(12+len(one)) {
		t.Errorf("%v, %v, %d bytes", out, err, len(f.got))
	}
}

func TestLargeRecordsGrowTheChunkUpToTheLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	s := blobtest.Start(t)
	s.Append(id, record(r, 1, 300), record(r, 2, 5000), record(r, 3, 300), record(r, 4, 20_000), record(r, 5, 100))
	cfg := quick()
	cfg.ChunkBytes, cfg.MaxRecordBytes = 1000, 24_000
	f := &follower{t: t, reader: newReader(t, cfg, newStore(t, s)), id: id}
	if out, err := f.read(-1); err != nil || out != blob.Read {
		t.Fatalf("%v, %v", out, err)
	}
	f.want(s.Bytes(id))

	at := f.pos.End
	s.Append(id, record(r, 6, 300), record(r, 7, 30_000), record(r, 8, 300))
	out, err := f.read(-1)
	var e *blob.FormatError
	if out != blob.Read || !errors.As(err, &e) || e.Reason != pipeline.ReasonLimit || e.Offset <= at || e.Offset != f.pos.End {
		t.Errorf("%v, %v (%+v), position %d", out, err, e, f.pos.End)
	}
}

func TestEmitErrorEndsTheRead(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	s := blobtest.Start(t)
	s.Append(id, record(r, 1, 300), record(r, 2, 300), record(r, 3, 300))
	cfg := quick()
	cfg.ChunkBytes = 500
	reader := newReader(t, cfg, newStore(t, s))
	full := errors.New("the receiver is full")
	lent, n := &budget{t: t}, 0
	_, err := reader.ReadNew(t.Context(), id, blob.Position{}, -1, lent, func(c blob.Chunk) error {
		lent.passed(c.Reserved)
		n++
		return full
	})
	if !errors.Is(err, full) || n != 1 || lent.lent != 0 {
		t.Errorf("%v after %d chunks, %d bytes lent", err, n, lent.lent)
	}
}

func TestReadRange(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	s := blobtest.Start(t)
	s.Append(id, record(r, 1, 3000))
	data := s.Bytes(id)
	reader := newReader(t, quick(), newStore(t, s))
	for _, c := range []struct{ offset, length int64 }{{0, 12}, {12, 100}, {0, int64(len(data))}, {int64(len(data)) - 1, 1}, {5, 0}} {
		got, err := reader.ReadRange(t.Context(), id, c.offset, c.length)
		if err != nil || string(got) != string(data[c.offset:c.offset+c.length]) {
			t.Errorf("%d bytes at %d: %d bytes, %v", c.length, c.offset, len(got), err)
		}
	}
	for _, c := range []struct{ offset, length int64 }{{int64(len(data)), 1}, {10, int64(len(data))}, {1 << 40, 5}} {
		if got, err := reader.ReadRange(t.Context(), id, c.offset, c.length); !errors.Is(err, blob.ErrShort) || got != nil {
			t.Errorf("%d bytes at %d: %d bytes, %v, want ErrShort", c.length, c.offset, len(got), err)
		}
	}
	if _, err := reader.ReadRange(t.Context(), id, -1, 5); err == nil {
		t.Error("a negative offset")
	}
	s.Faults("get", &blobtest.Fault{Cut: true, CutAfter: 7}, &blobtest.Fault{Status: 500})
	if got, err := reader.ReadRange(t.Context(), id, 3, 50); err != nil || string(got) != string(data[3:53]) {
		t.Errorf("over a cut body: %q, %v", got, err)
	}
	s.Faults("get", &blobtest.Fault{Cut: true, CutAfter: 7, During: func() { s.Append(id, record(r, 2, 10)) }})
	if got, err := reader.ReadRange(t.Context(), id, 3, 50); err != nil || string(got) != string(data[3:53]) {
		t.Errorf("while the blob grows: %q, %v", got, err)
	}
	s.Delete(id)
	if _, err := reader.ReadRange(t.Context(), id, 0, 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that is gone: %v", err)
	}
}
