package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/millrace/millrace/pipeline"
)

// Sizes of a Reader's buffer.
const (
	// chunkBytes are decoded at a time: about what stays in a core's own cache.
	chunkBytes = 1 << 20
	// maxRecordBytes is the longest record that a Reader takes: its buffer grows up to
	// here and no further. Longer ones are refused with limit_exceeded.
	maxRecordBytes = 64 << 20
	// maxEmptyReads in a row end an input that gives neither bytes nor an error.
	maxEmptyReads = 100
)

// Reader streams a file of flow logs of any size through a Batch, in constant
// memory. It takes a whole PT1H.json with or without unknown members around
// records, a region cut out of one, a bare array, and bare records one after the
// other; plain or gzip.
type Reader struct {
	in     io.Reader
	rng    Range // Offset is that of buf[start] in the inflated file
	buf    []byte
	start  int
	end    int
	max    int // bytes that buf may grow to
	ended  bool
	err    error // why the input ended; io.EOF when it is complete
	state  readState
	begun  bool // a BOM may no longer come
	inside bool // of a {"records":[...]} or [...] that must be closed
	bare   bool // of [...]
}

type readState uint8

const (
	atStart    readState = iota // before a file's first bracket
	atRecords                   // in the records array
	atEpilogue                  // behind the records array, before the closing brace
)

// NewReader starts reading a file. r gives what Range needs: the blob's name,
// bounds of time, and the offset of the first byte (0 for a whole file). Offsets of
// rows and rejects are those in the inflated file.
//
// Errors: of the first read, and of a broken gzip header.
func NewReader(in io.Reader, r Range) (*Reader, error) {
	plain, err := inflate(in)
	if err != nil {
		return nil, err
	}
	return &Reader{in: plain, rng: r, max: maxRecordBytes}, nil
}

// Offset is how far the reader has come in the inflated file.
func (r *Reader) Offset() int64 { return r.rng.Offset }

// Next decodes the next records, at most as many as fit in the buffer, into the
// batch. At the end it gives io.EOF, together with the last rejects.
//
// Errors: those of reading. What was read before them has been decoded.
func (r *Reader) Next(b *Batch) (Result, error) {
	for {
		if r.start == r.end && !r.fill() {
			return r.finish()
		}
		switch r.state {
		case atStart:
			r.open()
		case atEpilogue:
			r.epilogue()
		case atRecords:
			if res, ok := r.records(b); ok {
				return res, nil
			}
		}
	}
}

// finish is called when nothing is left: a records array that was opened must
// have been closed.
func (r *Reader) finish() (Result, error) {
	var res Result
	if r.inside && errors.Is(r.err, io.EOF) {
		res.add(pipeline.Reject{
			Reason: pipeline.ReasonTruncated, Scope: "range", Offset: r.rng.Offset,
			Detail: "the file ends before its records array does",
		}, r.rng.Offset)
		r.inside = false
	}
	return res, r.err
}

func (res *Result) add(rej pipeline.Reject, at int64) {
	res.Rejects = append(res.Rejects, rej)
	res.RejectAt = append(res.RejectAt, at)
}

func (r *Reader) unread() []byte { return r.buf[r.start:r.end] }

func (r *Reader) advance(n int) {
	r.start += n
	r.rng.Offset += int64(n)
}

// full says that no more bytes can be had for what stands in the buffer.
func (r *Reader) full() bool { return r.ended || r.end-r.start >= r.max }

// fill reads more bytes behind the unread ones, as many as fit, and says whether
// anything is unread now.
func (r *Reader) fill() bool {
	if r.full() {
		return false
	}
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.end = 0, r.end-r.start
	}
	if r.end == len(r.buf) {
		grown := make([]byte, min(max(chunkBytes, 2*len(r.buf)), r.max))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
	for empty := 0; !r.ended && r.end < len(r.buf); {
		n, err := r.in.Read(r.buf[r.end:])
		r.end += n
		if empty++; n > 0 {
			empty = 0
		}
		if err == nil && empty == maxEmptyReads {
			err = io.ErrNoProgress
		}
		if err != nil {
			r.ended, r.err = true, err
		}
	}
	return r.end > r.start
}

// records decodes the whole records in the buffer. ok is false when nothing came
// of it and the loop goes on.
func (r *Reader) records(b *Batch) (res Result, ok bool) {
	res, n, how := b.decodeWhole(r.rng, r.unread())
	r.advance(n)
	switch {
	case how == isClosed:
		r.advance(1)
		r.closed()
		return res, true
	case how == isStray:
		res.add(r.rest(pipeline.ReasonSyntax, "a bracket closes what was not opened"))
		return res, true
	case n > 0 || len(r.unread()) == 0:
		return res, true
	case !r.full():
		r.fill()
		return res, false
	case r.ended:
		res = b.Decode(r.rng, r.unread())
		r.inside = r.inside && len(res.Rejects) == 0 // one reject says it
		r.advance(len(r.unread()))
		return res, true
	}
	return r.skipRecord(), true
}

// closed goes on behind the records array.
func (r *Reader) closed() {
	r.state = atEpilogue
	if r.bare {
		r.inside, r.state = false, atStart
	}
}

// rest refuses everything up to the end of the file.
func (r *Reader) rest(reason pipeline.Reason, detail string) (pipeline.Reject, int64) {
	rej := pipeline.Reject{
		Reason: reason, Detail: detail, Scope: "range", Offset: r.rng.Offset, Excerpt: excerpt(r.unread()),
	}
	for r.advance(len(r.unread())); r.fill(); r.advance(len(r.unread())) {
	}
	r.inside = false
	rej.Length = r.rng.Offset - rej.Offset
	return rej, rej.Offset
}

// skipRecord passes over a record that is too long for the buffer.
func (r *Reader) skipRecord() Result {
	rej := pipeline.Reject{
		Reason: pipeline.ReasonLimit, Scope: "range", Offset: r.rng.Offset, Excerpt: excerpt(r.unread()),
		Detail: fmt.Sprintf("record longer than %d bytes", r.max),
	}
	f := framer{scalar: !bytes.ContainsAny(r.unread()[:1], `{["`)}
	for done := false; !done; {
		var n int
		n, done = f.feed(r.unread())
		if r.advance(n); done {
			rej.Scope = "record"
		} else if !r.fill() {
			r.inside = false // one reject says it
			break
		}
	}
	rej.Length = r.rng.Offset - rej.Offset
	var res Result
	res.add(rej, rej.Offset)
	return res
}

// framer finds the end of a value that comes in parts, as frame does.
type framer struct {
	depth            int
	inString, escape bool
	scalar           bool // a number or a literal: ends before a delimiter
}

// feed takes the next part and says how much of it belongs to the value.
func (f *framer) feed(data []byte) (n int, done bool) {
	for i, c := range data {
		switch {
		case f.scalar:
			if delimits[c] {
				return i, true
			}
			continue
		case f.escape:
			f.escape = false
		case f.inString:
			f.escape = c == '\\'
			f.inString = c != '"'
		case c == '"':
			f.inString = true
		case c == '{' || c == '[':
			f.depth++
		case c == '}' || c == ']':
			f.depth--
		}
		if f.depth <= 0 && !f.inString && !f.escape {
			return i + 1, true
		}
	}
	return len(data), false
}

// open looks at what a file begins with and goes into its records array, or
// leaves everything to the records.
func (r *Reader) open() {
	if !r.begun && bytes.HasPrefix(r.unread(), []byte(bom)) {
		r.advance(len(bom))
	}
	r.begun = true
	data := r.unread()
	p := space(data, 0)
	if p == len(data) {
		r.advance(p)
		return
	}
	switch data[p] {
	case '[':
		r.advance(p + 1)
		r.inside, r.bare, r.state = true, true, atRecords
	case '{':
		r.openObject(p)
	default:
		r.state = atRecords
	}
}

// openObject tells {"records":[...]} from a bare record: the first of their
// members that comes decides.
func (r *Reader) openObject(p int) {
	for {
		data := r.unread()
		n, found, more := recordsMember(data, p+1)
		switch {
		case found:
			r.advance(n)
			r.inside, r.bare, r.state = true, false, atRecords
			return
		case more && !r.full():
			r.fill()
		default:
			r.state = atRecords
			return
		}
	}
}

// recordsMember walks over an object's members from data[p] on. found: the member
// records is an array and data[n] is behind its bracket. more: data ends before
// that can be known.
func recordsMember(data []byte, p int) (n int, found, more bool) {
	for {
		key, value, ok, short := member(data, p)
		if !ok {
			return 0, false, short
		}
		switch string(key) {
		case "records":
			if data[value] == '[' {
				return value + 1, true, false
			}
		case "category", "flowRecords", "properties":
			return 0, false, false
		}
		if p, _, ok = frame(data, value); !ok || p == len(data) {
			return 0, false, true
		}
		if p = space(data, p); p < len(data) && data[p] == ',' {
			p++
		}
	}
}

// member reads `"key" : ` at data[p] and gives where the value begins. short: data
// ends too early to say.
func member(data []byte, p int) (key []byte, value int, ok, short bool) {
	if p = space(data, p); p == len(data) {
		return nil, 0, false, true
	}
	if data[p] != '"' {
		return nil, 0, false, false
	}
	q := stringEnd(data, p)
	if q < 0 {
		return nil, 0, false, true
	}
	key = data[p+1 : q-1]
	if p = space(data, q); p == len(data) {
		return nil, 0, false, true
	}
	if data[p] != ':' {
		return nil, 0, false, false
	}
	if p = space(data, p+1); p == len(data) {
		return nil, 0, false, true
	}
	return key, p, true, false
}

// epilogue passes over what follows the records array up to the closing brace;
// then another file may begin.
func (r *Reader) epilogue() {
	data := r.unread()
	p := space(data, 0)
	if p == len(data) {
		r.advance(p)
		return
	}
	if data[p] == '}' {
		r.advance(p + 1)
		r.inside, r.state = false, atStart
		return
	}
	if data[p] == ',' {
		_, value, ok, short := member(data, p+1)
		if ok {
			var end int
			end, _, ok = frame(data, value)
			short = !ok || end == len(data)
			value = end
		}
		if short && !r.full() {
			r.fill()
			return
		}
		if ok {
			r.advance(value)
			return
		}
	}
	r.inside, r.state = false, atStart
}
