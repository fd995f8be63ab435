package decode_test

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/schemas"
)

// Decode a blob: a whole PT1H.json of any size, in constant memory.
func Example() {
	file, err := os.Open("testdata/samples/vnet-docs-v4-record.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer file.Close()
	reader, err := decode.NewReader(file, decode.Range{Blob: "account/container/PT1H.json"})
	if err != nil {
		fmt.Println(err)
		return
	}
	batch := decode.NewBatch(memory.DefaultAllocator)
	defer batch.Release()
	for {
		result, err := reader.Next(batch)
		for _, reject := range result.Rejects {
			fmt.Println("quarantine:", reject.Reason, reject.Detail)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	rows := batch.Take(0)
	defer rows.Release()
	rules := rows.Column(schemas.Flows.Index("rule")).(*array.Dictionary)
	ports := rows.Column(schemas.Flows.Index("dst_port")).(*array.Uint16)
	fmt.Println(rows.NumRows(), "rows, the first by rule", rules.ValueStr(0), "to port", ports.Value(0))
	// Output: 19 rows, the first by rule DefaultRule_AllowInternetOutBound to port 443
}
