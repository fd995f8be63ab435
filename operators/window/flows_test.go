package window

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// flow is what the tests set of a flow row; the other columns hold their zeros.
type flow struct {
	time               int64 // ms
	mac                string
	src, dst           netip.Addr
	srcPort, dstPort   uint16
	protocol           uint8
	direction          uint8 // codes of schemas
	action             uint8
	acl, rule          string
	packets, bytes     uint64
	packetsIn, bytesIn uint64
}

// record makes a record batch of schemas.Flows. Words carry the whole list, names
// what is in use, as decoders write them. The caller releases it.
func record(alloc memory.Allocator, flows []flow) arrow.Record {
	schema := schemas.Flows.ArrowSchema()
	columns := make([]arrow.Array, schema.NumFields())
	for i, field := range schema.Fields() {
		columns[i] = column(alloc, field, flows)
		defer columns[i].Release()
	}
	return array.NewRecord(schema, columns, int64(len(flows)))
}

var wordLists = map[string][]string{
	"cloud": schemas.Clouds, "format": schemas.Formats, "direction": schemas.Directions,
	"state": schemas.States, "action": schemas.Actions, "rule_kind": schemas.RuleKinds,
}

func column(alloc memory.Allocator, field arrow.Field, flows []flow) arrow.Array {
	if d, ok := field.Type.(*arrow.DictionaryType); ok {
		return textColumn(alloc, d, field.Name, flows)
	}
	b := array.NewBuilder(alloc, field.Type)
	defer b.Release()
	for _, f := range flows {
		switch b := b.(type) {
		case *array.TimestampBuilder:
			b.Append(arrow.Timestamp(f.time))
		case *array.FixedSizeBinaryBuilder:
			a := f.address(field.Name).As16()
			b.Append(a[:])
		case *array.Uint8Builder:
			b.Append(f.protocol)
		case *array.Uint16Builder:
			b.Append(uint16(f.number(field.Name)))
		case *array.Uint32Builder:
			b.Append(0)
		case *array.Uint64Builder:
			b.Append(f.counter(field.Name))
		}
	}
	return b.NewArray()
}

func (f flow) address(name string) netip.Addr {
	if name == "src_ip" {
		return f.src
	}
	return f.dst
}

func (f flow) number(name string) uint64 {
	switch name {
	case "src_port":
		return uint64(f.srcPort)
	case "dst_port":
		return uint64(f.dstPort)
	default:
		return uint64(f.protocol)
	}
}

func (f flow) counter(name string) uint64 {
	switch name {
	case "packets_sent":
		return f.packets
	case "bytes_sent":
		return f.bytes
	case "packets_received":
		return f.packetsIn
	case "bytes_received":
		return f.bytesIn
	default:
		return 0
	}
}

// text gives the value of a text column.
func (f flow) text(name string) string {
	switch name {
	case "mac":
		return f.mac
	case "acl_id":
		return f.acl
	case "rule":
		return f.rule
	case "direction":
		return schemas.Directions[f.direction]
	case "action":
		return schemas.Actions[f.action]
	default:
		if list, ok := wordLists[name]; ok {
			return list[0]
		}
		return ""
	}
}

func textColumn(alloc memory.Allocator, t *arrow.DictionaryType, name string, flows []flow) arrow.Array {
	values := append([]string{}, wordLists[name]...)
	codes := map[string]int{}
	for i, v := range values {
		codes[v] = i
	}
	b := array.NewBuilder(alloc, t.IndexType)
	defer b.Release()
	for _, f := range flows {
		v := f.text(name)
		code, ok := codes[v]
		if !ok {
			code = len(values)
			codes[v], values = code, append(values, v)
		}
		switch b := b.(type) {
		case *array.Uint8Builder:
			b.Append(uint8(code))
		case *array.Uint32Builder:
			b.Append(uint32(code))
		}
	}
	indices := b.NewArray()
	defer indices.Release()
	return dictionary(t, indices, values, alloc)
}

// input makes an operator's input; release frees its record batches.
func input(t testing.TB, alloc memory.Allocator, seq uint64, watermark pipeline.Watermark, batches ...[]flow) (in pipeline.OperatorInput, release func()) {
	t.Helper()
	in = pipeline.OperatorInput{Batch: pipeline.NewBatchID(1, 2, seq), Watermark: watermark}
	for _, flows := range batches {
		in.Flows = append(in.Flows, record(alloc, flows))
	}
	return in, func() {
		for _, rec := range in.Flows {
			rec.Release()
		}
	}
}

// randomFlows makes n flows of few keys in the given span of time.
func randomFlows(rng *rand.Rand, n int, from, span int64) []flow {
	macs := []string{"000D3A1B2C3D", "000D3AFFFFFF", "6045BD000001", ""}
	flows := make([]flow, n)
	for i := range flows {
		var src [16]byte
		binary.BigEndian.PutUint64(src[8:], rng.Uint64N(2000))
		flows[i] = flow{
			time: from + rng.Int64N(span), mac: macs[rng.IntN(len(macs))],
			src: netip.AddrFrom16(src), dst: netip.AddrFrom16([16]byte{10: 255, 11: 255, 12: 10, 15: byte(rng.IntN(5))}),
			srcPort: uint16(rng.Uint32()), dstPort: []uint16{0, 22, 443}[rng.IntN(3)],
			protocol: []uint8{1, 6, 17}[rng.IntN(3)], direction: uint8(rng.IntN(2)), action: uint8(rng.IntN(2)),
			acl: []string{"acl-b", "acl-a"}[rng.IntN(2)], rule: []string{"", "zebra", "aard", "Rule"}[rng.IntN(4)],
			packets: rng.Uint64N(100), bytes: rng.Uint64() >> rng.IntN(60), packetsIn: 1, bytesIn: rng.Uint64N(9),
		}
	}
	return flows
}
