package emulator

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// join makes the receiver a reader of the consumer group and gives the readers
// that lose their place to it. A receiver with an owner level evicts all without
// one and all of the same or a lower level; against a higher level it is refused,
// and so is one without a level while there is one with.
func (p *partition) join(group string, r *outbound) (evicted []*outbound, err *wire.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	group = strings.ToLower(group)
	for _, other := range p.readers[group] {
		switch {
		case other.epoch == nil:
		case r.epoch == nil:
			return nil, wire.Errorf(condStolen, "Receiver '%s' holds the partition with epoch %d; one without an epoch cannot have it.", other.name, *other.epoch)
		case *r.epoch < *other.epoch:
			return nil, wire.Errorf(condStolen, "Receiver '%s' holds the partition with epoch %d; receiver '%s' with epoch %d cannot have it.", other.name, *other.epoch, r.name, *r.epoch)
		}
	}
	if r.epoch != nil {
		evicted, p.readers[group] = p.readers[group], nil
	} else if len(p.readers[group]) >= maxReaders {
		return nil, wire.Errorf(condResourceLimit, "The partition has %d receivers in this consumer group already.", maxReaders)
	}
	p.readers[group] = append(p.readers[group], r)
	return evicted, nil
}

// leave takes the receiver out of the group; one that was evicted is not there.
func (p *partition) leave(group string, r *outbound) {
	p.mu.Lock()
	defer p.mu.Unlock()
	group = strings.ToLower(group)
	p.readers[group] = slices.DeleteFunc(p.readers[group], func(o *outbound) bool { return o == r })
	if len(p.readers[group]) == 0 {
		delete(p.readers, group)
	}
}

// take empties the group and gives who was in it.
func (p *partition) take(group string) []*outbound {
	p.mu.Lock()
	defer p.mu.Unlock()
	group = strings.ToLower(group)
	readers := p.readers[group]
	delete(p.readers, group)
	return readers
}
