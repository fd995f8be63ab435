package eventhubs

import (
	"context"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the instruments of a source; all carry the names of
// namespace and hub.
type metrics struct {
	hub                metric.MeasurementOption
	messages, bytes    metric.Int64Counter
	gaps, missing      metric.Int64Counter
	reconnects, stolen counter
	lag                metric.Float64Histogram
	gauge              metric.Registration
	now                func() int64 // ms
}

// counter is an instrument with its attributes.
type counter struct {
	metric.Int64Counter
	with metric.MeasurementOption
}

func (c counter) Add(ctx context.Context, n int64) { c.Int64Counter.Add(ctx, n, c.with) }

func newMetrics(s *Source) (*metrics, error) {
	m := &metrics{
		hub: metric.WithAttributeSet(attribute.NewSet(attribute.String("namespace", s.cfg.namespace()), attribute.String("hub", s.hub))),
		now: func() int64 { return s.deps.Now().UnixMilli() },
	}
	var errs []error
	count := func(name, unit, text string) metric.Int64Counter {
		c, err := s.deps.Meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	m.messages = count("millrace.eventhubs.messages", "{message}", "Messages received.")
	m.bytes = count("millrace.eventhubs.bytes", "By", "Bytes of message bodies received.")
	m.gaps = count("millrace.eventhubs.gaps", "{gap}", "Runs of messages that were never read, by reason.")
	m.missing = count("millrace.eventhubs.missing", "{message}", "Messages known never to have been read, by reason.")
	m.reconnects = counter{count("millrace.eventhubs.reconnects", "{link}", "Links that broke and were made anew."), m.hub}
	m.stolen = counter{count("millrace.eventhubs.ownership.lost", "{link}", "Links lost, or refused, to a reader of a higher owner level."), m.hub}
	var err error
	m.lag, err = s.deps.Meter.Float64Histogram("millrace.eventhubs.lag", metric.WithUnit("s"), metric.WithDescription("Time from the message's arrival in the hub to its receipt."))
	errs = append(errs, err)
	waiting, err := s.deps.Meter.Int64ObservableGauge("millrace.eventhubs.unacknowledged", metric.WithUnit("{message}"),
		metric.WithDescription("Messages that wait for acknowledgement."))
	errs = append(errs, err)
	lag, err := s.deps.Meter.Int64ObservableGauge("millrace.eventhubs.lag.messages", metric.WithUnit("{message}"),
		metric.WithDescription("Messages that the hub has and that are not acknowledged, received or not."))
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	m.gauge, err = s.deps.Meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(waiting, s.unacknowledged(), m.hub)
		s.observeLag(o, lag)
		return nil
	}, waiting, lag)
	return m, err
}

func (m *metrics) received(ctx context.Context, e *azeventhubs.ReceivedEventData) {
	m.messages.Add(ctx, 1, m.hub)
	m.bytes.Add(ctx, int64(len(e.Body)), m.hub)
	if e.EnqueuedTime != nil {
		m.lag.Record(ctx, float64(max(0, m.now()-e.EnqueuedTime.UnixMilli()))/1000, m.hub)
	}
}

func (m *metrics) gap(ctx context.Context, g Gap) {
	reason := metric.WithAttributes(attribute.String("reason", string(g.Reason)))
	m.gaps.Add(ctx, 1, m.hub, reason)
	if g.Missing > 0 {
		m.missing.Add(ctx, g.Missing, m.hub, reason)
	}
}

// unacknowledged counts the messages that wait in all partitions.
func (s *Source) unacknowledged() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.partitions {
		if t := p.tracker(); t != nil {
			n += t.Waiting()
		}
	}
	return int64(n)
}
