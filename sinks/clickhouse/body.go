package clickhouse

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
)

// recordBody is the body of a request: an IPC stream of one record batch.
//
// It implements io.WriterTo, which net/http prefers over Read for HTTP/1.1: the
// columns' buffers go to the socket as they are, with no copy and no goroutine of
// ours in between: 17 ms of this process's CPU for 500,000 flow rows (68 MB)
// against 28 ms through a pipe, and no buffer of the whole. Read is there for the
// interface only. Delete this for a pipe should net/http stop asking for WriteTo.
type recordBody struct {
	record  arrow.Record
	written chan struct{} // closed when WriteTo returned
	err     error         // of WriteTo; read after written was closed

	mu       sync.Mutex
	started  bool
	finished bool
}

func newBody(record arrow.Record, written chan struct{}) *recordBody {
	return &recordBody{record: record, written: written}
}

var errBodyOver = errors.New("the request is over")

// WriteTo writes the stream, once.
func (b *recordBody) WriteTo(w io.Writer) (int64, error) {
	b.mu.Lock()
	if b.started || b.finished {
		b.mu.Unlock()
		return 0, errBodyOver
	}
	b.started = true
	b.mu.Unlock()
	defer close(b.written)
	counted := &countingWriter{w: w}
	b.err = writeStream(counted, b.record)
	return counted.n, b.err
}

// finish waits until nobody writes the record any more, and lets nobody begin.
func (b *recordBody) finish() {
	b.mu.Lock()
	b.finished = true
	started := b.started
	b.mu.Unlock()
	if started {
		<-b.written
	}
}

// Read is never called by a transport that knows io.WriterTo.
func (b *recordBody) Read([]byte) (int, error) {
	return 0, errors.New("BUG: a body that only writes itself was read")
}

// Close does nothing: finish does what there is to do.
func (b *recordBody) Close() error { return nil }

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeStream writes an IPC stream of exactly one record batch. Small pieces of
// metadata and padding are gathered; long buffers pass through uncopied.
func writeStream(w io.Writer, record arrow.Record) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	stream := ipc.NewWriter(buffered, ipc.WithSchema(record.Schema()))
	if err := stream.Write(record); err != nil {
		_ = stream.Close() // The first error tells more.
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}
