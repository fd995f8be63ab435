package emulator

import (
	"regexp"
	"strconv"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// selector is the filter's name, and selectorCode its descriptor as a number.
const (
	selector     = "apache.org:selector-filter:string"
	selectorCode = uint64(0x0000468C00000004)
)

// field is what a filter compares.
type field int

const (
	byOffset field = iota
	bySequence
	byTime
	byLatest
)

// filter is a start position: the first event whose field is above value, or at
// it when inclusive.
type filter struct {
	field     field
	value     int64
	inclusive bool
}

var filterRE = regexp.MustCompile(`^\s*amqp\.annotation\.x-opt-(offset|sequence-number|enqueued-time|enqueuedtimeutc)\s*(>=?)\s*'(-?[0-9]{1,19}|@latest)'\s*$`)

// findFilter reads the start position out of a source's filters; without one a
// receiver starts at the first event. echo holds the filters that are in place.
func findFilter(filters wire.Map) (f filter, echo wire.Map, err *wire.Error) {
	for _, e := range filters {
		v := e.Value
		if d, ok := v.(wire.Described); ok {
			if d.Descriptor != selectorCode && d.Descriptor != wire.Symbol(selector) {
				continue
			}
			v = d.Value
		} else if name, _ := e.Key.(wire.Symbol); name != selector {
			continue
		}
		text, ok := v.(string)
		if !ok {
			return f, nil, wire.Errorf(condArgument, "The filter is no string.")
		}
		if f, ok = parseFilter(text); !ok {
			return f, nil, wire.Errorf(condArgument, "The filter '%s' is not supported.", text)
		}
		return f, wire.Map{e}, nil
	}
	return filter{field: byOffset, value: -1}, nil, nil
}

func parseFilter(text string) (filter, bool) {
	m := filterRE.FindStringSubmatch(text)
	if m == nil {
		return filter{}, false
	}
	f := filter{inclusive: m[2] == ">="}
	switch m[1] {
	case "offset":
		f.field = byOffset
	case "sequence-number":
		f.field = bySequence
	default:
		f.field = byTime
	}
	if m[3] == "@latest" {
		f.field, m[3] = byLatest, "0"
		if m[1] != "offset" {
			return filter{}, false
		}
	}
	v, err := strconv.ParseInt(m[3], 10, 64)
	f.value = v
	return f, err == nil
}
