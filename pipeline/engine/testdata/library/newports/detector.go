// Package newports finds services that nobody has seen before: the first allowed
// inbound flow to an address and port.
package newports

import (
	"encoding/json"
	"net/netip"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Table is what the detector writes.
var Table = schemas.Table{
	Name: "new_ports",
	Columns: []schemas.Column{
		{Name: "time", Arrow: schemas.TimeMS, ClickHouse: "DateTime64(3, 'UTC')", Meaning: "When the service was first reached."},
		schemas.Flows.Columns[schemas.Flows.Index("dst_ip")],
		schemas.Flows.Columns[schemas.Flows.Index("dst_port")],
	},
	PartitionBy: "toYYYYMMDD(time)", OrderBy: "time", TimeColumn: "time", Comment: "Services that were never seen before.",
}

// Detector is a pipeline.Operator.
type Detector struct{ Seen map[netip.AddrPort]bool }

func (d *Detector) Tables() []schemas.Table   { return []schemas.Table{Table} }
func (d *Detector) Snapshot() ([]byte, error) { return json.Marshal(d.Seen) }
func (d *Detector) Restore(data []byte) error { return json.Unmarshal(data, &d.Seen) }
func (d *Detector) Release()                  {}

func (d *Detector) Apply(in pipeline.OperatorInput) ([]pipeline.Piece, error) {
	out := array.NewRecordBuilder(memory.DefaultAllocator, Table.ArrowSchema())
	defer out.Release()
	for _, flows := range in.Flows {
		column := func(name string) int { return schemas.Flows.Index(name) }
		times := flows.Column(column("time")).(*array.Timestamp)
		addresses := flows.Column(column("dst_ip")).(*array.FixedSizeBinary)
		ports := flows.Column(column("dst_port")).(*array.Uint16)
		directions := flows.Column(column("direction")).(*array.Dictionary)
		actions := flows.Column(column("action")).(*array.Dictionary)
		for row := range times.Len() {
			ip, _ := netip.AddrFromSlice(addresses.Value(row))
			service := netip.AddrPortFrom(ip.Unmap(), ports.Value(row))
			if d.Seen[service] || directions.ValueStr(row) != "inbound" || actions.ValueStr(row) != "allowed" {
				continue
			}
			d.Seen[service] = true
			out.Field(0).(*array.TimestampBuilder).Append(times.Value(row))
			out.Field(1).(*array.FixedSizeBinaryBuilder).Append(addresses.Value(row))
			out.Field(2).(*array.Uint16Builder).Append(ports.Value(row))
		}
	}
	return pipeline.Pieces(memory.DefaultAllocator, Table, out.NewRecord()), nil
}
