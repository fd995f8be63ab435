// Package library_test is a pipeline of somebody else: their source, detector and
// sink around Millrace's engine.
package library_test

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"example.org/newports/arrowfiles"
	"example.org/newports/newports"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/schemas"
)

// memory is one blob, and the source that announces it once.
type memory struct {
	id   pipeline.BlobID
	data []byte
}

func (m memory) Get(_ context.Context, id pipeline.BlobID, offset, count int64, _ string) (blob.Response, error) {
	end := int64(len(m.data))
	if offset >= end {
		return blob.Response{}, &blob.Error{Op: "get blob", Object: id.String(), Kind: blob.KindOutOfRange, Status: 416}
	}
	if count > 0 {
		end = min(end, offset+count)
	}
	return blob.Response{Body: io.NopCloser(bytes.NewReader(m.data[offset:end])), ETag: `"1"`, Offset: offset, Length: end - offset, Total: int64(len(m.data))}, nil
}

func (m memory) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	return emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{{Blob: m.id, ContentLength: -1}}})
}

const record = `{"records":[{"time":"2026-11-23T07:00:59.0000000Z","flowLogVersion":4,"macAddress":"000D3A000001","category":"FlowLogFlowEvent",
"flowLogResourceID":"/L","targetResourceID":"/T","operationName":"FlowLogFlowEvent","flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"UserRule_web","flowTuples":[
"1795417200000,10.0.0.9,10.0.0.4,40000,443,6,I,B,NX,0,0,0,0","1795417201000,10.0.0.9,10.0.0.4,40001,443,6,I,B,NX,0,0,0,0",
"1795417202000,10.0.0.9,10.0.0.4,40001,22,6,I,D,NX,0,0,0,0","1795417203000,10.0.0.4,10.1.0.1,50000,53,17,O,B,NX,0,0,0,0",
"1795417204000,fd00::1,fd00::2,40002,8080,6,I,B,NX,0,0,0,0"]}]}]}}]}`

func TestPipelineOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	in := memory{pipeline.BlobID{Account: "a", Container: "c", Path: "flowLogResourceID=/X/y=2026/m=11/d=23/h=07/m=00/macAddress=000D3A000001/PT1H.json"}, []byte(record)}
	detector := &newports.Detector{Seen: map[netip.AddrPort]bool{}}
	sink := &arrowfiles.Sink{Dir: dir, Tables: []schemas.Table{schemas.Flows, schemas.Quarantine, newports.Table}}

	store, err := ledger.OpenDirectory(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	book, err := ledger.Open(t.Context(), store, ledger.Info{Shards: 1}, ledger.OneLedger(1))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := blob.New(blob.DefaultConfig(decode.SplitRecords), in)
	if err != nil {
		t.Fatal(err)
	}
	cfg := engine.DefaultConfig()
	cfg.Shard.KeepOffsets = 100 * 365 * 24 * time.Hour // the blob is of any age
	e, err := engine.New(cfg, engine.Parts{
		Ledger: book, Reader: reader, Sources: []pipeline.Source{in}, Sinks: []engine.NamedSink{{Sink: sink}},
		Operators: func() ([]pipeline.Operator, error) { return []pipeline.Operator{detector}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := e.Status(); s.Landed != 5 || s.Quarantined != 0 {
		t.Errorf("%d rows landed and %d are in quarantine, want 5 and 0", s.Landed, s.Quarantined)
	}
	want := map[netip.AddrPort]bool{netip.MustParseAddrPort("10.0.0.4:443"): true, netip.MustParseAddrPort("[fd00::2]:8080"): true}
	if len(detector.Seen) != len(want) {
		t.Errorf("new services are %v, want %v", detector.Seen, want)
	}
	for service := range want {
		if !detector.Seen[service] {
			t.Errorf("%v was not found", service)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "new_ports", "*-20261123-2-*.arrow")); len(files) != 1 {
		t.Errorf("the detector's rows are in %v, want one file of two rows", files)
	}
}
