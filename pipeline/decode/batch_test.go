package decode

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

const msInDay = 24 * 60 * 60 * 1000

// The columns are addressed by place in the hot loops; the schema decides.
func TestColumnsFollowTheSchema(t *testing.T) {
	var names []string
	for _, c := range schemas.Flows.Columns {
		names = append(names, c.Name)
	}
	if diff := cmp.Diff(names, columnNames[:]); diff != "" {
		t.Errorf("columns (-schema +decode):\n%s", diff)
	}
}

// vnetRecord is a record with the given MAC and tuples.
func vnetRecord(mac string, tuples ...string) string {
	return fmt.Sprintf(`{"category":"FlowLogFlowEvent","flowLogVersion":4,"macAddress":%q,"flowRecords":{"flows":[{"aclID":"a","flowGroups":`+
		`[{"rule":"UserRule_r","flowTuples":["%s"]}]}]}}`, mac, strings.Join(tuples, `","`))
}

func tupleAt(ms int64) string {
	return fmt.Sprintf("%d,10.0.0.6,192.0.2.180,23956,443,6,O,E,NX,1,2,3,4", ms)
}

func TestFlushMakesOnePieceADay(t *testing.T) {
	const day = 1795392000000 // 2026-11-23
	b := checkedBatch(t)
	b.Decode(Range{Blob: "x"}, []byte(vnetRecord("0000000000AA", tupleAt(day+5), tupleAt(day-1), tupleAt(day+3*msInDay))))
	b.Decode(Range{Blob: "y", Generation: 3, Offset: 500}, []byte(vnetRecord("000000000011", tupleAt(day+2), tupleAt(day-7))))
	pieces := b.Flush(pipeline.NewBatchID(1, 2, 3))
	var refs []pipeline.PieceRef
	var times [][]int64
	for _, p := range pieces {
		refs = append(refs, p.PieceRef)
		var ts []int64
		for _, r := range rowsOf(t, p.Record) {
			ts = append(ts, r.Time-day)
			if r.Batch != uint64(pipeline.NewBatchID(1, 2, 3)) || (r.Blob == "y") != (r.Generation == 3 && r.RecordOffset == 500 && r.MAC == "000000000011") {
				t.Errorf("row %+v", r)
			}
		}
		times = append(times, ts)
		p.Record.Release()
	}
	wantRefs := []pipeline.PieceRef{
		{Table: "flows", Partition: "20261122", Rows: 2, MinTime: day - 7, MaxTime: day - 1, MACs: []string{"000000000011", "0000000000AA"}},
		{Table: "flows", Partition: "20261123", Rows: 2, MinTime: day + 2, MaxTime: day + 5, MACs: []string{"000000000011", "0000000000AA"}},
		{Table: "flows", Partition: "20261126", Rows: 1, MinTime: day + 3*msInDay, MaxTime: day + 3*msInDay, MACs: []string{"0000000000AA"}},
	}
	if diff := cmp.Diff(wantRefs, refs); diff != "" {
		t.Errorf("pieces (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]int64{{-1, -7}, {5, 2}, {3 * msInDay}}, times); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
	if b.Rows() != 0 || b.Flush(1) != nil {
		t.Error("the batch is not empty after Flush")
	}
}

func TestBatchIsReusable(t *testing.T) {
	b := checkedBatch(t)
	for round := range 3 {
		for i := range 70 {
			b.Decode(Range{Blob: "x"}, []byte(vnetRecord(fmt.Sprintf("%012X", round*100+i), tupleAt(1795392000000+int64(i)))))
		}
		pieces := b.Flush(pipeline.BatchID(round))
		if len(pieces) != 1 || pieces[0].Rows != 70 || pieces[0].MACs != nil {
			t.Fatalf("round %d: pieces %+v, want one of 70 rows without MACs", round, pieces)
		}
		rows := rowsOf(t, pieces[0].Record)
		if rows[69].MAC != fmt.Sprintf("%012X", round*100+69) || rows[69].Batch != uint64(round) {
			t.Errorf("round %d: last row %+v", round, rows[69])
		}
		pieces[0].Record.Release()
	}
}

func TestReleaseFreesWhatWasNotFlushed(t *testing.T) {
	b := checkedBatch(t)
	b.Decode(Range{}, []byte(vnetRecord("", tupleAt(1795392000000))))
	b.Release()
	if b.Rows() != 0 {
		t.Errorf("%d rows after Release", b.Rows())
	}
	if res := b.Decode(Range{}, []byte(vnetRecord("", tupleAt(1795392000000)))); res.Rows != 1 {
		t.Errorf("result %+v after Release", res)
	}
}

func TestReadersOfRecordsMayOutliveTheBatch(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	recycler := NewRecycler(alloc, 1<<20)
	defer recycler.Close()
	b := NewBatch(recycler)
	b.Decode(Range{}, []byte(vnetRecord("", tupleAt(1795392000000))))
	rec := b.Take(1)
	b.Decode(Range{}, []byte(vnetRecord("", tupleAt(1795392000001))))
	if got := rowsOf(t, rec)[0].Time; got != 1795392000000 {
		t.Errorf("time %d changed after the record was taken", got)
	}
	rec.Release()
	b.Release()
}

// A defect in this package costs one record.
func TestPanicIsContained(t *testing.T) {
	b := checkedBatch(t)
	good := vnetRecord("", tupleAt(1795392000000))
	b.trap = func(offset int64) {
		if offset == int64(len(good)+1) {
			panic("index out of range")
		}
	}
	res := b.Decode(Range{}, []byte(good+","+good+","+good))
	want := []pipeline.Reject{{
		Reason: pipeline.ReasonDecoderPanic, Detail: "index out of range", Scope: "record",
		Offset: int64(len(good) + 1), Length: int64(len(good)), Excerpt: excerpt([]byte(good)),
	}}
	if diff := cmp.Diff(want, res.Rejects); diff != "" || res.Rows != 2 {
		t.Errorf("%d rows, rejects (-want +got):\n%s", res.Rows, diff)
	}
}

func TestOrdinalsPickTuples(t *testing.T) {
	b := checkedBatch(t)
	data := vnetRecord("", "bad0", tupleAt(1795392000001), "bad2", tupleAt(1795392000003), tupleAt(1795392000004))
	res := b.Decode(Range{Ordinals: []uint32{2, 4}}, []byte(data))
	if res.Rows != 1 || len(res.Rejects) != 1 || res.Rejects[0].Ordinal != 2 {
		t.Fatalf("result %+v, want the row of tuple 4 and the reject of tuple 2", res)
	}
	if rows := takeRows(t, b); rows[0].Ordinal != 4 || rows[0].Time != 1795392000004 {
		t.Errorf("row %+v", rows[0])
	}
}

func TestDecodeAllocatesNothingForTuples(t *testing.T) {
	b := NewBatch(memory.NewGoAllocator())
	data := estate(3)
	b.Decode(Range{Blob: "x"}, data)
	if n := testing.AllocsPerRun(10, func() { b.n = 0; b.Decode(Range{Blob: "x"}, data) }); n != 0 {
		t.Errorf("%v allocations in a call, want 0", n)
	}
}
