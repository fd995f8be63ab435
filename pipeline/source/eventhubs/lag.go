package eventhubs

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/pipeline"
)

// watchLag asks where the partition ends until ctx does. What cannot be answered is
// asked again later: the reader has its own trouble with the hub, and says so.
func (p *partition) watchLag(ctx context.Context, c *client) {
	for pipeline.Wait(ctx, p.s.cfg.LagInterval) == nil {
		if props, err := c.partition(ctx, p.id); err == nil {
			p.reached(props.LastEnqueuedSequenceNumber)
		}
	}
}

// reached notes that the partition has a message, whether it was received or told
// of: it ends there or later.
func (p *partition) reached(sequence int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = max(p.end, sequence)
}

// lag gives how many messages of the partition are not acknowledged, received
// or not; false before the first link, which asks where the partition ends.
func (p *partition) lag() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.t == nil {
		return 0, false
	}
	done := p.base
	if c, ok := p.t.Mark(); ok {
		done = c.Sequence
	}
	return max(0, p.end-done), true
}

// Lag gives how many messages of the hub are not acknowledged, received or
// not. Any goroutine may call it.
func (s *Source) Lag() int64 {
	var sum int64
	for _, p := range s.all() {
		n, _ := p.lag()
		sum += n
	}
	return sum
}

func (s *Source) all() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*partition
	for _, p := range s.partitions {
		out = append(out, p)
	}
	return out
}

// observeLag tells the lag of each partition.
func (s *Source) observeLag(o metric.Observer, gauge metric.Int64Observable) {
	for _, p := range s.all() {
		if n, ok := p.lag(); ok {
			o.ObserveInt64(gauge, n, s.metrics.hub, metric.WithAttributes(attribute.String("partition", p.id)))
		}
	}
}
