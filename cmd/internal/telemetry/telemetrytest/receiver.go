// Package telemetrytest is a receiver of OTLP for tests, made of the published
// protobufs alone: it shares nothing with the exporters that it judges.
//
// Requests flow in over HTTP or gRPC; out flow the spans, metrics and log records in
// them. The receiver owns its servers, which end with the test.
package telemetrytest

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Receiver keeps what was sent to it. Any goroutine may ask it.
type Receiver struct {
	// URL is the endpoint for OTLP over HTTP.
	URL string

	mu       sync.Mutex
	headers  []map[string][]string
	raw      [][]byte
	resource map[string]string
	spans    []*tracepb.Span
	metrics  []*metricspb.Metric
	logs     []*logspb.LogRecord
}

// Start starts a receiver over HTTP that ends with the test.
func Start(t testing.TB) *Receiver {
	r := &Receiver{}
	mux := http.NewServeMux()
	handle(mux, r, "POST /v1/traces", &collectortrace.ExportTraceServiceRequest{}, &collectortrace.ExportTraceServiceResponse{})
	handle(mux, r, "POST /v1/metrics", &collectormetrics.ExportMetricsServiceRequest{}, &collectormetrics.ExportMetricsServiceResponse{})
	handle(mux, r, "POST /v1/logs", &collectorlogs.ExportLogsServiceRequest{}, &collectorlogs.ExportLogsServiceResponse{})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// handle decodes requests like the model and answers as a collector does.
func handle(mux *http.ServeMux, r *Receiver, pattern string, model, answer proto.Message) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		m := model.ProtoReflect().New().Interface()
		if err := decode(req, m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.take(m, req.Header)
		body, _ := proto.Marshal(answer)
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(body) // a sender that went away is seen by its own test
	})
}

func decode(req *http.Request, into proto.Message) error {
	if c := req.Header.Get("Content-Type"); c != "application/x-protobuf" {
		return fmt.Errorf("content type %q", c)
	}
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = z
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return proto.Unmarshal(data, into)
}

// StartGRPC makes the receiver listen to OTLP over gRPC too, until the test ends.
func (r *Receiver) StartGRPC(t testing.TB) (url string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, traceService{r: r})
	collectormetrics.RegisterMetricsServiceServer(server, metricsService{r: r})
	collectorlogs.RegisterLogsServiceServer(server, logsService{r: r})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	r *Receiver
}

func (s traceService) Export(ctx context.Context, m *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	s.r.takeCall(ctx, m)
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	r *Receiver
}

func (s metricsService) Export(ctx context.Context, m *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.r.takeCall(ctx, m)
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

type logsService struct {
	collectorlogs.UnimplementedLogsServiceServer
	r *Receiver
}

func (s logsService) Export(ctx context.Context, m *collectorlogs.ExportLogsServiceRequest) (*collectorlogs.ExportLogsServiceResponse, error) {
	s.r.takeCall(ctx, m)
	return &collectorlogs.ExportLogsServiceResponse{}, nil
}

func (r *Receiver) takeCall(ctx context.Context, m proto.Message) {
	md, _ := metadata.FromIncomingContext(ctx)
	r.take(m, md)
}

func (r *Receiver) take(m proto.Message, headers map[string][]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	raw, _ := proto.Marshal(m)
	r.raw = append(r.raw, raw)
	r.headers = append(r.headers, headers)
	switch m := m.(type) {
	case *collectortrace.ExportTraceServiceRequest:
		for _, x := range m.ResourceSpans {
			r.resource = Attributes(x.Resource.GetAttributes())
			for _, y := range x.ScopeSpans {
				r.spans = append(r.spans, y.Spans...)
			}
		}
	case *collectormetrics.ExportMetricsServiceRequest:
		for _, x := range m.ResourceMetrics {
			for _, y := range x.ScopeMetrics {
				r.metrics = append(r.metrics, y.Metrics...)
			}
		}
	case *collectorlogs.ExportLogsServiceRequest:
		for _, x := range m.ResourceLogs {
			for _, y := range x.ScopeLogs {
				r.logs = append(r.logs, y.LogRecords...)
			}
		}
	}
}

// Spans gives all spans so far, in the order of their arrival.
func (r *Receiver) Spans() []*tracepb.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*tracepb.Span(nil), r.spans...)
}

// Logs gives all log records so far.
func (r *Receiver) Logs() []*logspb.LogRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*logspb.LogRecord(nil), r.logs...)
}

// Metrics gives each metric as it was sent last, by name.
func (r *Receiver) Metrics() map[string]*metricspb.Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := map[string]*metricspb.Metric{}
	for _, m := range r.metrics {
		last[m.Name] = m
	}
	return last
}

// Resource gives what the sender of spans says of itself.
func (r *Receiver) Resource() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resource
}

// Header gives the value of a header in every request.
func (r *Receiver) Header(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, h := range r.headers {
		for key, values := range h {
			if strings.EqualFold(key, name) {
				out = append(out, values...)
			}
		}
	}
	return out
}

// Contains says whether a text stands in any request's body.
func (r *Receiver) Contains(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.raw {
		if strings.Contains(string(m), text) {
			return true
		}
	}
	return false
}

// Attributes gives attributes as text.
func Attributes(attrs []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range attrs {
		out[a.Key] = Value(a.Value)
	}
	return out
}

// Value gives a value as text.
func Value(v *commonpb.AnyValue) string {
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return x.StringValue
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(x.IntValue)
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(x.BoolValue)
	case *commonpb.AnyValue_DoubleValue:
		return fmt.Sprint(x.DoubleValue)
	}
	return v.String()
}

// Sum adds up the points of a counter or gauge of whole numbers that have the
// attributes, and says how many there are.
func Sum(m *metricspb.Metric, attrs map[string]string) (sum int64, points int) {
	data := m.GetSum().GetDataPoints()
	if m.GetGauge() != nil {
		data = m.GetGauge().GetDataPoints()
	}
	for _, p := range data {
		has := Attributes(p.Attributes)
		fits := true
		for k, v := range attrs {
			fits = fits && has[k] == v
		}
		if fits {
			sum, points = sum+p.GetAsInt(), points+1
		}
	}
	return sum, points
}
