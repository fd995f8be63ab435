package assembly_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/cmd/internal/telemetry"
	"github.com/millrace/millrace/cmd/internal/telemetry/telemetrytest"
)

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// watched is a pipeline whose telemetry goes to a receiver.
type watched struct {
	*world
	to  *telemetrytest.Receiver
	log *safeBuffer
	tel *telemetry.Telemetry
}

const receiverKey = "canary-receiver-key-0815"

// watch starts telemetry as `millrace run` does.
func watch(t *testing.T, w *world) *watched {
	t.Helper()
	o := &watched{world: w, to: telemetrytest.Start(t), log: &safeBuffer{}}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", o.to.URL)
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "200") // ms
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20"+receiverKey)
	handler, err := telemetry.NewHandler(o.log, telemetry.LogJSON, slog.LevelDebug)
	if err != nil {
		t.Fatal(err)
	}
	if o.tel, err = telemetry.Start(t.Context(), telemetry.Config{Listen: "127.0.0.1:0", ServiceName: "millrace", Logger: slog.New(handler)}); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *watched) deps() assembly.Deps {
	return assembly.Deps{Meter: o.tel.Meter("millrace"), Tracer: o.tel.Tracer("millrace"), Logger: o.tel.Logger()}
}

// page gives what Prometheus would read.
func (o *watched) page() string {
	o.T.Helper()
	resp, err := http.Get(o.tel.URL() + "/metrics")
	if err != nil {
		o.T.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		o.T.Fatal(err)
	}
	return string(data)
}

// end sends the rest, after a last look at the page.
func (o *watched) end() (page string) {
	o.T.Helper()
	page = o.page()
	ctx, cancel := context.WithTimeout(context.Background(), jobtest.Patience)
	defer cancel()
	if err := o.tel.Shutdown(ctx); err != nil {
		o.T.Fatal(err)
	}
	return page
}

// What a receiver gets of a real pipeline: traces that lead from the sender of an
// event to the insert of the rows that it announced, metrics that agree with the
// tables, log records in their spans, and no secret.
func TestTelemetryReachesItsReceiver(t *testing.T) {
	w := newWorld(t, jobtest.SweeperOff)
	const hubKey = "canary/hub+key="
	t.Setenv("TEST_EVENTHUBS", strings.Replace(os.Getenv("TEST_EVENTHUBS"), "SharedAccessKey=", "SharedAccessKey="+hubKey, 1)) // the emulator takes any
	o := watch(t, w)
	deps := o.deps()
	instruments := telemetrytest.Record(deps.Meter)
	deps.Meter = instruments
	r := w.runWith(deps)
	samples := sampleBlobs(t, time.Now().UTC().Truncate(time.Hour).Add(-time.Hour))
	total, senders := 0, map[string]string{} // trace id by blob
	for i, s := range samples {
		total += s.rows
		id := fmt.Sprintf("%032x", 0xabc000+i)
		senders[w.Account+"/"+s.container+"/"+s.path] = id
		w.trace = "00-" + id + "-00000000000000aa-01"
		w.grow(s, func(etag string, length int) { w.announce(s, etag, length) })
	}
	missing := samples[0]
	missing.path = strings.Replace(missing.path, "macAddress=", "macAddress=F", 1)
	w.trace = ""
	w.announce(missing, "0x1", 1000)
	w.WaitFor("SELECT count() FROM millrace.flows", fmt.Sprint(total))
	// A hub is measured while its source lives.
	w.WaitUntil("a lag of no messages", func() bool {
		behind, partitions := telemetrytest.Sum(o.to.Metrics()["millrace.eventhubs.lag.messages"], map[string]string{"hub": jobtest.HubName})
		return partitions > 0 && behind == 0
	})
	page := o.page()
	r.drain()
	o.dormant(instruments)
	page += o.end()

	o.checkTable(instruments.Instruments(), page)
	o.checkTraces(senders)
	o.checkMetrics(total, w.sent)
	o.checkLogs(w.Account + "/" + missing.container + "/" + missing.path)
	for name, text := range map[string]string{"storage key": os.Getenv("TEST_STORAGE_KEY"), "receiver's key": receiverKey, "event hub's key": hubKey} {
		if o.to.Contains(text) || strings.Contains(o.log.String(), text) || strings.Contains(page, text) {
			t.Errorf("the %s is in what was sent, logged or served", name)
		}
	}
}

// checkTraces follows each blob from the trace of whoever announced it to the insert
// of its rows.
func (o *watched) checkTraces(senders map[string]string) {
	o.T.Helper()
	spans := o.to.Spans()
	children := map[string][]*tracepb.Span{}
	linking := map[string][]*tracepb.Span{} // spans that link to the key
	for _, s := range spans {
		children[string(s.ParentSpanId)] = append(children[string(s.ParentSpanId)], s)
		for _, l := range s.Links {
			linking[string(l.SpanId)] = append(linking[string(l.SpanId)], s)
		}
	}
	named := func(spans []*tracepb.Span, name string) []*tracepb.Span {
		return slices.DeleteFunc(slices.Clone(spans), func(s *tracepb.Span) bool { return s.Name != name })
	}
	followed := 0
	for blob, id := range senders {
		landed := map[string]bool{}
		for _, n := range named(spans, "notification") {
			if fmt.Sprintf("%x", n.TraceId) != id {
				continue
			}
			if fmt.Sprintf("%x", n.ParentSpanId) != "00000000000000aa" {
				o.T.Errorf("%s: the notification's parent is %x", blob, n.ParentSpanId)
			}
			for _, fetch := range named(linking[string(n.SpanId)], "fetch") {
				if got := telemetrytest.Attributes(fetch.Attributes)["blob"]; got != blob {
					o.T.Errorf("a notification of %s leads to a read of %s", blob, got)
				}
				for _, commit := range named(linking[string(fetch.SpanId)], "commit") {
					if len(named(children[string(fetch.SpanId)], "decode")) == 0 {
						o.T.Errorf("%s: a read in a commit without a byte range", blob)
					}
					steps := children[string(commit.SpanId)]
					for _, step := range []string{"operate", "intent", "done"} {
						if len(named(steps, step)) != 1 {
							o.T.Errorf("%s: a commit has %d spans %s, want 1", blob, len(named(steps, step)), step)
						}
					}
					for _, land := range named(steps, "land") {
						a := telemetrytest.Attributes(land.Attributes)
						landed[a["sink"]+" "+a["table"]] = true
						followed++
					}
				}
			}
		}
		if !landed["clickhouse flows"] {
			o.T.Errorf("no way leads from the announcement of %s to the insert of its rows: %v", blob, landed)
		}
	}
	o.T.Logf("%d spans, %d ways to an insert", len(spans), followed)
}

// checkMetrics compares what was measured with what was sent and landed.
func (o *watched) checkMetrics(rows, messages int) {
	o.T.Helper()
	got := o.to.Metrics()
	for _, c := range []struct {
		name, unit string
		attrs      map[string]string
		want       int
	}{
		{"millrace.landed.rows", "{row}", map[string]string{"sink": "clickhouse", "table": "flows"}, rows},
		{"millrace.decode.rows", "{row}", nil, rows},
		{"millrace.notifications", "{notification}", nil, messages},
		{"millrace.eventhubs.messages", "{message}", map[string]string{"hub": jobtest.HubName}, messages},
		{"millrace.lag.size", "By", nil, 0},
		{"millrace.blob.reports", "{blob}", map[string]string{"kind": "gone"}, 1},
		{"millrace.unacknowledged", "{notification}", nil, 0},
	} {
		sum, points := telemetrytest.Sum(got[c.name], c.attrs)
		if points == 0 || sum != int64(c.want) || got[c.name].GetUnit() != c.unit {
			o.T.Errorf("%s %v: %d %s in %d points, want %d %s", c.name, c.attrs, sum, got[c.name].GetUnit(), points, c.want, c.unit)
		}
	}
	for _, name := range []string{"millrace.latency.queryable", "millrace.latency.acknowledged"} {
		var count uint64
		var sum float64
		for _, p := range got[name].GetHistogram().GetDataPoints() {
			count, sum = count+p.Count, sum+p.GetSum()
		}
		if limit := float64(count) * jobtest.Patience.Seconds(); count == 0 || count > 2*uint64(messages) || sum <= 0 || sum > limit {
			o.T.Errorf("%s: %d measurements, %.1f s in all, of %d messages", name, count, sum, messages)
		}
	}
	if temporality := got["millrace.landed.rows"].GetSum().GetAggregationTemporality(); temporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
		o.T.Errorf("counters are sent as %v", temporality)
	}
}

// checkLogs looks for the record about a blob that does not exist, in the span of
// its read.
func (o *watched) checkLogs(gone string) {
	o.T.Helper()
	reads := map[string]string{} // blob by span
	for _, s := range o.to.Spans() {
		if s.Name == "fetch" {
			reads[string(s.TraceId)+string(s.SpanId)] = telemetrytest.Attributes(s.Attributes)["blob"]
		}
	}
	live := 0
	for _, l := range o.to.Logs() {
		switch telemetrytest.Value(l.Body) {
		case "live":
			live++
		case "blob changed":
			if blob := telemetrytest.Attributes(l.Attributes)["blob"]; blob != gone || reads[string(l.TraceId)+string(l.SpanId)] != gone {
				o.T.Errorf("the record about %s is in a read of %q", blob, reads[string(l.TraceId)+string(l.SpanId)])
			}
			gone = ""
		}
	}
	if live != 4 || gone != "" {
		o.T.Errorf("%d records say that a shard is live, want 4; blob not told of: %q", live, gone)
	}
}

// What fails with a wrong password, key or token tells of it without showing it.
func TestFaultsShowNoSecret(t *testing.T) {
	w := newWorld(t, jobtest.SweeperOff)
	const canary = "canary5ecretQ2FuYXJ5" // valid base64, so that it is used
	for name, change := range map[string][2]string{
		"password":    {"  database: " + jobtest.Database, "  database: " + jobtest.Database + "\n  password: {env: TEST_CANARY}"},
		"storage key": {"key: {env: TEST_STORAGE_KEY}", "key: {env: TEST_CANARY}"},
		"sas":         {"key: {env: TEST_STORAGE_KEY}", "sas: {env: TEST_CANARY}"},
		"connection":  {"{env: TEST_EVENTHUBS}", "{env: TEST_CANARY_HUB}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TEST_CANARY", canary)
			t.Setenv("TEST_CANARY_HUB", strings.Replace(os.Getenv("TEST_EVENTHUBS"), "SharedAccessKey=", "SharedAccessKey="+canary, 1))
			if !strings.Contains(w.YAML, change[0]) {
				t.Fatalf("the configuration lacks %q", change[0])
			}
			cfg, err := config.Parse([]byte(strings.Replace(strings.Replace(w.YAML, change[0], change[1], 1), "/state", "/state-"+strings.ReplaceAll(name, " ", "-"), 1)))
			if err != nil {
				t.Fatal(err)
			}
			o := watch(t, &world{World: &jobtest.World{T: t}})
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			p, err := assembly.Open(ctx, cfg, o.deps())
			if err == nil {
				w.announce(sampleBlobs(t, time.Now().UTC().Truncate(time.Hour))[0], "0x1", 1000)
				err = p.Run(ctx)
				p.Close()
			}
			page := o.end()
			told := fmt.Sprint(err) + o.log.String()
			if strings.Contains(told+page, canary) || o.to.Contains(canary) {
				t.Errorf("the %s is shown: %s", name, told)
			}
			if !strings.Contains(told, `"level":"WARN"`) && err == nil {
				t.Errorf("nothing was told of the wrong %s: %s", name, told)
			}
		})
	}
}

// A program that runs tells every now and then how it stands.
func TestRunTellsItsStatus(t *testing.T) {
	w := newWorld(t, jobtest.SweeperOff)
	p := w.StartProgram("--status-every", "300ms")
	for _, s := range sampleBlobs(t, time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)) {
		w.grow(s, func(etag string, length int) { w.announce(s, etag, length) })
	}
	line := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\dZ status: [1-9][\d,]* rows/s, \d+\.\d MB/s, lag \d+ s and [\d,]+ notifications \(\d+\.\d MB\), watermark (none yet|[\d:]+), \d+ blobs waiting, 0 quarantined, 0 in doubt$`)
	w.WaitUntil("a status line with rows", func() bool { return line.MatchString(p.Said()) })
	t.Log(line.FindString(p.Said()))
}
