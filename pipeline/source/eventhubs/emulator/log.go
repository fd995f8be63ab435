package emulator

import (
	"sort"
	"sync"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// eventOverhead is what an event counts besides its bytes.
const eventOverhead = 128

// event is one stored event. Its slices are never written again.
type event struct {
	offset   int64
	enqueued int64 // ms since the epoch
	key      *string
	header   []byte   // header section as sent
	notes    wire.Map // annotations of the sender's own
	bare     []byte   // properties, application properties, body and footer as sent
}

func (e *event) size() int64 { return int64(len(e.header)+len(e.bare)) + eventOverhead }

// partition is an append-only log that forgets from its front. Sequence numbers
// start at 0 and never skip; offsets grow by the size of an event, so that nobody
// can mistake one for the other.
type partition struct {
	id string

	mu      sync.Mutex
	events  []event // events[head:] are kept
	head    int
	first   int64 // sequence number of events[head]
	offset  int64 // offset of the next event
	bytes   int64
	last    position // of the last event ever
	expired int64
	waiters map[*conn]int
	readers map[string][]*outbound // by lower-case consumer group
}

// position describes the end of a partition.
type position struct {
	sequence, offset, enqueued int64
}

// nowhere is the position of a partition that never had an event: the service
// says year 1.
var nowhere = position{sequence: -1, offset: -1, enqueued: time.Time{}.UnixMilli()}

func newPartition(id string) *partition {
	return &partition{id: id, last: nowhere, waiters: map[*conn]int{}, readers: map[string][]*outbound{}}
}

func (p *partition) next() int64 { return p.first + int64(len(p.events)-p.head) }

// append stores the events with one time stamp and wakes the receivers. It gives
// the sequence number of the first.
func (p *partition) append(events []event, now time.Time, keep Retention) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	seq := p.next()
	for i := range events {
		e := &events[i]
		e.offset, e.enqueued = p.offset, max(now.UnixMilli(), p.last.enqueued)
		p.last = position{p.next(), e.offset, e.enqueued}
		p.offset += e.size()
		p.bytes += e.size()
		p.events = append(p.events, *e)
	}
	p.trim(now, keep)
	for c := range p.waiters {
		c.wake()
	}
	return seq
}

// trim drops events beyond the retention. The caller holds mu.
func (p *partition) trim(now time.Time, keep Retention) {
	oldest := now.Add(-keep.Age).UnixMilli()
	for p.head < len(p.events) {
		e := &p.events[p.head]
		if len(p.events)-p.head <= keep.Events && p.bytes <= keep.Bytes && e.enqueued >= oldest {
			break
		}
		p.drop()
	}
	p.compact()
}

// drop forgets the first event.
func (p *partition) drop() {
	p.bytes -= p.events[p.head].size()
	p.events[p.head] = event{}
	p.head++
	p.first++
	p.expired++
}

// compact frees the front once it is the larger part, so that each event is moved
// at most once on average.
func (p *partition) compact() {
	if p.head < 1024 && p.head < len(p.events) || 2*p.head < len(p.events) {
		return
	}
	p.events = append(make([]event, 0, len(p.events)-p.head), p.events[p.head:]...)
	p.head = 0
}

// read gives the event with the sequence number, or the first one after it that
// has not expired: events that expired are skipped, as the service does. An event
// that came later than latest (ms) is not given yet; due tells when it came.
func (p *partition) read(seq, latest int64) (e event, at, due int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at = max(seq, p.first)
	if at >= p.next() {
		return event{}, at, 0, false
	}
	e = p.events[p.head+int(at-p.first)]
	if e.enqueued > latest {
		return event{}, at, e.enqueued, false
	}
	return e, at, 0, true
}

// state describes the partition at one moment.
func (p *partition) state() (first int64, last position, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first, p.last, p.head == len(p.events)
}

// start gives the sequence number that a receiver with the filter begins with.
func (p *partition) start(f filter) (int64, *wire.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.events[p.head:]
	search := func(at func(event) int64) int64 {
		return p.first + int64(sort.Search(len(kept), func(i int) bool {
			if f.inclusive {
				return at(kept[i]) >= f.value
			}
			return at(kept[i]) > f.value
		}))
	}
	switch f.field {
	case byLatest:
		if f.inclusive && len(kept) > 0 {
			return p.next() - 1, nil
		}
		return p.next(), nil
	case byTime:
		return search(func(e event) int64 { return e.enqueued }), nil
	case byOffset:
		if f.value > p.last.offset {
			return 0, beyond("offset", f.value, p.last.offset)
		}
		return search(func(e event) int64 { return e.offset }), nil
	case bySequence:
	}
	if f.value > p.last.sequence && (!f.inclusive || f.value > p.next()) {
		return 0, beyond("sequence number", f.value, p.last.sequence)
	}
	from := f.value
	if !f.inclusive {
		from++
	}
	return max(from, p.first), nil
}

func beyond(what string, value, last int64) *wire.Error {
	return wire.Errorf(condOutOfRange, "The %s %d is beyond the last one, %d.", what, value, last)
}

// watch makes appends wake the connection; unwatch ends that. They count, since a
// connection may have several receivers on a partition.
func (p *partition) watch(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters[c]++
}

func (p *partition) unwatch(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiters[c]--; p.waiters[c] <= 0 {
		delete(p.waiters, c)
	}
}
