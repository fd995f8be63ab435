package assembly_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/otlptranslator"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/telemetry/telemetrytest"
	"github.com/millrace/millrace/pipeline"
	source "github.com/millrace/millrace/pipeline/source/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/kafka"
)

// The table of metrics in the operator's docs. Name, type, unit and meaning are what
// the code registers; what stands here is what it cannot say. To add a metric:
// register it, add a line here, and run
//
//	make build && go test ./cmd/internal/assembly -run TestTelemetryReachesItsReceiver -update
//
// with the parts in the environment, as in `make test`.
const metricsTable = "../../../deploy/docs/metrics.md"

var update = flag.Bool("update", false, "write the expected files")

// reading says what an instrument's attributes are and what a rise means.
type reading struct{ attributes, rise string }

var readings = map[string]reading{
	"millrace.blob.fetched":                {"", "More is read. Far above `millrace.decode.bytes`: bytes are read more than once, see retries."},
	"millrace.blob.read.duration":          {"", "The blob store or the network is slow; above the batch age it shows as lag."},
	"millrace.blob.reads":                  {"result", "`transient`: the store refuses for a while; `failed`: rights, or bytes that are no flow log."},
	"millrace.blob.reports":                {"kind", "`rewritten` and `unreadable` want a look at the log; `gone`: deleted before it was read, check the retention of the logs."},
	"millrace.blob.requests":               {"", "Cost: the blob store bills requests."},
	"millrace.blob.retries":                {"", "The blob store fails or closes connections; lag follows when it lasts."},
	"millrace.blob.throttled":              {"", "The account is at its limit: others read it too, or the batch age is too short."},
	"millrace.blobs.queued":                {"", "Reads do not keep up: network, blob store, or a target that is slow."},
	"millrace.decode.bytes":                {"", "More traffic."},
	"millrace.decode.duration":             {"", "Byte ranges grow, or the processor is busy."},
	"millrace.decode.rows":                 {"", "More traffic."},
	"millrace.eventhubs.bytes":             {"hub, namespace", "More notifications."},
	"millrace.eventhubs.gaps":              {"hub, namespace, reason", "Notifications were lost before they were read; the sweeper finds their blobs. `expired`: retention is shorter than the lag. `recreated`: somebody made the hub anew."},
	"millrace.eventhubs.lag":               {"hub, namespace", "Notifications wait in the hub: the pipeline was down, or does not keep up."},
	"millrace.eventhubs.lag.messages":      {"hub, namespace, partition", "The same, as a count. One partition alone: its reader is stuck, see the log."},
	"millrace.eventhubs.messages":          {"hub, namespace", "More notifications."},
	"millrace.eventhubs.missing":           {"hub, namespace, reason", "As gaps, in messages; what nobody can count is not in it."},
	"millrace.eventhubs.ownership.lost":    {"hub, namespace", "Another reader of the same consumer group took a partition: give each pipeline its own group."},
	"millrace.eventhubs.reconnects":        {"hub, namespace", "Links break: network, or the namespace's limits."},
	"millrace.eventhubs.unacknowledged":    {"hub, namespace", "What was received is not durable yet: the target is slow or away."},
	"millrace.events.ignored":              {"reason", "Events of other accounts, containers or kinds: narrow the Event Grid subscription."},
	"millrace.files.reloads":               {"result, transform", "Files of filters or enrichment change. `refused`: a file is wrong and the old one still holds; the log says where."},
	"millrace.filtered.rows":               {"filter", "Filters leave more out."},
	"millrace.inflight":                    {"", "Near `memory_budget_mib` the reads wait: the target is slow, or the budget small."},
	"millrace.kafka.batch.duration":        {"delivery", "Brokers are slow, or batches larger; above the transaction time-out batches are refused."},
	"millrace.kafka.batches":               {"delivery, result", "`in_doubt` and `refused`: brokers fail and batches are tried again; `fenced`: another process writes with the same transactional id."},
	"millrace.kafka.exactly_once":          {"", "It does not rise by itself: the configuration says what is promised. 0: readers must tell repeated rows by their headers."},
	"millrace.kafka.rows":                  {"delivery, table", "More traffic, or more windows close."},
	"millrace.kafka_source.bytes":          {"topic", "More notifications."},
	"millrace.kafka_source.gaps":           {"reason, topic", "Notifications were lost before they were read; the sweeper finds their blobs. `expired`: retention is shorter than the lag. `recreated`: somebody made the topic anew. `too_large`: messages inflate to far more than notifications do."},
	"millrace.kafka_source.lag":            {"topic", "Notifications wait in the topic: the pipeline was down, or does not keep up."},
	"millrace.kafka_source.messages":       {"topic", "More notifications."},
	"millrace.kafka_source.missing":        {"reason, topic", "As gaps, in messages; what nobody can count is not in it."},
	"millrace.kafka_source.troubles":       {"topic", "Brokers refuse or are away; the log says why."},
	"millrace.kafka_source.unacknowledged": {"topic", "What was received is not durable yet: the target is slow or away."},
	"millrace.lag.size":                    {"", "Blobs grow faster than they are committed. Blobs whose length no notification tells are not in it."},
	"millrace.lag.time":                    {"", "The oldest notification still waits: the alarm for a pipeline that stands still."},
	"millrace.land.duration":               {"sink, table", "The target is slow: merges, memory, other load."},
	"millrace.landed.rows":                 {"sink, table", "More traffic, or more windows close."},
	"millrace.landings":                    {"result, sink, table", "`transient`: the target refuses and is tried again; `in_doubt`: answers were lost and are looked up; `fenced`: another process owns the ledger; `failed`: the pipeline stops."},
	"millrace.latency.acknowledged":        {"", "As queryable, with the ledger's last word: up to one batch age more."},
	"millrace.latency.queryable":           {"", "The number that users feel. Above the batch age and a few seconds: see lag and the durations of reads and inserts."},
	"millrace.ledger.epoch":                {"", "The ledger changed hands: an instance stopped or was cut off."},
	"millrace.ledger.owner":                {"", "1 on exactly one instance; 0 on all: nobody works."},
	"millrace.ledger.writes":               {"kind", "Cost, with a ledger in blob storage: a longer batch age lowers it."},
	"millrace.notifications":               {"", "More blobs, or more writes of them."},
	"millrace.notifications.ignored":       {"reason", "`known` is usual (events come twice, and the sweeper tells all); `before_start` and `too_old`: blobs that only a backfill reads; `ahead_of_clock`: blobs whose path names an hour more than two days ahead of this machine's clock. They are read when they are announced or listed again in time."},
	"millrace.quarantine.clears":           {"result", "`cleared`: the excerpts passed `clickhouse.max_excerpt_mib`, and those of the oldest days went; addresses and counts stay. `failed`: they stay over it, and the log says why."},
	"millrace.quarantine.excerpts":         {"", "Much input is refused. Past `clickhouse.max_excerpt_mib` on a server the oldest excerpts go. Measured every three minutes."},
	"millrace.quarantine.refused":          {"", "A replay of quarantine found what is still malformed."},
	"millrace.quarantined":                 {"reason", "Input that no row could be made of: `millrace quarantine show` has the bytes."},
	"millrace.replays":                     {"", "The pipeline was started anew without a soft stop."},
	"millrace.source.refusals":             {"source", "An event hub says no: it is not there, or the credential may not listen; `/status` and the log say why. It is tried again, the others go on."},
	"millrace.source.up":                   {"source", "1 while an event hub is read; 0 for long is an alarm: only the sweeper finds its blobs."},
	"millrace.unacknowledged":              {"", "Notifications wait for commits; see lag."},
	"millrace.watermark.lag":               {"", "Windows close later: a network interface has old event times, or reads lag."},
	"millrace.windows.closed":              {"table", "More windows have rows."},
	"millrace.windows.groups":              {"table", "Memory: more different keys; at max_groups the light ones fold into the overflow group."},
	"millrace.windows.state":               {"table", "Memory of windows: long texts, large sketches; at max_state_mib light groups fold into the overflow group."},
	"millrace.windows.late_rows":           {"table", "Rows come after their window closed and make corrections: raise `out_of_orderness`."},
	"millrace.windows.open":                {"table", "Memory: the watermark stands still, or event times spread."},
	"millrace.windows.overflow_rows":       {"table", "A table is at its limit: totals stay exact, keys that are light by rows and by every sum lose their own row."},
}

// Every instrument that the source names has a reading and a row in the table, and
// nothing else has.
func TestMetricsTableNamesEveryInstrument(t *testing.T) {
	want := slices.Sorted(maps.Keys(readings))
	if diff := cmp.Diff(want, namesInSource(t)); diff != "" {
		t.Errorf("instruments in the source (-with a reading +in the source); add or remove lines of readings:\n%s", diff)
	}
	var rows []string
	for line := range strings.Lines(readTable(t)) {
		if m := regexp.MustCompile("^\\| `(millrace\\.[a-z_.]+)` \\|").FindStringSubmatch(line); m != nil {
			rows = append(rows, m[1])
		}
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("%s (-with a reading +rows); write it anew, see the comment of metricsTable:\n%s", metricsTable, diff)
	}
}

func readTable(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(metricsTable)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// namesInSource finds every text of the form of an instrument's name.
func namesInSource(t *testing.T) []string {
	t.Helper()
	name := regexp.MustCompile(`^"(millrace\.[a-z_.]+)"$`)
	found := map[string]bool{}
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 || d.Name() == "testdata"):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, []byte(`"millrace.`)) {
			return err
		}
		var s scanner.Scanner
		s.Init(token.NewFileSet().AddFile(path, -1, len(data)), data, nil, 0)
		for {
			_, tok, lit := s.Scan()
			if tok == token.EOF {
				return nil
			}
			if m := name.FindStringSubmatch(lit); tok == token.STRING && m != nil && m[1] != "millrace.yaml" {
				found[m[1]] = true
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found))
}

// dormant registers what a pipeline of this test does not run.
func (o *watched) dormant(meter *telemetrytest.Recorder) {
	o.T.Helper()
	o.SharedLedger()
	cfg, err := config.Parse([]byte(o.YAML))
	if err != nil {
		o.T.Fatal(err)
	}
	deps := o.deps()
	deps.Meter = meter
	if _, err := assembly.NewServer(cfg, deps); err != nil {
		o.T.Fatal(err)
	}
	topics := kafka.DefaultConfig()
	topics.Broker.Brokers = []string{"127.0.0.1:1"}
	sink, err := kafka.New(topics, []schemas.Table{schemas.Flows}, kafka.Deps{Meter: meter})
	if err != nil {
		o.T.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		o.T.Error(err)
	}
	if _, err := source.New(source.DefaultConfig(topics.Broker, "events"), source.Deps{Meter: meter, Parse: func([]byte) []pipeline.Announcement { return nil }}); err != nil {
		o.T.Fatal(err)
	}
}

// checkTable compares the table with what was registered and measured.
func (o *watched) checkTable(registered map[string]telemetrytest.Instrument, page string) {
	o.T.Helper()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(readings)), slices.Sorted(maps.Keys(registered))); diff != "" {
		o.T.Errorf("instruments (-with a reading +registered by a pipeline); what it cannot run belongs into dormant:\n%s", diff)
	}
	for name, m := range o.to.Metrics() {
		listed := strings.Split(readings[name].attributes, ", ")
		for key := range measuredBy(m) {
			if !slices.Contains(listed, key) && key != "otel.metric.overflow" {
				o.T.Errorf("%s is measured by %s, which its line does not name", name, key)
			}
		}
		if prometheus := inPrometheus(o.T, registered[name]); !strings.Contains(page, "\n# TYPE "+prometheus+" ") {
			o.T.Errorf("/metrics lacks %s", prometheus)
		}
	}
	text := renderTable(o.T, registered)
	if *update {
		if err := os.MkdirAll(filepath.Dir(metricsTable), 0o755); err != nil {
			o.T.Fatal(err)
		}
		if err := os.WriteFile(metricsTable, []byte(text), 0o644); err != nil {
			o.T.Fatal(err)
		}
	}
	if diff := cmp.Diff(text, readTable(o.T)); diff != "" {
		o.T.Errorf("%s (-as registered +as it stands); write it anew, see the comment of metricsTable:\n%s", metricsTable, diff)
	}
}

// measuredBy gives the attributes of all points of a metric.
func measuredBy(m *metricspb.Metric) map[string]bool {
	keys := map[string]bool{}
	add := func(attrs map[string]string) {
		for k := range attrs {
			keys[k] = true
		}
	}
	for _, p := range append(m.GetSum().GetDataPoints(), m.GetGauge().GetDataPoints()...) {
		add(telemetrytest.Attributes(p.Attributes))
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		add(telemetrytest.Attributes(p.Attributes))
	}
	return keys
}

// renderTable gives the page of the docs.
func renderTable(t *testing.T, registered map[string]telemetrytest.Instrument) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`<!-- Generated from the code: cmd/internal/assembly/instruments_test.go says how. Do not edit. -->

# Metrics

Every metric of ` + "`millrace run`" + `. OTLP sends them under the name in the first column; ` + "`/metrics`" + ` serves them to
Prometheus under the name in the second. Types: a counter only rises, a gauge stands at a value, a histogram
counts measurements by size (` + "`_bucket`, `_sum` and `_count`" + ` in Prometheus). No attribute has more than 2,000 values;
what is beyond is one series with ` + "`otel_metric_overflow=\"true\"`" + `.

| name | in Prometheus | type | unit | attributes | meaning | what a rise means |
|---|---|---|---|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(registered)) {
		i := registered[name]
		if i.Unit == "" || i.Meaning == "" || readings[name].rise == "" {
			t.Errorf("%s lacks a unit, a description or a reading: %+v", name, i)
		}
		attributes := readings[name].attributes
		if attributes != "" {
			attributes = "`" + strings.ReplaceAll(attributes, ", ", "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s | %s |\n", name, inPrometheus(t, i), i.Kind, i.Unit, attributes, i.Meaning, readings[name].rise)
	}
	return b.String()
}

// inPrometheus gives the name that the page serves an instrument under.
func inPrometheus(t *testing.T, i telemetrytest.Instrument) string {
	t.Helper()
	kinds := map[string]otlptranslator.MetricType{
		"counter": otlptranslator.MetricTypeMonotonicCounter, "gauge": otlptranslator.MetricTypeGauge, "histogram": otlptranslator.MetricTypeHistogram,
	}
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	name, err := namer.Build(otlptranslator.Metric{Name: i.Name, Unit: i.Unit, Type: kinds[i.Kind]})
	if err != nil {
		t.Error(err)
	}
	return name
}
