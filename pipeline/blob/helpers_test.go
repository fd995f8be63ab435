package blob_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/secret"
)

const (
	account   = "flowlogs"
	container = "insights-logs-flowlogflowevent"
	path      = "flowLogResourceID=/SUB_NETWORKWATCHERRG/NETWORKWATCHER_WESTUS_LOG/y=2026/m=11/d=23/h=06/m=00/macAddress=000D3A1B2C3D/PT1H.json"
)

var id = pipeline.BlobID{Account: account, Container: container, Path: path}

// canaries are the secrets of the tests: no output may hold one.
const (
	canarySig = "CANARY+signature/of=the=SAS"
	canarySAS = "sv=2025-01-05&sp=rl&sig=CANARY%2Bsignature%2Fof%3Dthe%3DSAS"
	canaryKey = "Q0FOQVJZIGtleSBvZiB0aGUgYWNjb3VudA=="
)

// split is a plain stand-in for the decoder's function: it counts brackets and
// skips texts.
func split(data []byte) (end int, closed bool) {
	depth, inText := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			depth++
		case c == ']' && depth == 0:
			return end, true
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				end = i + 1
			}
		}
	}
	return end, false
}

// record makes a flow record of at least size bytes, with texts that look like
// structure.
func record(r *rand.Rand, n, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"time":"2026-11-23T06:%02d:00.0000000Z","odd":"]}, \" {[ %d","category":"FlowLogFlowEvent",`, n%60, n)
	b.WriteString(`"flowRecords":{"flows":[{"aclID":"00000000-1234-abcd-ef00-c1c2c3c4c5c6","flowGroups":[{"rule":"DefaultRule_AllowInternetOutBound","flowTuples":[`)
	for i := 0; i == 0 || b.Len() < size-10; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"1669183%06d,10.0.0.6,52.239.184.180,%d,443,6,O,C,NX,%d,%d,9,3000"`, r.IntN(1e6), r.IntN(65536), n, i)
	}
	b.WriteString(`]}]}]}}`)
	return b.String()
}

// newStore connects to the server over the loopback.
func newStore(t testing.TB, s *blobtest.Server) *blob.AzureStore {
	t.Helper()
	store, err := blob.NewAzureStore([]blob.AccountConfig{{
		Name: account, Endpoint: s.Endpoint(account), SAS: secret.New(canarySAS),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// quick is a configuration whose waits do not slow tests down.
func quick() blob.Config {
	cfg := blob.DefaultConfig(split)
	cfg.BackoffMin, cfg.BackoffMax, cfg.RetryAfterMax = time.Microsecond, time.Millisecond, time.Millisecond
	return cfg
}

func newReader(t testing.TB, cfg blob.Config, store blob.Store) *blob.Reader {
	t.Helper()
	r, err := blob.New(cfg, store)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// budget counts what is lent, and fails the test when it is asked for more while
// the reader holds some.
type budget struct {
	t    testing.TB
	mu   sync.Mutex
	held int64 // by the reader
	lent int64 // in all, and not given back
}

func (b *budget) Acquire(_ context.Context, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held != 0 {
		b.t.Errorf("asked for %d bytes while %d are held", n, b.held)
	}
	if n <= 0 {
		b.t.Errorf("asked for %d bytes", n)
	}
	b.held += n
	b.lent += n
	return nil
}

func (b *budget) Release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	b.lent -= n
}

// passed moves a chunk's share to the receiver, who gives it back.
func (b *budget) passed(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	b.lent -= n
}

// follower reads one blob again and again, as a pipeline does, and keeps what it
// got.
type follower struct {
	t      testing.TB
	reader *blob.Reader
	id     pipeline.BlobID
	pos    blob.Position
	got    []byte // of this generation
	begin  int64  // offset of got[0]
	chunks []int
}

// read makes one call of ReadNew and checks each chunk: no gap, whole records,
// the right tail, the budget balanced. After Rewritten it begins anew.
func (f *follower) read(contentLength int64) (blob.Outcome, error) {
	f.t.Helper()
	lent := &budget{t: f.t}
	out, err := f.reader.ReadNew(f.t.Context(), f.id, f.pos, contentLength, lent, func(c blob.Chunk) error {
		lent.passed(c.Reserved)
		f.take(c)
		return nil
	})
	if lent.lent != 0 || lent.held != 0 {
		f.t.Errorf("budget: %d bytes lent, %d held after the read", lent.lent, lent.held)
	}
	if err == nil && out == blob.Rewritten {
		f.pos = blob.Position{Generation: f.pos.Generation + 1}
		f.got, f.begin, f.chunks = nil, 0, nil
	}
	return out, err
}

func (f *follower) take(c blob.Chunk) {
	f.t.Helper()
	if f.pos.End == 0 {
		f.begin = c.Offset
	} else if c.Offset != f.pos.End {
		f.t.Errorf("chunk begins at %d, the one before ended at %d", c.Offset, f.pos.End)
	}
	if c.Reserved < int64(len(c.Data)) || cap(c.Data) != len(c.Data) {
		f.t.Errorf("chunk of %d bytes (cap %d) with %d reserved", len(c.Data), cap(c.Data), c.Reserved)
	}
	if n := len(c.Data); n == 0 || c.Data[n-1] != '}' || !json.Valid(append(append([]byte("["), bytes.TrimLeft(c.Data, " \t\r\n,")...), ']')) {
		f.t.Errorf("chunk at %d is no run of whole records: %.80q…", c.Offset, c.Data)
	}
	f.got = append(f.got, c.Data...)
	f.pos.End, f.pos.Tail = c.End(), c.Tail
	f.chunks = append(f.chunks, len(c.Data))
}

// want checks that got is exactly the blob from the records array's begin to its
// last record's end.
func (f *follower) want(data []byte) {
	f.t.Helper()
	if len(f.got) == 0 {
		if bytes.Contains(data, []byte("}}")) {
			f.t.Errorf("nothing was read of %d bytes", len(data))
		}
		return
	}
	end := f.begin + int64(len(f.got))
	if end > int64(len(data)) || !bytes.Equal(f.got, data[f.begin:end]) {
		f.t.Fatalf("%d bytes read from %d on are not those of the blob of %d bytes", len(f.got), f.begin, len(data))
	}
	if rest := data[end:]; string(rest) != blobtest.Footer {
		f.t.Errorf("not read: %.80q", rest)
	}
	if head := data[:f.begin]; string(head) != blobtest.Header {
		f.t.Errorf("taken from behind %q", head)
	}
}
