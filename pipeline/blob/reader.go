package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// Config of a Reader.
type Config struct {
	// Split cuts records; required.
	Split Split
	// ChunkBytes is the largest chunk while every record fits into one. Default
	// 8 MiB, at least 1 byte.
	ChunkBytes int64
	// MaxRecordBytes is the largest record: a chunk grows up to it. Default 64 MiB,
	// at least ChunkBytes. The budget must have room for it.
	MaxRecordBytes int64
	// MaxTries is how many requests in a row may go wrong without a byte of progress.
	// Default 6, at least 1.
	MaxTries int
	// BackoffMin and BackoffMax bound the wait before the second and a late request.
	// Default 200 ms and 10 s.
	BackoffMin, BackoffMax time.Duration
	// RetryAfterMax bounds what a store may ask to wait. Default 60 s.
	RetryAfterMax time.Duration
	// Idle is how long a request may go without a byte: there is no limit on the
	// whole. Default 30 s.
	Idle time.Duration
}

// DefaultConfig gives the defaults around split.
func DefaultConfig(split Split) Config {
	return Config{
		Split:          split,
		ChunkBytes:     8 << 20,
		MaxRecordBytes: 64 << 20,
		MaxTries:       6,
		BackoffMin:     200 * time.Millisecond,
		BackoffMax:     10 * time.Second,
		RetryAfterMax:  time.Minute,
		Idle:           30 * time.Second,
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("blob reader: "+format, args...))
		}
	}
	check(c.Split != nil, "no function to split records")
	check(c.ChunkBytes > 0, "chunk of %d bytes, want at least 1", c.ChunkBytes)
	check(c.MaxRecordBytes >= c.ChunkBytes, "record limit of %d bytes is less than a chunk of %d", c.MaxRecordBytes, c.ChunkBytes)
	check(c.MaxTries > 0, "%d tries, want at least 1", c.MaxTries)
	check(c.BackoffMin > 0 && c.BackoffMax >= c.BackoffMin, "back-off from %s to %s", c.BackoffMin, c.BackoffMax)
	check(c.RetryAfterMax > 0, "longest wait of %s, want more than 0", c.RetryAfterMax)
	check(c.Idle > 0, "idle limit of %s, want more than 0", c.Idle)
	return errors.Join(faults...)
}

// Reader reads blobs of one store. Many goroutines may use it, one blob each.
type Reader struct {
	cfg   Config
	store Store
	count counters
}

// New checks the configuration. It does no I/O.
func New(cfg Config, store Store) (*Reader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if store == nil {
		return nil, errors.New("blob reader: no store")
	}
	return &Reader{cfg: cfg, store: store}, nil
}

// ReadNew reads the whole records behind pos and hands them to emit in order,
// each byte once. contentLength is what an announcement said, -1 when unknown: if
// it promises no record behind pos there is no request.
//
// Chunks are as long as Config.ChunkBytes allows and follow each other without a
// gap: a chunk begins where the one before it ended, the first at pos.End or, in a
// blob never read, behind the header. The caller's next position is the end and
// tail of the last chunk it took. Data and Reserved belong to the receiver, also
// when emit gives an error. The outcome Gone or Rewritten may follow chunks that
// were emitted: the blob changed while it was read.
//
// Errors: *FormatError for bytes that cannot be cut into records, after the chunks
// before them; an error matching pipeline.ErrTransient when all tries were used
// up; any other *Error is fatal; errors of emit, the budget and ctx as they are.
func (r *Reader) ReadNew(ctx context.Context, id pipeline.BlobID, pos Position, contentLength int64,
	budget Budget, emit func(Chunk) error,
) (Outcome, error) {
	if contentLength >= 0 && contentLength <= max(pos.End, int64(len(header)))+footerBytes {
		r.count.outcomes[NothingNew].Add(1)
		return NothingNew, nil
	}
	p := pass{reader: r, id: id, pos: pos, budget: budget, emit: emit, size: r.cfg.ChunkBytes}
	out, err := p.run(ctx)
	if err != nil {
		r.count.failures.Add(1)
		return out, err
	}
	r.count.outcomes[out].Add(1)
	return out, nil
}

// ReadRange reads exactly length bytes from offset on, for replay and evidence.
// The memory is not taken from a budget.
//
// Errors: fs.ErrNotExist when the blob is gone, ErrShort when it ends before the
// range does; otherwise as ReadNew.
func (r *Reader) ReadRange(ctx context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error) {
	if offset < 0 || length < 0 {
		return nil, fmt.Errorf("read blob %q: range of %d bytes at byte %d", id, length, offset)
	}
	if length == 0 {
		return nil, nil
	}
	data := make([]byte, length)
	for restart := 0; ; restart++ {
		err := r.readRange(ctx, id, offset, data)
		switch {
		case err == nil:
			return data, nil
		case kindOf(err) != KindChanged || restart >= r.cfg.MaxTries:
			return nil, err
		}
	}
}

func (r *Reader) readRange(ctx context.Context, id pipeline.BlobID, offset int64, data []byte) error {
	s, err := r.open(ctx, id, offset, int64(len(data)))
	if err != nil {
		if kindOf(err) == KindOutOfRange {
			return fmt.Errorf("read blob %q at byte %d: %w", id, offset, ErrShort)
		}
		return err
	}
	defer s.close()
	if s.total < offset+int64(len(data)) {
		return fmt.Errorf("read blob %q: it has %d bytes, the range ends at byte %d: %w", id, s.total, offset+int64(len(data)), ErrShort)
	}
	return s.fill(ctx, data)
}

// pass is one call of ReadNew.
type pass struct {
	reader  *Reader
	id      pipeline.BlobID
	pos     Position // moves with each chunk
	budget  Budget
	emit    func(Chunk) error
	size    int64 // of a chunk: grows when a record does not fit, and stays so
	emitted bool
}

// errGrow: no record fits into the chunk; read again from the position with a
// larger one. The bytes are fetched twice, so that nothing waits for budget while
// it holds some; records of that size are rare.
var errGrow = errors.New("chunk too small")

func (p *pass) run(ctx context.Context) (Outcome, error) {
	for restarts, from := 0, p.pos.End; ; {
		out, err := p.read(ctx)
		switch {
		case errors.Is(err, errGrow):
			continue
		case kindOf(err) == KindChanged:
			// The body broke off, and the blob had grown before it could be resumed. The
			// bytes before the position are still compared, so beginning again is safe.
			if restarts++; p.pos.End > from {
				restarts, from = 0, p.pos.End
			}
			if restarts < p.reader.cfg.MaxTries {
				p.reader.count.restarts.Add(1)
				continue
			}
			return out, err
		case kindOf(err) == KindMissing:
			return Gone, nil
		}
		return out, err
	}
}

// read makes one request from the position to the end of the blob and emits what
// is whole.
func (p *pass) read(ctx context.Context) (Outcome, error) {
	tail := p.pos.Tail
	if p.pos.End == 0 {
		tail = nil
	}
	s, err := p.reader.open(ctx, p.id, p.pos.End-int64(len(tail)), 0)
	if err != nil {
		if kindOf(err) == KindOutOfRange {
			return p.behindTheEnd(), nil
		}
		return p.outcome(), err
	}
	defer s.close()
	if s.total < p.pos.End {
		return Rewritten, nil
	}
	overlap := make([]byte, len(tail))
	if err := s.fill(ctx, overlap); err != nil {
		return p.outcome(), err
	}
	if !bytes.Equal(overlap, tail) && !mutant.On(mutant.TailUnchecked) {
		return Rewritten, nil
	}
	var carry []byte
	for fresh := true; ; fresh = false {
		var more bool
		if carry, more, err = p.chunk(ctx, s, carry, fresh); err != nil || !more {
			return p.outcome(), err
		}
	}
}

func (p *pass) outcome() Outcome {
	if p.emitted {
		return Read
	}
	return NothingNew
}

// behindTheEnd: the range begins at or behind the blob's end. A blob without a
// byte is one that was just created; any other was cut or written anew.
func (p *pass) behindTheEnd() Outcome {
	if p.pos.End == 0 {
		return NothingNew
	}
	return Rewritten
}

// chunk fills one buffer and emits its whole records. It gives back the bytes
// behind the last of them and whether more are to come.
func (p *pass) chunk(ctx context.Context, s *stream, carry []byte, fresh bool) (rest []byte, more bool, err error) {
	size := min(max(p.size, 2*int64(len(carry))), p.most(), int64(len(carry))+s.left())
	if size == 0 {
		return nil, false, nil
	}
	if err := p.budget.Acquire(ctx, size); err != nil {
		return nil, false, err
	}
	held := size
	defer func() { p.budget.Release(held) }()
	buf := make([]byte, size)
	if err := s.fill(ctx, buf[copy(buf, carry):]); err != nil {
		return nil, false, err
	}
	base, whole := s.at-size, s.left() == 0
	start := 0
	if fresh {
		var ok bool
		if start, ok, err = p.start(buf, whole); err != nil || !ok {
			return nil, false, err
		}
	}
	region := buf[start:]
	end, closed := p.cut(region, whole)
	if end == 0 && !closed && !whole {
		return nil, false, p.grow(base+int64(start), region)
	}
	// What is behind the records, little in nearly all cases, leaves the buffer: the
	// receiver may drop it as soon as it is emitted.
	rest = bytes.Clone(region[end:])
	if end > 0 {
		held = 0
		c := Chunk{
			Offset: base + int64(start), Data: region[:end:end],
			Tail: nextTail(p.pos.Tail, buf[:start+end]), Reserved: size,
		}
		if err := p.give(c); err != nil {
			return nil, false, err
		}
	}
	if closed && !footer(rest) {
		return nil, false, formatError(p.id, p.pos.End, rest, pipeline.ReasonSyntax, "bytes behind the end of the records array")
	}
	return rest, !closed && !whole, nil
}

func (p *pass) give(c Chunk) error {
	p.pos.End, p.pos.Tail = c.End(), c.Tail
	p.emitted = true
	p.reader.count.chunks.Add(1)
	p.reader.count.chunkBytes.Add(int64(len(c.Data)))
	return p.emit(c)
}

// start finds where the region begins in the first buffer behind the position. ok
// is false when there is nothing to take.
func (p *pass) start(buf []byte, whole bool) (start int, ok bool, err error) {
	want := byte(',')
	if p.pos.End == 0 {
		var reason string
		start, ok, reason = findHeader(buf)
		switch {
		case reason != "":
			return 0, false, formatError(p.id, 0, buf, pipeline.ReasonShape, reason)
		case !ok && whole:
			return 0, false, nil
		case !ok:
			return 0, false, p.grow(0, buf)
		}
		want = '{'
	} else if bytes.HasSuffix(p.pos.Tail, []byte("[")) {
		want = '{'
	}
	base := p.pos.End + int64(start)
	switch region := buf[start:]; begin(region) {
	case want, 0:
		return start, true, nil
	case ']':
		if footer(region) {
			return 0, false, nil
		}
		return 0, false, formatError(p.id, base, region, pipeline.ReasonSyntax, "bytes behind the end of the records array")
	default:
		return 0, false, formatError(p.id, base, region, pipeline.ReasonSyntax,
			fmt.Sprintf("the next record does not begin with %q", want))
	}
}

// cut finds the end of the last whole record.
func (p *pass) cut(region []byte, whole bool) (end int, closed bool) {
	if whole {
		if end, closed = closedBy(region); closed {
			return end, true
		}
	}
	end, closed = p.reader.cfg.Split(region)
	if end < 0 || end > len(region) {
		panic(fmt.Sprintf("BUG: split gives end %d of %d bytes", end, len(region)))
	}
	// What stands between the last record and the bracket belongs to the footer: the
	// next record will be written in front of it.
	return len(bytes.TrimRight(region[:end], space+",")), closed
}

// grow asks for a larger buffer, up to the limit.
func (p *pass) grow(offset int64, region []byte) error {
	if int64(len(region)) >= p.reader.cfg.MaxRecordBytes {
		return formatError(p.id, offset, region, pipeline.ReasonLimit,
			fmt.Sprintf("a record has more than %d bytes", p.reader.cfg.MaxRecordBytes))
	}
	p.size = min(2*max(p.size, int64(len(region))), p.most())
	return errGrow
}

// most is the largest buffer: a record at the limit behind a header at its limit.
func (p *pass) most() int64 {
	return p.reader.cfg.MaxRecordBytes + headerLimit + int64(len(byteOrderMark))
}
