package decode

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode/internal/reference"
	"github.com/millrace/millrace/schemas"
)

// row is a reference row with what the batch adds.
type row struct {
	reference.Row
	Cloud, Blob string
	Generation  uint32
	Batch       uint64
}

// rowsOf reads a record batch back by the names of its columns.
func rowsOf(t testing.TB, rec arrow.Record) []row {
	t.Helper()
	if rec == nil {
		return nil
	}
	if !rec.Schema().Equal(schemas.Flows.ArrowSchema()) {
		t.Fatalf("schema %v", rec.Schema())
	}
	column := func(name string) arrow.Array { return rec.Column(schemas.Flows.Index(name)) }
	text := func(name string, i int) string {
		d := column(name).(*array.Dictionary)
		return d.Dictionary().(*array.String).Value(d.GetValueIndex(i))
	}
	code := func(name string, i int) uint8 {
		return column(name).(*array.Dictionary).Indices().(*array.Uint8).Value(i)
	}
	u16 := func(name string, i int) uint16 { return column(name).(*array.Uint16).Value(i) }
	u32 := func(name string, i int) uint32 { return column(name).(*array.Uint32).Value(i) }
	u64 := func(name string, i int) uint64 { return column(name).(*array.Uint64).Value(i) }
	ip := func(name string, i int) (a [16]byte) {
		copy(a[:], column(name).(*array.FixedSizeBinary).Value(i))
		return a
	}
	rows := make([]row, rec.NumRows())
	for i := range rows {
		rows[i] = row{
			Row: reference.Row{
				Time: int64(column("time").(*array.Timestamp).Value(i)), Format: code("format", i), MAC: text("mac", i),
				Src: ip("src_ip", i), Dst: ip("dst_ip", i), SrcPort: u16("src_port", i), DstPort: u16("dst_port", i),
				Protocol: column("protocol").(*array.Uint8).Value(i), Direction: code("direction", i),
				State: code("state", i), Action: code("action", i), Encryption: text("encryption", i),
				PacketsSent: u64("packets_sent", i), BytesSent: u64("bytes_sent", i),
				PacketsReceived: u64("packets_received", i), BytesReceived: u64("bytes_received", i),
				ACL: text("acl_id", i), Rule: text("rule", i), RuleKind: code("rule_kind", i),
				FlowLog: text("flow_log", i), Target: text("target", i),
				RecordOffset: int64(u64("record_offset", i)), Ordinal: u32("ordinal", i),
			},
			Cloud: text("cloud", i), Blob: text("blob", i), Generation: u32("generation", i), Batch: u64("batch_id", i),
		}
	}
	return rows
}

func plain(rows []row) []reference.Row {
	out := make([]reference.Row, len(rows))
	for i, r := range rows {
		out[i] = r.Row
	}
	return out
}

// checkedBatch is a batch whose memory must be given back by the end of the test.
func checkedBatch(t testing.TB) *Batch {
	t.Helper()
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	b := NewBatch(alloc)
	t.Cleanup(func() {
		b.Release()
		alloc.AssertSize(t, 0)
	})
	return b
}

// decodeAll decodes a region and gives its rows in order.
func decodeAll(t testing.TB, r Range, data []byte) ([]row, Result) {
	t.Helper()
	b := checkedBatch(t)
	res := b.Decode(r, data)
	return takeRows(t, b), res
}

func takeRows(t testing.TB, b *Batch) []row {
	t.Helper()
	rec := b.Take(7)
	if rec == nil {
		return nil
	}
	defer rec.Release()
	return rowsOf(t, rec)
}

// readAll decodes a file through a Reader.
func readAll(t testing.TB, in io.Reader) (rows []row, total Result, err error) {
	t.Helper()
	b := checkedBatch(t)
	r, err := NewReader(in, Range{Blob: "file"})
	if err != nil {
		return nil, total, err
	}
	for {
		res, err := r.Next(b)
		total.Rows += res.Rows
		total.Records += res.Records
		total.Rejects = append(total.Rejects, res.Rejects...)
		total.RejectAt = append(total.RejectAt, res.RejectAt...)
		rows = append(rows, takeRows(t, b)...)
		if err == io.EOF { //nolint:errorlint // the contract.
			return rows, total, nil
		}
		if err != nil {
			return rows, total, err
		}
	}
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/samples/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// region cuts the records out of a file, and says where they stand in it.
func region(t testing.TB, file []byte) (data []byte, offset int64) {
	t.Helper()
	start := bytes.IndexByte(file, '[') + 1
	end, closed := SplitRecords(file[start:])
	if !closed {
		t.Fatal("file without the end of its records array")
	}
	return file[start : start+end], int64(start)
}

func reasons(rejects []pipeline.Reject) (out []pipeline.Reason) {
	for _, r := range rejects {
		out = append(out, r.Reason)
	}
	return out
}
