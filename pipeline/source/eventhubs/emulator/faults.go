package emulator

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// faults are the mishaps that tests order.
type faults struct {
	drop, throttle budget
	delay          atomic.Int64 // ns
}

// budget counts down to zero.
type budget struct{ n atomic.Int64 }

func (b *budget) take() bool {
	for {
		n := b.n.Load()
		if n <= 0 {
			return false
		}
		if b.n.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// Drop makes the next n events vanish: they are accepted and never stored.
func (s *Server) Drop(n int) { s.faults.drop.n.Store(int64(n)) }

// Throttle makes the next n requests fail with "server busy": messages sent, and
// management requests.
func (s *Server) Throttle(n int) { s.faults.throttle.n.Store(int64(n)) }

// Delay makes receivers get each event so long after it came. It applies to events
// that wait already as well.
func (s *Server) Delay(d time.Duration) {
	s.faults.delay.Store(int64(d))
	for _, c := range s.all() {
		c.wake()
	}
}

// Steal evicts all receivers of the group from the partition, as a receiver with a
// higher owner level does, and gives their number.
func (s *Server) Steal(hub, group string, partition int) (int, error) {
	return s.Detach(hub, group, partition, string(condStolen), "Another receiver takes the partition.")
}

// Detach ends the links of all receivers of the group at the partition with an
// error, and gives their number.
func (s *Server) Detach(hub, group string, partition int, condition, description string) (int, error) {
	p, err := s.find(hub, partition)
	if err != nil {
		return 0, err
	}
	readers := p.take(group)
	for _, r := range readers {
		r.evict(&wire.Error{Condition: wire.Symbol(condition), Description: description})
	}
	return len(readers), nil
}

// Disconnect cuts all connections without a word and gives their number.
func (s *Server) Disconnect() int {
	conns := s.all()
	for _, c := range conns {
		_ = c.nc.Close()
	}
	return len(conns)
}

// Expire makes the partition forget all events before the sequence number, as if
// their time were over.
func (s *Server) Expire(hub string, partition int, before int64) error {
	p, err := s.find(hub, partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.head < len(p.events) && p.first < before {
		p.drop()
	}
	p.compact()
	return nil
}

// Recreate empties the hub and starts its sequence numbers again, as deleting it
// and making it anew does. Receivers lose their links.
func (s *Server) Recreate(hub string) error {
	h := s.hub(hub)
	if h == nil {
		return fmt.Errorf("recreate event hub %q: there is no such hub", hub)
	}
	h.created.Store(max(s.cfg.Now().UnixMilli(), h.created.Load()+1))
	for _, p := range h.partitions {
		p.mu.Lock()
		p.events, p.head, p.first, p.offset, p.bytes, p.last = nil, 0, 0, 0, 0, nowhere
		readers := p.readers
		p.readers = map[string][]*outbound{}
		p.mu.Unlock()
		for _, group := range readers {
			for _, r := range group {
				r.evict(wire.Errorf(condNotFound, "The messaging entity '%s' could not be found.", hub))
			}
		}
	}
	return nil
}

func (s *Server) find(hub string, number int) (*partition, error) {
	h := s.hub(hub)
	if h == nil {
		return nil, fmt.Errorf("find event hub %q: there is no such hub", hub)
	}
	if number < 0 || number >= len(h.partitions) {
		return nil, fmt.Errorf("find event hub %q: there is no partition %d", hub, number)
	}
	return h.partitions[number], nil
}

func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}
