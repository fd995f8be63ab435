// Package telemetry is where metrics, traces and log records leave a process.
//
// Instruments, spans and lines flow in from what parts are given: a meter, a tracer,
// a logger. Out flow a Prometheus page with /healthz and /readyz over HTTP, lines on
// standard error, and all three signals over OTLP when the environment names a
// receiver. Nothing else leaves the process: no names of hosts, no command lines.
//
// Start starts one goroutine that serves HTTP, and the SDK's own that send;
// Shutdown waits for all of them. No global provider is set: whoever measures is
// handed a meter. Only the error handler and the logger of OpenTelemetry itself are
// global, as the library has no others, and they go to the logger that Start got.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// DefaultListen is where a process is scraped unless configured otherwise.
const DefaultListen = "127.0.0.1:9464"

// Config of a process's telemetry.
type Config struct {
	// Listen is the address of the page, host:port; port 0 takes a free one, and no
	// host means loopback. The page has no password: an address that others reach
	// shows them the numbers. Empty means no page.
	Listen string
	// ServiceName and Version name the process in metrics and traces. The environment
	// (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) goes before.
	ServiceName string
	Version     string
	// Ready says why the process cannot do its work yet, or nil. It has two seconds.
	// Without it the process counts as starting until SetReady.
	Ready func(context.Context) error
	// Logger writes lines on this machine; what parts log with is Telemetry.Logger. It
	// gets what goes wrong in telemetry itself, at most one line a minute; nil means
	// none.
	Logger *slog.Logger
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.ServiceName == "" {
		faults = append(faults, errors.New("telemetry.service_name: empty, want the program's name"))
	}
	if c.Listen != "" {
		if err := checkListen(c.Listen); err != nil {
			faults = append(faults, fmt.Errorf("telemetry.listen: %q, want host:port: %w", c.Listen, err))
		}
	}
	return errors.Join(faults...)
}

func checkListen(listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return errors.New("no port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %d is no number up to 65535", n)
	}
	return nil
}

// Telemetry is what a running process measures with.
type Telemetry struct {
	meters *sdkmetric.MeterProvider
	tracer trace.TracerProvider
	spans  *sdktrace.TracerProvider // nil when no spans are sent
	logs   *sdklog.LoggerProvider   // nil when no log records are sent
	logger *slog.Logger
	limit  *limiter
	mask   *strings.Replacer // of secrets in texts of OpenTelemetry's own
	ready  atomic.Pointer[func(context.Context) error]
	page   *page // nil without Listen
}

// Start makes the providers, listens, and serves. ctx bounds the start only.
//
// Errors: every fault of cfg; an address that is taken or not ours; an unusable
// receiver in the environment.
func Start(ctx context.Context, cfg Config) (*Telemetry, error) {
	return start(ctx, cfg, defaultLimits)
}

func start(ctx context.Context, cfg Config, limits limits) (*Telemetry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	mask := headerMask()
	own := masked{logger.Handler(), mask}
	otel.SetErrorHandler(quiet(slog.New(own)))
	otel.SetLogger(logr.FromSlogHandler(own))
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName(cfg.ServiceName), semconv.ServiceVersion(cfg.Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe the process for telemetry: %w", err)
	}
	t := &Telemetry{mask: mask}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	to, err := newExporters(ctx)
	if err != nil {
		return nil, err
	}
	if t.meters, err = newMeters(res, registry, to.metrics); err != nil {
		return nil, err
	}
	if to.logs != nil {
		t.logs = sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(sdklog.NewBatchProcessor(to.logs)))
	}
	t.newLogger(logger.Handler())
	if err := t.startSpans(res, to.traces); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	ready := cfg.Ready
	if ready == nil {
		ready = func(context.Context) error { return errors.New("starting") }
	}
	t.SetReady(ready)
	if cfg.Listen == "" {
		return t, nil
	}
	if t.page, err = servePage(ctx, cfg.Listen, t.mux(registry, limits), logger, limits); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// maxSeries bounds the series of one instrument; what is beyond it becomes one
// series with otel_metric_overflow="true".
const maxSeries = 2000

// seconds are the bounds of every histogram of durations: a request within a
// machine takes milliseconds, the longest INSERT minutes.
var seconds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 7.5, 10, 15, 30, 60, 300}

// newMeters makes the provider of the page and, when there is one, of the exporter,
// which sends every OTEL_METRIC_EXPORT_INTERVAL, a minute by default.
func newMeters(res *resource.Resource, registry *prometheus.Registry, sender sdkmetric.Exporter) (*sdkmetric.MeterProvider, error) {
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("make the metrics exporter: %w", err)
	}
	durations := sdkmetric.NewView(
		sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram, Unit: "s"},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: seconds}})
	options := []sdkmetric.Option{
		sdkmetric.WithResource(res), sdkmetric.WithReader(exporter), sdkmetric.WithView(durations), sdkmetric.WithCardinalityLimit(maxSeries),
	}
	if sender != nil {
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(sender)))
	}
	return sdkmetric.NewMeterProvider(options...), nil
}

// startSpans sends spans when there is somewhere to send them, and drops them
// otherwise.
func (t *Telemetry) startSpans(res *resource.Resource, exporter sdktrace.SpanExporter) error {
	t.tracer = tracenoop.NewTracerProvider()
	if exporter == nil {
		return nil
	}
	sampler, err := newSampler()
	if err != nil {
		return fmt.Errorf("send traces: %w", err)
	}
	limits := sdktrace.NewSpanLimits() // what the environment says
	if os.Getenv("OTEL_SPAN_LINK_COUNT_LIMIT") == "" {
		limits.LinkCountLimit = linkLimit
	}
	// The queue holds 2,048 spans and drops what does not fit; it never blocks.
	t.spans = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sampler), sdktrace.WithRawSpanLimits(limits))
	t.tracer = t.spans
	return nil
}

// linkLimit is how many links a span may have: a commit links to every read of its
// byte ranges, several hundred in a large estate. The specification's default is 128.
const linkLimit = 1024

// Meter gives the meter of a part, named by its import path.
func (t *Telemetry) Meter(name string) metric.Meter { return t.meters.Meter(name) }

// Tracer gives the tracer of a part, named by its import path.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.tracer.Tracer(name) }

// Logger gives what parts log with. A line that is repeated more than ten times a
// minute is held back, and another one says how often.
func (t *Telemetry) Logger() *slog.Logger { return t.logger }

// SetReady replaces the function that says why the process cannot do its work.
// Safe at any time.
func (t *Telemetry) SetReady(ready func(context.Context) error) { t.ready.Store(&ready) }

// Handle serves a pattern of http.ServeMux beside the metrics, such as
// "GET /status", under the same limits. Safe while the page is served; without a
// page it does nothing. A pattern that is taken is a broken invariant.
func (t *Telemetry) Handle(pattern string, handler http.Handler) {
	if t.page != nil {
		t.page.mux.Handle(pattern, handler)
	}
}

// Addr gives the address of the page, with the port that was taken; "" without one.
func (t *Telemetry) Addr() string {
	if t.page == nil {
		return ""
	}
	return t.page.addr
}

// URL gives the address of the page's root, "" without one.
func (t *Telemetry) URL() string {
	if t.page == nil {
		return ""
	}
	return "http://" + t.page.addr
}

// Shutdown ends the page, sends what is left, and waits for all goroutines.
// What is not done when ctx ends is dropped.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var faults []error
	if t.page != nil {
		faults = append(faults, t.page.shutdown(ctx))
	}
	if t.spans != nil {
		faults = append(faults, t.spans.Shutdown(ctx))
	}
	faults = append(faults, t.meters.Shutdown(ctx))
	t.limit.close()
	if t.logs != nil {
		faults = append(faults, t.logs.Shutdown(ctx))
	}
	if err := errors.Join(faults...); err != nil {
		// No cause that could be asked for: its text may hold a receiver's answer.
		return errors.New(t.mask.Replace("stop telemetry: " + err.Error()))
	}
	return nil
}

// quietTime is the least time between two lines about telemetry itself: a
// receiver that is down fails every few seconds.
const quietTime = time.Minute

// quiet logs errors of OpenTelemetry, the first of each minute.
func quiet(logger *slog.Logger) otel.ErrorHandler {
	var last atomic.Int64
	return otel.ErrorHandlerFunc(func(err error) {
		now := time.Now().UnixNano()
		before := last.Load()
		if (before == 0 || now-before >= int64(quietTime)) && last.CompareAndSwap(before, now) {
			logger.Warn("telemetry is incomplete", slog.Any("error", err))
		}
	})
}
