package telemetry

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// An instrument that is made again shows what its newest maker says, and nothing
// once that has ended.
func TestGenerations(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	read := func() map[string]int64 {
		t.Helper()
		var data metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &data); err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for _, s := range data.ScopeMetrics {
			for _, m := range s.Metrics {
				switch d := m.Data.(type) {
				case metricdata.Gauge[int64]:
					for _, p := range d.DataPoints {
						got[m.Name] += p.Value
					}
				case metricdata.Sum[int64]:
					for _, p := range d.DataPoints {
						got[m.Name] += p.Value
					}
				case metricdata.Gauge[float64]:
					for _, p := range d.DataPoints {
						got[m.Name] += int64(p.Value)
					}
				}
			}
		}
		return got
	}
	var end func()
	for value := int64(1); value <= 3; value++ {
		if end != nil {
			end()
			if got := read(); len(got) != 0 {
				t.Errorf("between generations: %v", got)
			}
		}
		var m metric.Meter
		m, end = Generation(meter)
		observe := func(_ context.Context, o metric.Int64Observer) error { o.Observe(value); return nil }
		_, err1 := m.Int64ObservableGauge("gauge", metric.WithInt64Callback(observe), metric.WithUnit("By"))
		_, err2 := m.Int64ObservableCounter("counter", metric.WithInt64Callback(observe))
		_, err3 := m.Float64ObservableGauge("float", metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(float64(value))
			return nil
		}))
		both, err4 := m.Int64ObservableGauge("both")
		_, err5 := m.RegisterCallback(func(_ context.Context, o metric.Observer) error { o.ObserveInt64(both, value); return nil }, both)
		for _, err := range []error{err1, err2, err3, err4, err5} {
			if err != nil {
				t.Fatal(err)
			}
		}
		got := read()
		for _, name := range []string{"gauge", "counter", "float", "both"} {
			if got[name] != value {
				t.Errorf("generation %d: %s is %d", value, name, got[name])
			}
		}
	}
}

func TestStandbyIsReady(t *testing.T) {
	tel, err := Start(t.Context(), Config{Listen: "127.0.0.1:0", ServiceName: "test", Ready: func(context.Context) error { return ErrStandby }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tel.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	if status, body := get(t, tel.URL()+"/readyz"); status != 200 || !strings.HasPrefix(body, "standby") {
		t.Errorf("%d %s", status, body)
	}
}
