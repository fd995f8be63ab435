package decode

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/schemas"
)

// Places of the columns in schemas.Flows. TestColumnsFollowTheSchema holds them.
const (
	colTime = iota
	colCloud
	colFormat
	colMAC
	colSrcIP
	colDstIP
	colSrcPort
	colDstPort
	colProtocol
	colDirection
	colState
	colAction
	colEncryption
	colPacketsSent
	colBytesSent
	colPacketsReceived
	colBytesReceived
	colACL
	colRule
	colRuleKind
	colFlowLog
	colTarget
	colBlob
	colGeneration
	colRecordOffset
	colOrdinal
	colBatchID
	columnCount
)

var columnNames = [columnCount]string{
	"time", "cloud", "format", "mac", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "direction", "state",
	"action", "encryption", "packets_sent", "bytes_sent", "packets_received", "bytes_received", "acl_id", "rule",
	"rule_kind", "flow_log", "target", "blob", "generation", "record_offset", "ordinal", "batch_id",
}

var (
	flowSchema = schemas.Flows.ArrowSchema()
	widths     = columnWidths()
)

// columnWidths gives the bytes that one row takes in each column.
func columnWidths() (w [columnCount]int) {
	for i := range w {
		t := flowSchema.Field(i).Type
		if d, ok := t.(*arrow.DictionaryType); ok {
			t = d.IndexType
		}
		w[i] = t.(arrow.FixedWidthDataType).BitWidth() / 8
	}
	return w
}

// columns holds one growing buffer for each column of schemas.Flows, and typed
// views of them for the loops that write rows. Row n of every view is free to
// write while n < room.
type columns struct {
	buffers [columnCount]*memory.Buffer
	room    int // rows that fit

	time                                              []int64
	cloud, format, protocol, direction, state, action []uint8
	ruleKind                                          []uint8
	src, dst                                          []byte // 16 a row
	srcPort, dstPort                                  []uint16
	counters                                          [4][]uint64 // packets sent, bytes sent, packets received, bytes received
	mac, encryption, acl, rule, flowLog, target, blob []uint32
	generation, ordinal                               []uint32
	recordOffset, batchID                             []uint64
}

// grow makes room for at least rows rows and keeps what is there.
func (c *columns) grow(alloc memory.Allocator, rows int) {
	rows = max(rows, 2*c.room, minRoom)
	for i := range c.buffers {
		if c.buffers[i] == nil {
			c.buffers[i] = memory.NewResizableBuffer(alloc)
		}
		c.buffers[i].Resize(rows * widths[i])
	}
	c.room = rows
	c.view()
}

func (c *columns) view() {
	u8 := func(i int) []uint8 { return c.buffers[i].Bytes() }
	u16 := func(i int) []uint16 { return arrow.Uint16Traits.CastFromBytes(c.buffers[i].Bytes()) }
	u32 := func(i int) []uint32 { return arrow.Uint32Traits.CastFromBytes(c.buffers[i].Bytes()) }
	u64 := func(i int) []uint64 { return arrow.Uint64Traits.CastFromBytes(c.buffers[i].Bytes()) }
	c.time = arrow.Int64Traits.CastFromBytes(c.buffers[colTime].Bytes())
	c.cloud, c.format, c.protocol = u8(colCloud), u8(colFormat), u8(colProtocol)
	c.direction, c.state, c.action, c.ruleKind = u8(colDirection), u8(colState), u8(colAction), u8(colRuleKind)
	c.src, c.dst = u8(colSrcIP), u8(colDstIP)
	c.srcPort, c.dstPort = u16(colSrcPort), u16(colDstPort)
	for i := range c.counters {
		c.counters[i] = u64(colPacketsSent + i)
	}
	c.mac, c.encryption, c.acl, c.rule = u32(colMAC), u32(colEncryption), u32(colACL), u32(colRule)
	c.flowLog, c.target, c.blob = u32(colFlowLog), u32(colTarget), u32(colBlob)
	c.generation, c.ordinal = u32(colGeneration), u32(colOrdinal)
	c.recordOffset, c.batchID = u64(colRecordOffset), u64(colBatchID)
}

// take hands the buffers over, cut to n rows; the columns are empty afterwards.
func (c *columns) take(n int) [columnCount]*memory.Buffer {
	out := c.buffers
	for i, b := range out {
		b.Resize(n * widths[i])
	}
	*c = columns{}
	return out
}

func (c *columns) release() {
	for _, b := range c.buffers {
		if b != nil {
			b.Release()
		}
	}
	*c = columns{}
}

// fill sets every element; copy doubles what is set, which runs at memory speed.
func fill[T comparable](s []T, v T) {
	if len(s) == 0 {
		return
	}
	s[0] = v
	for n := 1; n < len(s); n *= 2 {
		copy(s[n:], s[:n])
	}
}

// wrap makes the record batch of n rows over the buffers and takes them over.
// dicts holds the dictionary of each dictionary column and is borrowed.
func wrap(buffers [columnCount]*memory.Buffer, dicts [columnCount]arrow.Array, n int) arrow.Record {
	var cols [columnCount]arrow.Array
	for i := range cols {
		t := flowSchema.Field(i).Type
		var dict *array.Data
		if dicts[i] != nil {
			dict = dicts[i].Data().(*array.Data)
		}
		data := array.NewDataWithDictionary(t, n, []*memory.Buffer{nil, buffers[i]}, 0, 0, dict)
		cols[i] = array.MakeFromData(data)
		data.Release()
		buffers[i].Release()
	}
	rec := array.NewRecord(flowSchema, cols[:], int64(n))
	for _, c := range cols {
		c.Release()
	}
	return rec
}
