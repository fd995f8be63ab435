package pipeline_test

import (
	"encoding/json"
	"fmt"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/schemas"
)

// denials is a custom operator: one row a batch, with the count of denied flows so
// far. Its state is a function of the batches alone, so a replay after a crash gives
// the same rows again.
type denials struct{ total uint64 }

var denialsTable = schemas.Table{
	Name: "denials",
	Columns: []schemas.Column{
		{Name: "time", Arrow: schemas.TimeMS, ClickHouse: "DateTime64(3, 'UTC')", Meaning: "Watermark of the commit."},
		{Name: "total", Arrow: arrow.PrimitiveTypes.Uint64, ClickHouse: "UInt64", Meaning: "Denied flows of the shard so far."},
	},
	PartitionBy: "toYYYYMMDD(time)", OrderBy: "time", TimeColumn: "time", Comment: "Denied flows.",
}

func (d *denials) Tables() []schemas.Table   { return []schemas.Table{denialsTable} }
func (d *denials) Snapshot() ([]byte, error) { return json.Marshal(d.total) }
func (d *denials) Restore(s []byte) error    { return json.Unmarshal(s, &d.total) }
func (d *denials) Release()                  {}

func (d *denials) Apply(in pipeline.OperatorInput) ([]pipeline.Piece, error) {
	for _, flows := range in.Flows {
		actions := flows.Column(schemas.Flows.Index("action")).(*array.Dictionary)
		for row := range actions.Len() {
			if actions.GetValueIndex(row) == int(schemas.ActionDenied) {
				d.total++
			}
		}
	}
	row := array.NewRecordBuilder(memory.DefaultAllocator, denialsTable.ArrowSchema())
	defer row.Release()
	row.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(in.Watermark))
	row.Field(1).(*array.Uint64Builder).Append(d.total)
	return pipeline.Pieces(memory.DefaultAllocator, denialsTable, row.NewRecord()), nil
}

// A custom operator gets the flow rows of each batch and gives rows of its own,
// which land with them, exactly once.
func ExampleOperator() {
	batch := decode.NewBatch(memory.DefaultAllocator)
	defer batch.Release()
	batch.Decode(decode.Range{Blob: "a/c/PT1H.json"}, []byte(`{"flowLogVersion":4,"macAddress":"000D3A000001","category":"FlowLogFlowEvent",`+
		`"flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"UserRule_web","flowTuples":[`+
		`"1795417200000,203.0.113.9,10.0.0.4,40000,443,6,I,B,NX,0,0,0,0","1795417202000,203.0.113.9,10.0.0.4,40001,22,6,I,D,NX,0,0,0,0"]}]}]}}`))
	id := pipeline.NewBatchID(1, 0, 1)
	flows := batch.Take(id)
	defer flows.Release()

	var op pipeline.Operator = &denials{}
	defer op.Release()
	pieces, err := op.Apply(pipeline.OperatorInput{Batch: id, Flows: []arrow.Record{flows}, Watermark: 1795417192000})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range pieces {
		fmt.Println(p.Table, p.Partition, p.Record.Column(1))
		p.Release()
	}
	state, _ := op.Snapshot()
	fmt.Println("state:", string(state))
	// Output:
	// denials 20261123 [1]
	// state: 1
}
