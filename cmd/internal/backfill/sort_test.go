package backfill

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// oneBlob is a Reader of one blob; "" is none.
type oneBlob struct {
	engine.Reader
	text string
	err  error
}

func (m oneBlob) ReadRange(_ context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error) {
	switch {
	case m.err != nil:
		return nil, m.err
	case m.text == "":
		return nil, fs.ErrNotExist
	case offset+length > int64(len(m.text)):
		return nil, fmt.Errorf("%q: %w", id, blob.ErrShort)
	}
	return []byte(m.text[offset : offset+length]), nil
}

func (m oneBlob) ReadNew(context.Context, pipeline.BlobID, blob.Position, int64, blob.Budget, func(blob.Chunk) error) (blob.Outcome, error) {
	return blob.NothingNew, m.err
}

// What becomes of a blob of which a part has landed.
func TestJudge(t *testing.T) {
	const text = `{"records":[{"first":1111111111},{"second":2222},{"third":3333}]}`
	at := func(part string) int64 { return int64(strings.Index(text, part)) }
	unit := func(part string) Span { return Span{0, at(part), int64(len(part)), hash([]byte(part))} }
	first, second, third := unit(`{"first":1111111111}`), unit(`,{"second":2222}`), unit(`,{"third":3333}`)
	from := func(generation uint32, s Span) *pipeline.Progress {
		return &pipeline.Progress{Generation: generation, End: s.End(), Tail: hex.EncodeToString([]byte(text[max(s.Offset, s.End()-16):s.End()]))}
	}
	other := second
	other.Hash = hash([]byte("something else"))
	for name, c := range map[string]struct {
		text   string
		spans  []Span
		fate   Fate
		from   *pipeline.Progress
		writes bool
	}{
		"nothing landed":            {text, nil, Todo, nil, false},
		"all landed":                {text, []Span{first, second, third}, Landed, nil, false},
		"a part landed":             {text, []Span{first, second}, Todo, from(0, second), false},
		"the footer has more space": {strings.Replace(text, "]}", " \n ]\n}\n", 1), []Span{first, second, third}, Landed, nil, false},
		"the last unit differs":     {text, []Span{first, other}, Todo, &pipeline.Progress{Generation: 1}, true},
		"the blob is shorter now":   {text[:40] + "]}", []Span{first, second}, Todo, &pipeline.Progress{Generation: 1}, true},
		"the first unit is missing": {text, []Span{second}, Uncertain, nil, false},
		"a unit is missing":         {text, []Span{first, third}, Uncertain, nil, false},
		"the blob is gone":          {"", []Span{first}, Gone, nil, false},
		"a long header":             {` { "records" : [ ` + text[12:], []Span{shift(first, 5), shift(second, 5)}, Todo, nil, false},
	} {
		b := &Backfill{Deps: Deps{Reader: oneBlob{text: c.text}}}
		f := found{Blob: listing.Blob{Size: int64(len(c.text))}}
		if c.text == "" {
			f.Size = 1000
		}
		if err := b.judge(t.Context(), &f, cover(c.spans), Last{}, false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "a long header" {
			if f.from == nil || f.from.End != second.End()+5 {
				t.Errorf("%s: from %+v", name, f.from)
			}
			f.from = nil
		}
		if f.fate != c.fate || f.rewritten != c.writes || !cmp.Equal(f.from, c.from) {
			t.Errorf("%s: fate %q, rewritten %v, from %+v; want %q, %v, %+v", name, f.fate, f.rewritten, f.from, c.fate, c.writes, c.from)
		}
	}
	b := &Backfill{Deps: Deps{Reader: oneBlob{text: text}}}
	f := found{Blob: listing.Blob{Size: int64(len(text))}}
	if err := b.judge(t.Context(), &f, cover([]Span{first}), Last{Offset: first.End() + 1}, true); err != nil || f.fate != Uncertain {
		t.Errorf("rows behind what is known: %q, %v", f.fate, err)
	}
	b.Reader = oneBlob{err: errors.New("refused")}
	if err := b.judge(t.Context(), &f, cover([]Span{first}), Last{}, false); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a blob that cannot be read: %v", err)
	}
}

func shift(s Span, by int64) Span {
	s.Offset += by
	return s
}

// A blob that cannot be read is tried a few times and then given up, so that the
// others land; one that is malformed is the engine's.
func TestReaderGivesUp(t *testing.T) {
	refused := errors.New("refused")
	r := &reader{Reader: oneBlob{err: refused}, failed: map[pipeline.BlobID]failure{}}
	id := pipeline.BlobID{Account: "a", Container: "c", Path: "p"}
	read := func() (blob.Outcome, error) { return r.ReadNew(t.Context(), id, blob.Position{}, -1, nil, nil) }
	for range patience - 1 {
		if _, err := read(); !errors.Is(err, refused) {
			t.Fatalf("error %v", err)
		}
	}
	if out, err := read(); out != blob.NothingNew || err != nil {
		t.Errorf("the last try gives %v, %v", out, err)
	}
	if got := r.failures(); len(got) != 1 || !errors.Is(got[id.String()], refused) {
		t.Errorf("failures %v", got)
	}
	r.Reader = oneBlob{}
	if _, err := read(); err != nil || len(r.failures()) != 0 {
		t.Errorf("it can be read again: %v, %v", err, r.failures())
	}
	malformed := &blob.FormatError{}
	r.Reader = oneBlob{err: malformed}
	for range patience + 1 {
		if _, err := read(); !errors.Is(err, malformed) || len(r.failures()) != 0 {
			t.Errorf("a malformed blob: %v, %v", err, r.failures())
		}
	}
}
