package kafka

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/pipeline"
)

// Values of the attribute delivery.
const (
	exactlyOnce = "exactly-once"
	atLeastOnce = "at-least-once"
)

// metrics are the instruments of a sink.
type metrics struct {
	delivery attribute.KeyValue
	batches  metric.Int64Counter
	rows     metric.Int64Counter
	duration metric.Float64Histogram
}

func newMetrics(meter metric.Meter, delivery string) (*metrics, error) {
	m := &metrics{delivery: attribute.String("delivery", delivery)}
	var errs [4]error
	m.batches, errs[0] = meter.Int64Counter("millrace.kafka.batches", metric.WithUnit("{batch}"),
		metric.WithDescription("Batches sent to Kafka, by result and by what the sink promises."))
	m.rows, errs[1] = meter.Int64Counter("millrace.kafka.rows", metric.WithUnit("{row}"),
		metric.WithDescription("Rows landed in Kafka, by table and by what the sink promises."))
	m.duration, errs[2] = meter.Float64Histogram("millrace.kafka.batch.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from the first message of a batch to its commit."))
	_, errs[3] = meter.Int64ObservableGauge("millrace.kafka.exactly_once", metric.WithUnit("1"),
		metric.WithDescription("1 when the Kafka sink lands rows exactly once, 0 when rows may come again."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			value := int64(0)
			if delivery == exactlyOnce {
				value = 1
			}
			o.Observe(value)
			return nil
		}))
	return m, errors.Join(errs[:]...)
}

// transaction counts one batch.
func (m *metrics) transaction(ctx context.Context, piece pipeline.Piece, took time.Duration, err error) {
	result := "landed"
	switch {
	case errors.Is(err, pipeline.ErrInDoubt):
		result = "in_doubt"
	case errors.Is(err, pipeline.ErrFenced):
		result = "fenced"
	case err != nil:
		result = "refused"
	}
	m.batches.Add(ctx, 1, metric.WithAttributes(m.delivery, attribute.String("result", result)))
	m.duration.Record(ctx, took.Seconds(), metric.WithAttributes(m.delivery))
	if err != nil {
		return
	}
	for _, part := range piece.Parts {
		m.rows.Add(ctx, part.Rows, metric.WithAttributes(m.delivery, attribute.String("table", part.Table)))
	}
}
