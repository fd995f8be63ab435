package decode

import (
	"fmt"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

// Every octet from 0 to 999, in every place, long enough that the common form's
// reader sees it: only 0 to 255 without leading zeros are addresses.
func TestEveryOctet(t *testing.T) {
	const frame = `{"category":"FlowLogFlowEvent","flowLogVersion":4,"macAddress":"00000000000A","flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"r","flowTuples":["1795414841497,%s,31017,6379,6,I,B,X,0,0,0,0"]}]}]},"pad":"%0400d"}`
	for place := range 8 {
		for octet := range 1000 {
			for _, width := range []int{1, 3} {
				text := fmt.Sprintf("%0*d", width, octet)
				parts := [8]string{"10", "0", "0", "9", "10", "0", "2", "16"}
				parts[place] = text
				addresses := fmt.Sprintf("%s.%s.%s.%s,%s.%s.%s.%s", parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7])
				b := NewBatch(memory.DefaultAllocator)
				res := b.Decode(Range{Blob: "a/b/c"}, fmt.Appendf(nil, frame, addresses, 0))
				good := octet <= 255 && (width == 1 || octet >= 100)
				if (res.Rows == 1) != good {
					t.Fatalf("octet %q in place %d: %d rows, %d rejects", text, place, res.Rows, len(res.Rejects))
				}
				b.Release()
			}
		}
	}
}
