package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the instruments of a source; all carry the topic's name.
type metrics struct {
	topic           metric.MeasurementOption
	messages, bytes metric.Int64Counter
	gaps, missing   metric.Int64Counter
	troubles        metric.Int64Counter
	lag             metric.Float64Histogram
}

func newMetrics(s *Source) (*metrics, error) {
	m := &metrics{topic: metric.WithAttributeSet(attribute.NewSet(attribute.String("topic", s.cfg.Topic)))}
	var errs []error
	count := func(name, unit, text string) metric.Int64Counter {
		c, err := s.deps.Meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	m.messages = count("millrace.kafka_source.messages", "{message}", "Messages received from a Kafka topic.")
	m.bytes = count("millrace.kafka_source.bytes", "By", "Bytes of messages received from a Kafka topic.")
	m.gaps = count("millrace.kafka_source.gaps", "{gap}", "Runs of messages of a Kafka topic that were never read, by reason.")
	m.missing = count("millrace.kafka_source.missing", "{message}", "Messages of a Kafka topic known never to have been read, by reason.")
	m.troubles = count("millrace.kafka_source.troubles", "{error}", "Answers of Kafka's brokers that kept a partition from being read.")
	var err error
	m.lag, err = s.deps.Meter.Float64Histogram("millrace.kafka_source.lag", metric.WithUnit("s"), metric.WithDescription("Time from the message's arrival in the Kafka topic to its receipt."))
	errs = append(errs, err)
	_, err = s.deps.Meter.Int64ObservableGauge("millrace.kafka_source.unacknowledged", metric.WithUnit("{message}"),
		metric.WithDescription("Messages of a Kafka topic that wait for acknowledgement."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(s.unacknowledged(), m.topic)
			return nil
		}))
	return m, errors.Join(append(errs, err)...)
}

func (m *metrics) received(ctx context.Context, r *kgo.Record) {
	m.messages.Add(ctx, 1, m.topic)
	m.bytes.Add(ctx, int64(len(r.Value)), m.topic)
	m.lag.Record(ctx, max(0, time.Since(r.Timestamp).Seconds()), m.topic)
}

func (m *metrics) gap(ctx context.Context, g Gap) {
	reason := metric.WithAttributes(attribute.String("reason", string(g.Reason)))
	m.gaps.Add(ctx, 1, m.topic, reason)
	if g.Missing > 0 {
		m.missing.Add(ctx, g.Missing, m.topic, reason)
	}
}

// unacknowledged counts the messages that wait in all partitions of ours.
func (s *Source) unacknowledged() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.partitions {
		n += p.tracker.Waiting()
	}
	return int64(n)
}
