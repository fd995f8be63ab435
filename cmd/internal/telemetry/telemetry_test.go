package telemetry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// What the machine's own environment says must not reach these tests.
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") {
			os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

func local() Config {
	return Config{Listen: "127.0.0.1:0", ServiceName: "millrace", Version: "1.2.3"}
}

// startTest starts telemetry that ends with the test, without a fault.
func startTest(t *testing.T, cfg Config, limits limits) *Telemetry {
	t.Helper()
	tel, err := start(t.Context(), cfg, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := tel.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestScrapeGivesInstruments(t *testing.T) {
	tel := startTest(t, local(), defaultLimits)
	meter := tel.Meter("test")
	rows, err := meter.Int64Counter("millrace.landed.rows", metric.WithUnit("{row}"), metric.WithDescription("Rows landed."))
	if err != nil {
		t.Fatal(err)
	}
	took, err := meter.Float64Histogram("millrace.land.duration", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	rows.Add(t.Context(), 40, metric.WithAttributes(attribute.String("table", "flows")))
	rows.Add(t.Context(), 2, metric.WithAttributes(attribute.String("table", "flows")))
	took.Record(t.Context(), 0.003)
	status, page := get(t, tel.URL()+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	for _, want := range []string{
		`millrace_landed_rows_total{table="flows"} 42`,
		`# HELP millrace_landed_rows_total Rows landed.`,
		`millrace_land_duration_seconds_bucket{le="0.0025"} 0`,
		`millrace_land_duration_seconds_bucket{le="0.005"} 1`,
		`service_name="millrace"`,
		`service_version="1.2.3"`,
		"process_resident_memory_bytes",
		"go_goroutines",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}

// Attributes that take any value do not eat the memory.
func TestSeriesAreBounded(t *testing.T) {
	tel := startTest(t, local(), defaultLimits)
	c, err := tel.Meter("test").Int64Counter("many")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxSeries {
		c.Add(t.Context(), 1, metric.WithAttributes(attribute.Int("n", i)))
	}
	_, page := get(t, tel.URL()+"/metrics")
	if n := strings.Count(page, "\nmany_total{"); n > maxSeries {
		t.Errorf("%d series, at most %d", n, maxSeries)
	}
	if !strings.Contains(page, `many_total{otel_metric_overflow="true"}`) {
		t.Error("no series for the rest")
	}
}

func TestReadyFlips(t *testing.T) {
	tel := startTest(t, local(), defaultLimits)
	check := func(path string, status int, text string) {
		t.Helper()
		if s, body := get(t, tel.URL()+path); s != status || body != text+"\n" {
			t.Errorf("%s answers %d %q, want %d %q", path, s, body, status, text)
		}
	}
	check("/readyz", 503, "not ready: starting")
	check("/healthz", 200, "ok")
	tel.SetReady(func(context.Context) error { return nil })
	check("/readyz", 200, "ready")
	tel.SetReady(func(context.Context) error { return errors.New("clickhouse is not reachable") })
	check("/readyz", 503, "not ready: clickhouse is not reachable")
	check("/healthz", 200, "ok")

	tel.Handle("GET /status", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "{}") }))
	check("/status", 200, "{}")

	cfg := local()
	cfg.Ready = func(context.Context) error { return nil }
	tel = startTest(t, cfg, defaultLimits)
	check("/readyz", 200, "ready")
}

// A question that does not end is answered no.
func TestReadyHasATimeout(t *testing.T) {
	cfg, limits := local(), defaultLimits
	limits.ready = 10 * time.Millisecond
	cfg.Ready = func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	tel := startTest(t, cfg, limits)
	if s, body := get(t, tel.URL()+"/readyz"); s != 503 || !strings.Contains(body, "deadline") {
		t.Errorf("answer %d %q", s, body)
	}
}

func TestOnlyReadsOfKnownPaths(t *testing.T) {
	tel := startTest(t, local(), defaultLimits)
	for path, want := range map[string]int{"/": 404, "/debug/pprof/": 404, "/metrics/x": 404, "/metrics": 405, "/healthz": 405, "/readyz": 405} {
		resp, err := http.Post(tel.URL()+path, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("POST %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestBoundToLoopback(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", ":0", "localhost:0"} {
		cfg := local()
		cfg.Listen = listen
		tel := startTest(t, cfg, defaultLimits)
		host, _, err := net.SplitHostPort(tel.Addr())
		if err != nil || !net.ParseIP(host).IsLoopback() {
			t.Errorf("listen %q is bound to %q", listen, tel.Addr())
		}
	}
}

func TestWithoutPage(t *testing.T) {
	cfg := local()
	cfg.Listen = ""
	tel := startTest(t, cfg, defaultLimits)
	if tel.Addr() != "" || tel.URL() != "" {
		t.Errorf("a page at %q", tel.Addr())
	}
	tel.Handle("GET /status", http.NotFoundHandler())
	if _, err := tel.Meter("test").Int64Counter("c"); err != nil {
		t.Error(err)
	}
}

// A client that sends nothing, or its header byte by byte, is cut off; one that
// sends too much of it too.
func TestSlowClientsAreCutOff(t *testing.T) {
	limits := defaultLimits
	limits.header, limits.read, limits.idle = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	tel := startTest(t, local(), limits)
	for name, send := range map[string]string{
		"silent":       "",
		"half a line":  "GET /met",
		"half headers": "GET /metrics HTTP/1.1\r\nHost: x\r\nA: ",
		"idle":         "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
		"long header":  "GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 32<<10) + "\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", tel.Addr())
		if err != nil {
			t.Fatal(err)
		}
		// The server has to end the connection; this deadline is the test's own.
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, send); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(bufio.NewReader(conn))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
		if name == "long header" && !strings.Contains(string(answer), " 431 ") {
			t.Errorf("a header of 32 KiB is answered %.40q", answer)
		}
		conn.Close()
	}
}

// A thousand clients that send nothing, or a header that never ends, hold a few
// connections and keep nobody from being answered at once.
func TestSlowClientsKeepNobodyOut(t *testing.T) {
	tel := startTest(t, local(), defaultLimits)
	sends := []string{"", "GET /healthz HTTP/1.1\r\nHost: x\r\nA: ", "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"}
	for i := range 1000 {
		conn, err := net.Dial("tcp", tel.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		// One that was displaced already refuses what is written: that is what is wanted.
		_, _ = io.WriteString(conn, sends[i%len(sends)])
		if i%100 != 99 {
			continue
		}
		for _, path := range []string{"/healthz", "/metrics", "/readyz"} {
			http.DefaultClient.CloseIdleConnections()
			begin := time.Now()
			if s, _ := get(t, tel.URL()+path); s != 200 && path != "/readyz" {
				t.Errorf("%s beside %d slow clients: status %d", path, i+1, s)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("%s took %v beside %d slow clients", path, took, i+1)
			}
		}
	}
}

// When all places are taken, the newcomer gets that of the client that waits
// longest, and none that is being answered.
func TestConnectionsAreBounded(t *testing.T) {
	limits := defaultLimits
	limits.connections = 2
	tel := startTest(t, local(), limits)
	asked, answer := make(chan struct{}), make(chan struct{})
	tel.Handle("GET /slow", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, "done")
	}))
	dial := func(send string) net.Conn {
		conn, err := net.Dial("tcp", tel.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, send); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	gone := func(conn net.Conn) {
		t.Helper()
		if n, err := io.Copy(io.Discard, conn); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection stays: %d bytes, %v", n, err)
		}
	}
	const slow = "GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	first := dial(slow)
	<-asked
	silent := dial("")
	second := dial(slow)
	<-asked
	gone(silent)   // displaced by the second
	gone(dial("")) // both places are busy
	close(answer)
	for _, conn := range []net.Conn{first, second} {
		if got, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(got), "done") {
			t.Errorf("who was being answered got %q, %v", got, err)
		}
	}
	if s, _ := get(t, tel.URL()+"/healthz"); s != 200 {
		t.Errorf("status %d", s)
	}
}

func TestFaultsOfTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want []string
	}{
		{Config{Listen: "nowhere"}, []string{"telemetry.service_name", "telemetry.listen"}},
		{Config{ServiceName: "m", Listen: "127.0.0.1:99999"}, []string{"telemetry.listen"}},
		{Config{ServiceName: "m", Listen: "192.0.2.1:0"}, []string{"listen for metrics"}},
	} {
		tel, err := Start(t.Context(), c.cfg)
		if err == nil {
			t.Errorf("%+v: no fault", c.cfg)
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %s", c.cfg, err, want)
			}
		}
	}
}

func TestTakenAddressIsAFault(t *testing.T) {
	first := startTest(t, local(), defaultLimits)
	cfg := local()
	cfg.Listen = first.Addr()
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("second start: %v", err)
	}
}

// Spans go to the receiver that the environment names, the last of them at
// Shutdown; without one there are none.
func TestSpansAreFlushed(t *testing.T) {
	var mu sync.Mutex
	var paths []string
	var body bytes.Buffer
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		paths = append(paths, r.URL.Path)
		_, _ = io.Copy(&body, r.Body)
	}))
	defer receiver.Close()
	cfg := local()
	cfg.Listen = ""

	tel, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer("test").Start(t.Context(), "unsent")
	if span.IsRecording() {
		t.Error("spans are recorded though nobody wants them")
	}
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	if tel, err = Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, span = tel.Tracer("test").Start(t.Context(), "land-batch")
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(paths) != 1 || paths[0] != "/v1/traces" || !bytes.Contains(body.Bytes(), []byte("land-batch")) || !bytes.Contains(body.Bytes(), []byte("millrace")) {
		t.Errorf("the receiver got %v, %d bytes", paths, body.Len())
	}

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_ENDPOINT") {
		t.Errorf("an endpoint without a scheme: %v", err)
	}
}

// A receiver that is away neither stops the process nor fills its log.
func TestFaultsOfTelemetryAreLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	cfg := local()
	cfg.Listen, cfg.Logger = "", slog.New(slog.NewTextHandler(&out, nil))
	startTest(t, cfg, defaultLimits)
	for range 5 {
		otel.Handle(errors.New("receiver is away"))
	}
	if n := strings.Count(out.String(), "telemetry is incomplete"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, out.String())
	}
}
