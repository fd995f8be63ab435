package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
)

// sampleBlob is a store of one blob, and the source that announces it.
type sampleBlob struct {
	id   pipeline.BlobID
	data []byte
}

func (b sampleBlob) Get(_ context.Context, _ pipeline.BlobID, offset, count int64, _ string) (blob.Response, error) {
	end := int64(len(b.data))
	if count > 0 {
		end = min(end, offset+count)
	}
	return blob.Response{Body: io.NopCloser(bytes.NewReader(b.data[offset:end])), ETag: `"1"`, Offset: offset, Length: end - offset, Total: int64(len(b.data))}, nil
}

func (b sampleBlob) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	return emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: b.id, ContentLength: int64(len(b.data))}}})
}

// counter is a sink that lands nothing but the count of rows. A sink of your own
// proves itself with sinks/sinktest.
type counter struct{ flows, windows, refused atomic.Int64 }

func (c *counter) Land(_ context.Context, _ pipeline.BatchID, _ uint64, p pipeline.Piece) error {
	switch p.Table {
	case "flows":
		c.flows.Add(p.Rows)
	case "quarantine":
		c.refused.Add(p.Rows)
	default:
		c.windows.Add(p.Rows)
	}
	return nil
}

func (c *counter) Probe(_ context.Context, _ pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	return make([]int64, len(pieces)), nil
}

func (c *counter) Fence(context.Context, uint16, int, uint64) error { return nil }

// A complete pipeline inside another program: a source, the ledger on this disk, a
// window and a sink. The source ends by itself, so the pipeline does too, when
// everything has landed and every window has closed.
func Example() {
	dir, err := os.MkdirTemp("", "millrace-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	text, err := os.ReadFile("../decode/testdata/samples/vnet-docs-v4-record.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	in := sampleBlob{pipeline.BlobID{Account: "account", Container: "logs", Path: "flowLogResourceID=/LOG/y=2022/m=09/d=14/h=09/m=00/macAddress=00224871C205/PT1H.json"}, text}
	sink := &counter{}
	if err := runSample(dir, in, sink); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sink.flows.Load(), "flows,", sink.refused.Load(), "refused,", sink.windows.Load(), "rows of hourly windows")
	// Output: 19 flows, 0 refused, 3 rows of hourly windows
}

func runSample(dir string, in sampleBlob, sink pipeline.Sink) error {
	store, err := ledger.OpenDirectory(filepath.Join(dir, "ledger"))
	if err != nil {
		return err
	}
	defer store.Close()
	book, err := ledger.Open(context.Background(), store, ledger.Info{Shards: 1}, ledger.OneLedger(1))
	if err != nil {
		return err
	}
	reader, err := blob.New(blob.DefaultConfig(decode.SplitRecords), in)
	if err != nil {
		return err
	}
	cfg := engine.DefaultConfig()
	cfg.Shard.KeepOffsets = 100 * 365 * 24 * time.Hour // a blob of any age is read
	e, err := engine.New(cfg, engine.Parts{
		Ledger: book, Reader: reader, Sources: []pipeline.Source{in}, Sinks: []engine.NamedSink{{Sink: sink}},
		Operators: func() ([]pipeline.Operator, error) {
			op, err := window.New([]window.Config{{Name: "hourly", Size: time.Hour, GroupBy: []string{"direction"}, Sums: []string{"bytes_sent"}}}, nil)
			return []pipeline.Operator{op}, err
		},
	})
	if err != nil {
		return err
	}
	return e.Run(context.Background())
}
