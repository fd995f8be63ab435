package telemetrytest

import (
	"sync"

	"go.opentelemetry.io/otel/metric"
)

// Instrument is what was registered under one name.
type Instrument struct{ Name, Kind, Unit, Meaning string }

// Recorder is a meter that remembers what is registered with it and passes
// everything on.
type Recorder struct {
	metric.Meter
	mu   sync.Mutex
	seen map[string]Instrument
}

// Record makes a recorder in front of a meter.
func Record(m metric.Meter) *Recorder { return &Recorder{Meter: m, seen: map[string]Instrument{}} }

// Instruments gives what was registered so far, by name. One that was registered
// twice in different ways has a kind that says so.
func (r *Recorder) Instruments() map[string]Instrument {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]Instrument{}
	for k, v := range r.seen {
		out[k] = v
	}
	return out
}

// config is what every kind of instrument is made with.
type config interface {
	Unit() string
	Description() string
}

func (r *Recorder) note(name, kind string, c config) {
	i := Instrument{name, kind, c.Unit(), c.Description()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.seen[name]; ok && old != i {
		i.Kind = "registered in several ways"
	}
	r.seen[name] = i
}

// The methods of a meter, each with what it makes.

func (r *Recorder) Int64Counter(name string, o ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	r.note(name, "counter", metric.NewInt64CounterConfig(o...))
	return r.Meter.Int64Counter(name, o...)
}

func (r *Recorder) Int64UpDownCounter(name string, o ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	r.note(name, "gauge", metric.NewInt64UpDownCounterConfig(o...))
	return r.Meter.Int64UpDownCounter(name, o...)
}

func (r *Recorder) Int64Histogram(name string, o ...metric.Int64HistogramOption) (metric.Int64Histogram, error) {
	r.note(name, "histogram", metric.NewInt64HistogramConfig(o...))
	return r.Meter.Int64Histogram(name, o...)
}

func (r *Recorder) Int64Gauge(name string, o ...metric.Int64GaugeOption) (metric.Int64Gauge, error) {
	r.note(name, "gauge", metric.NewInt64GaugeConfig(o...))
	return r.Meter.Int64Gauge(name, o...)
}

func (r *Recorder) Int64ObservableCounter(name string, o ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	r.note(name, "counter", metric.NewInt64ObservableCounterConfig(o...))
	return r.Meter.Int64ObservableCounter(name, o...)
}

func (r *Recorder) Int64ObservableUpDownCounter(name string, o ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	r.note(name, "gauge", metric.NewInt64ObservableUpDownCounterConfig(o...))
	return r.Meter.Int64ObservableUpDownCounter(name, o...)
}

func (r *Recorder) Int64ObservableGauge(name string, o ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	r.note(name, "gauge", metric.NewInt64ObservableGaugeConfig(o...))
	return r.Meter.Int64ObservableGauge(name, o...)
}

func (r *Recorder) Float64Counter(name string, o ...metric.Float64CounterOption) (metric.Float64Counter, error) {
	r.note(name, "counter", metric.NewFloat64CounterConfig(o...))
	return r.Meter.Float64Counter(name, o...)
}

func (r *Recorder) Float64UpDownCounter(name string, o ...metric.Float64UpDownCounterOption) (metric.Float64UpDownCounter, error) {
	r.note(name, "gauge", metric.NewFloat64UpDownCounterConfig(o...))
	return r.Meter.Float64UpDownCounter(name, o...)
}

func (r *Recorder) Float64Histogram(name string, o ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	r.note(name, "histogram", metric.NewFloat64HistogramConfig(o...))
	return r.Meter.Float64Histogram(name, o...)
}

func (r *Recorder) Float64Gauge(name string, o ...metric.Float64GaugeOption) (metric.Float64Gauge, error) {
	r.note(name, "gauge", metric.NewFloat64GaugeConfig(o...))
	return r.Meter.Float64Gauge(name, o...)
}

func (r *Recorder) Float64ObservableCounter(name string, o ...metric.Float64ObservableCounterOption) (metric.Float64ObservableCounter, error) {
	r.note(name, "counter", metric.NewFloat64ObservableCounterConfig(o...))
	return r.Meter.Float64ObservableCounter(name, o...)
}

func (r *Recorder) Float64ObservableUpDownCounter(name string, o ...metric.Float64ObservableUpDownCounterOption) (metric.Float64ObservableUpDownCounter, error) {
	r.note(name, "gauge", metric.NewFloat64ObservableUpDownCounterConfig(o...))
	return r.Meter.Float64ObservableUpDownCounter(name, o...)
}

func (r *Recorder) Float64ObservableGauge(name string, o ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	r.note(name, "gauge", metric.NewFloat64ObservableGaugeConfig(o...))
	return r.Meter.Float64ObservableGauge(name, o...)
}
