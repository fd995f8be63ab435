package emulator

import (
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

const keyNote = "x-opt-partition-key"

// produce stores a message, or all messages of a batch in one partition.
func (in *inbound) produce(payload []byte, format uint32) *wire.Error {
	srv := in.s.c.s
	if srv.faults.throttle.take() {
		return wire.Errorf(condServerBusy, "The event hub is throttled; try again in 4 seconds.")
	}
	events, key, err := parseEvents(payload, format)
	if err != nil {
		return err
	}
	p := in.node.part
	if p == nil {
		p = in.node.hub.route(key)
	}
	srv.store(p, events)
	return nil
}

// parseEvents reads the events of a message, and the key that routes them.
func parseEvents(payload []byte, format uint32) ([]event, *string, *wire.Error) {
	if format != wire.BatchFormat {
		e, err := parseEvent(payload)
		if err != nil {
			return nil, nil, err
		}
		return []event{e}, e.key, nil
	}
	outer, perr := wire.ParseMessage(payload)
	if perr != nil {
		return nil, nil, wire.Errorf(condDecode, "%s", perr)
	}
	if len(outer.Data) == 0 {
		return nil, nil, wire.Errorf(condArgument, "The batch is empty.")
	}
	key, err := keyOf(outer.Annotations)
	if err != nil {
		return nil, nil, err
	}
	events := make([]event, len(outer.Data))
	for i, data := range outer.Data {
		if events[i], err = parseEvent(data); err != nil {
			return nil, nil, err
		}
		if events[i].key == nil {
			events[i].key = key
		}
	}
	return events, key, nil
}

func parseEvent(b []byte) (event, *wire.Error) {
	m, perr := wire.ParseMessage(b)
	if perr != nil {
		return event{}, wire.Errorf(condDecode, "%s", perr)
	}
	key, err := keyOf(m.Annotations)
	return event{key: key, header: m.Header, notes: own(m.Annotations), bare: m.Bare}, err
}

func keyOf(notes wire.Map) (*string, *wire.Error) {
	switch key := notes.Get(keyNote).(type) {
	case nil:
		return nil, nil
	case string:
		if utf8.RuneCountInString(key) > maxKeyLength {
			return nil, wire.Errorf(condArgument, "The partition key has more than %d characters.", maxKeyLength)
		}
		return &key, nil
	}
	return nil, wire.Errorf(condArgument, "The partition key is no string.")
}

// own gives the annotations that are the sender's, without those that only the
// service sets.
func own(notes wire.Map) wire.Map {
	var out wire.Map
	for _, e := range notes {
		switch name, _ := e.Key.(wire.Symbol); strings.ToLower(string(name)) {
		case keyNote, "x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time", "x-opt-sequence-number-epoch":
		default:
			out = append(out, e)
		}
	}
	return out
}
