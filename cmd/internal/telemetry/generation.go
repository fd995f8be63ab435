package telemetry

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/embedded"
)

// Generation gives a meter for something that is made, used and made again in one
// process. OpenTelemetry takes the callbacks of an observable instrument from its
// first maker only, and asks them for ever; with this meter those of the newest
// generation are asked, and none after end. Counters and histograms go on over the
// generations.
func Generation(m metric.Meter) (meter metric.Meter, end func()) {
	g := &generation{Meter: m}
	return g, g.end
}

type generation struct {
	metric.Meter

	mu            sync.Mutex
	registrations []metric.Registration
}

func (g *generation) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.registrations {
		_ = r.Unregister() // of a callback that is registered
	}
	g.registrations = nil
}

// RegisterCallback is undone by end.
func (g *generation) RegisterCallback(f metric.Callback, instruments ...metric.Observable) (metric.Registration, error) {
	r, err := g.Meter.RegisterCallback(f, instruments...)
	if err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.registrations = append(g.registrations, r)
	}
	return r, err
}

func (g *generation) Int64ObservableGauge(name string, options ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	c := metric.NewInt64ObservableGaugeConfig(options...)
	i, err := g.Meter.Int64ObservableGauge(name, metric.WithUnit(c.Unit()), metric.WithDescription(c.Description()))
	return i, errors.Join(err, g.ints(i, c.Callbacks()))
}

func (g *generation) Int64ObservableCounter(name string, options ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	c := metric.NewInt64ObservableCounterConfig(options...)
	i, err := g.Meter.Int64ObservableCounter(name, metric.WithUnit(c.Unit()), metric.WithDescription(c.Description()))
	return i, errors.Join(err, g.ints(i, c.Callbacks()))
}

func (g *generation) Int64ObservableUpDownCounter(name string, options ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	c := metric.NewInt64ObservableUpDownCounterConfig(options...)
	i, err := g.Meter.Int64ObservableUpDownCounter(name, metric.WithUnit(c.Unit()), metric.WithDescription(c.Description()))
	return i, errors.Join(err, g.ints(i, c.Callbacks()))
}

func (g *generation) Float64ObservableGauge(name string, options ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	c := metric.NewFloat64ObservableGaugeConfig(options...)
	i, err := g.Meter.Float64ObservableGauge(name, metric.WithUnit(c.Unit()), metric.WithDescription(c.Description()))
	for _, f := range c.Callbacks() {
		_, fault := g.RegisterCallback(func(ctx context.Context, o metric.Observer) error { return f(ctx, floatObserver{o: o, i: i}) }, i)
		err = errors.Join(err, fault)
	}
	return i, err
}

// ints registers an instrument's callbacks as those of the meter.
func (g *generation) ints(i metric.Int64Observable, callbacks []metric.Int64Callback) error {
	var faults []error
	for _, f := range callbacks {
		_, err := g.RegisterCallback(func(ctx context.Context, o metric.Observer) error { return f(ctx, intObserver{o: o, i: i}) }, i)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

type intObserver struct {
	embedded.Int64Observer
	o metric.Observer
	i metric.Int64Observable
}

func (o intObserver) Observe(v int64, options ...metric.ObserveOption) {
	o.o.ObserveInt64(o.i, v, options...)
}

type floatObserver struct {
	embedded.Float64Observer
	o metric.Observer
	i metric.Float64Observable
}

func (o floatObserver) Observe(v float64, options ...metric.ObserveOption) {
	o.o.ObserveFloat64(o.i, v, options...)
}
