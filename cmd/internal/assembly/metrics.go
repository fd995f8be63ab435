package assembly

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/pipeline/blob"
)

// instrument makes the reader's own counts visible.
func instrument(meter metric.Meter, r *blob.Reader) error {
	counts := []struct {
		name, unit, text string
		read             func(blob.Stats) int64
	}{
		{"millrace.blob.requests", "{request}", "Requests sent to the blob store.", func(s blob.Stats) int64 { return s.Requests }},
		{"millrace.blob.retries", "{request}", "Requests sent again after a fault.", func(s blob.Stats) int64 { return s.Retries }},
		{"millrace.blob.throttled", "{request}", "Requests that the blob store asked to be sent later.", func(s blob.Stats) int64 { return s.Throttled }},
		{"millrace.blob.fetched", "By", "Body bytes received from the blob store.", func(s blob.Stats) int64 { return s.Bytes }},
	}
	for _, c := range counts {
		_, err := meter.Int64ObservableCounter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.text),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(c.read(r.Stats()))
				return nil
			}))
		if err != nil {
			return err
		}
	}
	return nil
}
