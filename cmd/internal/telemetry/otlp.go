package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// signal is one of the three kinds of telemetry, as the names of OpenTelemetry's
// environment variables spell it.
type signal string

const (
	traces  signal = "TRACES"
	metrics signal = "METRICS"
	logs    signal = "LOGS"
)

var signals = []signal{traces, metrics, logs}

// protocol is how a signal is sent over OTLP; "" is not at all.
type protocol string

const (
	overHTTP protocol = "http/protobuf"
	overGRPC protocol = "grpc"
)

// variable gives the first of OTEL_EXPORTER_OTLP_<signal>_<name> and
// OTEL_EXPORTER_OTLP_<name> that is set, and its value.
func (s signal) variable(name string) (variable, value string) {
	own, common := "OTEL_EXPORTER_OTLP_"+string(s)+"_"+name, "OTEL_EXPORTER_OTLP_"+name
	if v := strings.TrimSpace(os.Getenv(own)); v != "" {
		return own, v
	}
	return common, strings.TrimSpace(os.Getenv(common))
}

// protocol reads from the environment whether a signal is sent, and how. Without an
// endpoint it is not, unless OTEL_<signal>_EXPORTER says otlp: then to the endpoint
// of the specification, on this machine. The exporters read the endpoint, headers,
// certificates and time-outs themselves.
//
// Errors: what the exporters would pass over in silence, or print with the secrets
// in it. No error repeats an address or a header: either may hold a key.
// Source: OpenTelemetry specification 1.5x, "SDK configuration" and "OTLP exporter",
// read 2026-11-26.
func (s signal) protocol() (protocol, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return "", nil
	}
	endpointName, endpoint := s.variable("ENDPOINT")
	exporterName := "OTEL_" + string(s) + "_EXPORTER"
	switch exporter := strings.ToLower(strings.TrimSpace(os.Getenv(exporterName))); {
	case exporter == "none", s == metrics && exporter == "prometheus":
		return "", nil
	case exporter == "" && endpoint == "":
		return "", nil
	case exporter != "" && exporter != "otlp":
		return "", fmt.Errorf("environment variable %s: %q: want otlp or none", exporterName, exporter)
	}
	if endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			return "", fmt.Errorf("environment variable %s: want http://host:port or https://host:port, without a user", endpointName)
		}
	}
	if name, value := s.variable("HEADERS"); value != "" {
		if _, err := headerValues(value); err != nil {
			return "", fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	name, value := s.variable("PROTOCOL")
	p := protocol(cmp.Or(value, string(overHTTP)))
	if p != overHTTP && p != overGRPC {
		return "", fmt.Errorf("environment variable %s: %q: want %s or %s", name, value, overHTTP, overGRPC)
	}
	return p, nil
}

// headerValues gives the values in name=value,name=value.
func headerValues(text string) ([]string, error) {
	var values []string
	for i, pair := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		plain, err := url.PathUnescape(value)
		if !ok || err != nil || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("header %d: want name=value,name=value, values percent-encoded", i+1)
		}
		values = append(values, strings.TrimSpace(value), strings.TrimSpace(plain))
	}
	return values, nil
}

// headerSecrets gives what the headers of all signals hold, longest first, so that
// it can be kept out of messages. Values of less than four bytes are no secrets.
func headerSecrets() []string {
	var secrets []string
	for _, s := range signals {
		for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_" + string(s) + "_HEADERS"} {
			if values, err := headerValues(os.Getenv(name)); err == nil {
				secrets = append(secrets, values...)
			}
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < 4 })
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return slices.Compact(secrets)
}

// exporters are where telemetry is sent; nil is nowhere.
type exporters struct {
	traces  sdktrace.SpanExporter
	metrics sdkmetric.Exporter
	logs    sdklog.Exporter
}

// newExporters makes those that the environment asks for. They connect to nothing
// yet.
//
// Errors: every fault of the environment at once.
func newExporters(ctx context.Context) (exporters, error) {
	var x exporters
	var faults []error
	for _, s := range signals {
		p, err := s.protocol()
		if err == nil && p != "" {
			err = x.add(ctx, s, p)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("send %s: %w", strings.ToLower(string(s)), err))
		}
	}
	return x, errors.Join(faults...)
}

func (x *exporters) add(ctx context.Context, s signal, p protocol) (err error) {
	switch s {
	case traces:
		if p == overGRPC {
			x.traces, err = otlptracegrpc.New(ctx)
		} else {
			x.traces, err = otlptracehttp.New(ctx)
		}
	case metrics:
		if p == overGRPC {
			x.metrics, err = otlpmetricgrpc.New(ctx)
		} else {
			x.metrics, err = otlpmetrichttp.New(ctx)
		}
	case logs:
		if p == overGRPC {
			x.logs, err = otlploggrpc.New(ctx)
		} else {
			x.logs, err = otlploghttp.New(ctx)
		}
	}
	return err
}
