package emulator

import (
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// Route says which partition an event goes to. Its zero value takes them in turn.
type Route struct {
	partition int // plus one
	key       string
}

// ToPartition names the partition.
func ToPartition(n int) Route { return Route{partition: n + 1} }

// ByKey takes the partition of the key, always the same; the event carries the key.
func ByKey(key string) Route { return Route{key: key} }

// InTurn takes the partitions in turn.
func InTurn() Route { return Route{} }

// Publish appends one event as a producer would, without a connection. It never
// waits. props become application properties: values may be string, bool, []byte,
// time.Time and the integer and float types. It gives the event's sequence number
// in its partition, or -1 if a fault made it disappear.
//
// The body and the property values are copied. Safe for concurrent use.
//
// Errors: an unknown hub or partition, a property of another type, or an event
// above the message size limit.
func (s *Server) Publish(hub string, to Route, body []byte, props map[string]any) (int64, error) {
	h := s.hub(hub)
	if h == nil {
		return 0, fmt.Errorf("publish to event hub %q: there is no such hub", hub)
	}
	if to.partition < 0 || to.partition > len(h.partitions) {
		return 0, fmt.Errorf("publish to event hub %q: there is no partition %d", hub, to.partition-1)
	}
	bare, err := encodeBare(body, props)
	if err != nil {
		return 0, fmt.Errorf("publish to event hub %q: %w", hub, err)
	}
	if int64(len(bare)) > s.cfg.MaxMessageSize {
		return 0, fmt.Errorf("publish to event hub %q: event of %d bytes, limit %d", hub, len(bare), s.cfg.MaxMessageSize)
	}
	e := event{bare: bare}
	var p *partition
	switch {
	case to.partition > 0:
		p = h.partitions[to.partition-1]
	case to.key != "":
		e.key = &to.key
	}
	if p == nil {
		p = h.route(e.key)
	}
	return s.store(p, []event{e}), nil
}

// route picks a partition for a key, or the next one without.
func (h *hub) route(key *string) *partition {
	if key != nil {
		return h.partitions[partitionOf(*key, len(h.partitions))]
	}
	return h.partitions[(h.turn.Add(1)-1)%uint64(len(h.partitions))]
}

// store appends the events that no fault takes away, and gives the sequence number
// of the first, -1 when none is left.
func (s *Server) store(p *partition, events []event) int64 {
	events = slices.DeleteFunc(events, func(event) bool { return s.faults.drop.take() })
	if len(events) == 0 {
		return -1
	}
	var size int64
	for i := range events {
		size += int64(len(events[i].bare))
	}
	s.stats.eventsIn.Add(int64(len(events)))
	s.stats.bytesIn.Add(size)
	return p.append(events, s.cfg.Now(), s.cfg.Retention)
}

func encodeBare(body []byte, props map[string]any) ([]byte, error) {
	bare := make([]byte, 0, len(body)+64)
	if len(props) > 0 {
		m := make(wire.Map, 0, len(props))
		for k, v := range props {
			v, err := property(v)
			if err != nil {
				return nil, fmt.Errorf("property %q: %w", k, err)
			}
			m = append(m, wire.Entry{Key: k, Value: v})
		}
		bare = wire.AppendSection(bare, wire.SectionAppProperties, m)
	}
	if body == nil {
		body = []byte{}
	}
	return wire.AppendSection(bare, wire.SectionData, body), nil
}

func property(v any) (any, error) {
	switch v := v.(type) {
	case nil, string, bool, []byte, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64:
		return v, nil
	case int:
		return int64(v), nil
	case uint:
		return uint64(v), nil
	case time.Time:
		return wire.Timestamp(v.UnixMilli()), nil
	}
	return nil, fmt.Errorf("%T is no type of an application property", v)
}
