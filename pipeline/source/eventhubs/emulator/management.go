package emulator

import (
	"strconv"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// manage answers a request to $management. The AMQP types of the values matter:
// clients refuse a list where an array is due, or an unsigned number.
func (c *conn) manage(m *wire.Message) answer {
	if c.s.faults.throttle.take() {
		return answer{code: 503, description: "The event hub is throttled; try again in 4 seconds.", condition: condServerBusy}
	}
	text := func(key string) string { s, _ := m.AppProperties.Get(key).(string); return s }
	if op := text("operation"); op != "READ" {
		return answer{code: 501, description: "The operation '" + op + "' is not supported.", condition: condNotImplemented}
	}
	h := c.s.hub(text("name"))
	if h == nil {
		return answer{code: 404, description: "The messaging entity '" + text("name") + "' could not be found.", condition: condNotFound}
	}
	if !c.mayManage(h, text("security_token")) {
		return answer{code: 401, description: "The token does not allow to manage '" + h.name + "'.", condition: condUnauthorized}
	}
	switch kind := text("type"); kind {
	case "com.microsoft:eventhub":
		return answer{code: 200, description: "OK", value: describeHub(h)}
	case "com.microsoft:partition":
		p := h.partition(text("partition"))
		if p == nil {
			e := h.noPartition()
			return answer{code: 400, description: e.Description, condition: e.Condition}
		}
		return answer{code: 200, description: "OK", value: describePartition(h, p)}
	default:
		return answer{code: 400, description: "The type '" + kind + "' is not supported.", condition: condArgument}
	}
}

func describeHub(h *hub) wire.Map {
	return wire.Map{
		{Key: "type", Value: "com.microsoft:eventhub"},
		{Key: "name", Value: h.name},
		{Key: "created_at", Value: wire.Timestamp(h.created.Load())},
		{Key: "partition_count", Value: int32(len(h.partitions))},
		{Key: "partition_ids", Value: wire.Strings(h.ids()...)},
		{Key: "georeplication_factor", Value: int32(1)},
	}
}

func describePartition(h *hub, p *partition) wire.Map {
	first, last, empty := p.state()
	return wire.Map{
		{Key: "type", Value: "com.microsoft:partition"},
		{Key: "name", Value: h.name},
		{Key: "partition", Value: p.id},
		{Key: "begin_sequence_number", Value: first},
		{Key: "begin_sequence_number_epoch", Value: int32(-1)},
		{Key: "last_enqueued_sequence_number", Value: last.sequence},
		{Key: "last_enqueued_sequence_number_epoch", Value: int32(-1)},
		{Key: "last_enqueued_offset", Value: strconv.FormatInt(last.offset, 10)},
		{Key: "last_enqueued_time_utc", Value: wire.Timestamp(last.enqueued)},
		{Key: "is_partition_empty", Value: empty},
	}
}
