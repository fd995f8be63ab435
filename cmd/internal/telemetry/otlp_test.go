package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/cmd/internal/telemetry/telemetrytest"
	"github.com/millrace/millrace/pipeline/secret"
)

const canary = "canary-kEy/7f3a=="

// sendAll makes one span, one measurement and one line, and ends telemetry.
func sendAll(t *testing.T, cfg Config) {
	t.Helper()
	tel, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := tel.Meter("test").Int64Counter("millrace.landed.rows", metric.WithUnit("{row}"))
	if err != nil {
		t.Fatal(err)
	}
	rows.Add(t.Context(), 42, metric.WithAttributes(attribute.String("table", "flows")))
	ctx, span := tel.Tracer("test").Start(t.Context(), "land")
	tel.Logger().WarnContext(ctx, "landing", slog.String("table", "flows"), slog.Any("cause", errors.New("refused")), slog.Any("key", secret.New(canary)))
	tel.Logger().DebugContext(ctx, "below the level")
	span.End()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := tel.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// All three signals arrive, over both protocols, with the resource and the headers
// that the environment names; no header stands in a body or in the log.
func TestAllSignalsArrive(t *testing.T) {
	for _, protocol := range []string{"", "http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			r := telemetrytest.Start(t)
			endpoint := r.URL
			if protocol == "grpc" {
				endpoint = r.StartGRPC(t)
			}
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key="+strings.ReplaceAll(canary, "=", "%3D"))
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
			t.Setenv("OTEL_SERVICE_NAME", "millrace-eu")
			var out bytes.Buffer
			handler, err := NewHandler(&out, LogJSON, slog.LevelInfo)
			if err != nil {
				t.Fatal(err)
			}
			sendAll(t, Config{ServiceName: "millrace", Version: "1.2.3", Logger: slog.New(handler)})

			spans, lines, metrics := r.Spans(), r.Logs(), r.Metrics()
			if len(spans) != 1 || len(lines) != 1 || len(metrics) != 1 {
				t.Fatalf("%d spans, %d log records, %d metrics, want one of each", len(spans), len(lines), len(metrics))
			}
			if diff := cmp.Diff(map[string]string{"service.name": "millrace-eu", "service.version": "1.2.3", "deployment.environment.name": "test"}, without(r.Resource(), "telemetry.")); diff != "" {
				t.Errorf("resource (-want +got):\n%s", diff)
			}
			if sum, n := telemetrytest.Sum(metrics["millrace.landed.rows"], map[string]string{"table": "flows"}); sum != 42 || n != 1 || metrics["millrace.landed.rows"].Unit != "{row}" {
				t.Errorf("the counter arrives as %v", metrics["millrace.landed.rows"])
			}
			if !bytes.Equal(lines[0].TraceId, spans[0].TraceId) || !bytes.Equal(lines[0].SpanId, spans[0].SpanId) {
				t.Errorf("the log record is of span %x, want %x", lines[0].SpanId, spans[0].SpanId)
			}
			if diff := cmp.Diff(map[string]string{
				"table": "flows", "exception.message": "refused", "exception.type": "*errors.errorString", "key": secret.Mask,
			}, telemetrytest.Attributes(lines[0].Attributes)); diff != "" {
				t.Errorf("attributes of the log record (-want +got):\n%s", diff)
			}
			if want := fmt.Sprintf(`"trace_id":"%x","span_id":"%x"`, spans[0].TraceId, spans[0].SpanId); !strings.Contains(out.String(), want) {
				t.Errorf("the line lacks %s: %s", want, out.String())
			}
			if got := r.Header("api-key"); len(got) != 3 || got[0] != canary {
				t.Errorf("header %q, want that of the environment in each of 3 requests", got)
			}
			if r.Contains(canary) || strings.Contains(out.String(), canary) {
				t.Error("a secret stands in what was sent or logged")
			}
		})
	}
}

func without(attrs map[string]string, prefix string) map[string]string {
	for k := range attrs {
		if strings.HasPrefix(k, prefix) {
			delete(attrs, k)
		}
	}
	return attrs
}

// What the environment switches off is not sent.
func TestSignalsThatAreOff(t *testing.T) {
	for _, c := range []struct {
		name, value          string
		spans, lines, meters int
	}{
		{"OTEL_SDK_DISABLED", "true", 0, 0, 0},
		{"OTEL_TRACES_EXPORTER", "none", 0, 1, 1},
		{"OTEL_LOGS_EXPORTER", "none", 1, 0, 1},
		{"OTEL_METRICS_EXPORTER", "prometheus", 1, 1, 0},
		{"OTEL_TRACES_SAMPLER", "always_off", 0, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := telemetrytest.Start(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
			t.Setenv(c.name, c.value)
			handler, err := NewHandler(io.Discard, LogText, slog.LevelInfo)
			if err != nil {
				t.Fatal(err)
			}
			sendAll(t, Config{ServiceName: "millrace", Logger: slog.New(handler)})
			if got := [3]int{len(r.Spans()), len(r.Logs()), len(r.Metrics())}; got != [3]int{c.spans, c.lines, c.meters} {
				t.Errorf("%d spans, log records, metrics, want %d, %d, %d", got, c.spans, c.lines, c.meters)
			}
		})
	}
}

// A fault in the environment ends the start; no message repeats an address or a
// header.
func TestFaultsOfTheEnvironment(t *testing.T) {
	for _, c := range []struct{ name, value string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"},
		{"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://user:" + canary + "@collector:4318"},
		{"OTEL_EXPORTER_OTLP_HEADERS", canary[:5]},
		{"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key=%zz" + canary},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"},
		{"OTEL_TRACES_EXPORTER", "zipkin"},
		{"OTEL_TRACES_SAMPLER", "sometimes"},
		{"OTEL_TRACES_SAMPLER_ARG", "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv("OTEL_TRACES_SAMPLER", "traceidratio")
			t.Setenv(c.name, c.value)
			tel, err := Start(t.Context(), Config{ServiceName: "millrace"})
			if err == nil {
				_ = tel.Shutdown(t.Context())
				t.Fatal("no fault")
			}
			if !strings.Contains(err.Error(), c.name) || strings.Contains(err.Error(), "canar") {
				t.Errorf("%v", err)
			}
		})
	}
}

// A receiver that shows what it was sent does not bring a header into the log.
func TestAnswersOfTheReceiverAreMasked(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "refused: "+r.Header.Get("Api-Key"), http.StatusBadRequest)
	}))
	defer echo.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", echo.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key="+strings.ReplaceAll(canary, "=", "%3D"))
	var out bytes.Buffer
	tel, err := Start(t.Context(), Config{ServiceName: "millrace", Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer("test").Start(t.Context(), "land")
	span.End()
	tel.Logger().Info("one line")
	text := fmt.Sprint(tel.Shutdown(t.Context()))
	if all := text + out.String(); !strings.Contains(all, "refused: ***") || strings.Contains(all, canary) {
		t.Errorf("want the receiver's answer without the header: %s", all)
	}
}

// A commit is sampled when a read behind it is, and a read when a notification is.
func TestLinksKeepASampleTogether(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
	sampler, err := newSampler()
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler))
	defer provider.Shutdown(t.Context())
	tracer := provider.Tracer("test")
	start := func(links ...trace.SpanContext) trace.SpanContext {
		var options []trace.SpanStartOption
		for _, l := range links {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: l}))
		}
		_, span := tracer.Start(t.Context(), "s", options...)
		span.End()
		return span.SpanContext()
	}
	sampled := 0
	for range 1000 {
		notification := start()
		read := start(notification)
		if commit := start(start(), read); read.IsSampled() != notification.IsSampled() || read.IsSampled() && !commit.IsSampled() {
			t.Fatalf("notification %v, read %v, commit %v", notification.IsSampled(), read.IsSampled(), commit.IsSampled())
		}
		if read.IsSampled() {
			sampled++
		}
	}
	if sampled < 350 || sampled > 650 {
		t.Errorf("%d of 1,000 traces are sampled, want about half", sampled)
	}
}
