// The whole job on real parts: blobs that grow in Azurite, events that the official
// Go SDK sends to the Event Hubs emulator, a pipeline assembled from a YAML
// configuration, rows in the embedded ClickHouse, and SQL over them.
package assembly_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// patience bounds every wait: other packages' tests run beside.
const patience = 60 * time.Second

const (
	hubName  = "flowlogs"
	database = "millrace"
)

// noAddressTwice answers 0 when no tuple address is twice in flows, which is what
// "exactly once" means for the table.
const noAddressTwice = "SELECT count() - uniqExact(blob, generation, record_offset, ordinal) FROM millrace.flows"

// world is what a pipeline runs against.
type world struct {
	t        *testing.T
	account  string
	blobs    *traffic.AzureWriter
	hub      *emulator.Server
	producer *azeventhubs.ProducerClient
	tables   *clickhouse.Sink
	yaml     string // the pipeline's configuration
	sent     int
	trace    string // traceparent of the messages that announce sends; "" for none
}

// newWorld starts all parts. extra is added to the configuration.
func newWorld(t *testing.T, extra string) *world {
	t.Helper()
	url, _ := localtest.StartClickHouse(t)
	return newWorldOn(t, url, "url: "+url, extra)
}

// newWorldOn is newWorld with a target of the test's own, which is asked at url.
func newWorldOn(t *testing.T, url, target, extra string) *world {
	t.Helper()
	endpoint, account, key := localtest.StartAzurite(t)
	w := &world{t: t, account: account}
	var err error
	if w.blobs, err = traffic.DialAzure(endpoint, account, key); err != nil {
		t.Fatal(err)
	}
	connection := w.startHub()
	t.Setenv("TEST_STORAGE_KEY", key)
	t.Setenv("TEST_EVENTHUBS", connection)
	w.yaml = fmt.Sprintf(`
state: %q
start: now-4h
listen: ""
max_batch_age: 1s
memory_budget_mib: 128
accounts:
  - name: %s
    endpoint: %s
    aliases: ["https://%s.blob.core.windows.net"]
    containers: [%s, %s]
    key: {env: TEST_STORAGE_KEY}
eventhubs:
  - connection_string: {env: TEST_EVENTHUBS}
    hub: %s
clickhouse:
  %s
  database: %s
`, t.TempDir()+"/state", account, endpoint, account, vnetLogs, nsgLogs, hubName, target, database) + extra
	for _, c := range []string{vnetLogs, nsgLogs} {
		if err := w.blobs.EnsureContainer(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	cfg := clickhouse.DefaultConfig()
	cfg.URL, cfg.Database = url, "system" // ours does not exist yet
	if w.tables, err = clickhouse.New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.tables.Close() })
	return w
}

// startHub runs an emulator and makes the official producer for it.
func (w *world) startHub() (connection string) {
	w.t.Helper()
	hub, err := emulator.New(emulator.Config{Addr: "127.0.0.1:0", Hubs: []emulator.Hub{{Name: hubName, Partitions: 4}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.hub = hub
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Errorf("emulator: %v", err)
		}
	})
	w.producer, err = azeventhubs.NewProducerClientFromConnectionString(hub.ConnectionString(hubName), "", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.producer.Close(context.WithoutCancel(w.t.Context())) }) // of a test that ends
	return hub.ConnectionString(hubName)
}

// announce sends an event about a blob, in turn in the Event Grid schema and as a
// CloudEvent.
func (w *world) announce(s sampleBlob, etag string, length int) {
	w.t.Helper()
	w.sent++
	now := time.Now().UTC().Format("2006-01-02T15:04:05.0000000Z")
	topic := "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/" + w.account
	subject := "/blobServices/default/containers/" + s.container + "/blobs/" + s.path
	event := map[string]any{
		"subject": subject, "id": fmt.Sprintf("event-%d", w.sent),
		"data": map[string]any{
			"api": "PutBlockList", "eTag": etag, "contentType": "application/octet-stream", "contentLength": length, "blobType": "BlockBlob",
			"url":       "https://" + w.account + ".blob.core.windows.net/" + s.container + "/" + s.path,
			"sequencer": fmt.Sprintf("%032x", w.sent), "storageDiagnostics": map[string]string{"batchId": "b"},
		},
	}
	if w.sent%2 == 0 {
		event["source"], event["type"], event["time"], event["specversion"] = topic, "Microsoft.Storage.BlobCreated", now, "1.0"
	} else {
		event["topic"], event["eventType"], event["eventTime"] = topic, "Microsoft.Storage.BlobCreated", now
		event["dataVersion"], event["metadataVersion"] = "", "1"
	}
	body, err := json.Marshal([]any{event})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	batch, err := w.producer.NewEventDataBatch(ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	message := &azeventhubs.EventData{Body: body}
	if w.trace != "" {
		message.Properties = map[string]any{"traceparent": w.trace}
	}
	if err := batch.AddEventData(message, nil); err != nil {
		w.t.Fatal(err)
	}
	if err := w.producer.SendEventDataBatch(ctx, batch, nil); err != nil {
		w.t.Fatal(err)
	}
}

// grow writes a blob as the log service does: a header block and a footer block
// that stay, and between them one more block each time, all committed anew. tell is
// called after each append.
func (w *world) grow(s sampleBlob, tell func(etag string, length int)) {
	w.t.Helper()
	name := traffic.BlobName{Container: s.container, Path: s.path}
	serial := 0
	stage := func(data string) string {
		w.t.Helper()
		serial++
		id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "block-%08d", serial))
		if err := w.blobs.Stage(w.t.Context(), name, id, []byte(data)); err != nil {
			w.t.Fatal(err)
		}
		return id
	}
	header, appends, footer := s.blocks()
	ids, last := []string{stage(header)}, stage(footer)
	length := len(header) + len(footer)
	for _, a := range appends {
		ids = append(ids, stage(a))
		length += len(a)
		etag, err := w.blobs.Commit(w.t.Context(), name, append(append([]string{}, ids...), last))
		if err != nil {
			w.t.Fatal(err)
		}
		tell(etag, length)
	}
}

// running is a pipeline at work.
type running struct {
	w    *world
	p    *assembly.Pipeline
	done chan error
}

// run assembles the pipeline from its configuration and starts it.
func (w *world) run() *running {
	w.t.Helper()
	return w.runWith(assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil))})
}

func (w *world) runWith(deps assembly.Deps) *running {
	w.t.Helper()
	cfg, err := config.Parse([]byte(w.yaml))
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := assembly.Open(w.t.Context(), cfg, deps)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &running{w: w, p: p, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	go func() {
		r.done <- p.Run(ctx)
		p.Close()
	}()
	w.t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// drain stops softly; it is the end of the input, so every window closes.
func (r *running) drain() {
	r.w.t.Helper()
	r.p.Engine.Drain(true)
	select {
	case err := <-r.done:
		if err != nil {
			r.w.t.Fatal(err)
		}
		r.done <- nil // for the cleanup
	case <-time.After(patience):
		r.w.t.Fatalf("the pipeline did not drain within %v", patience)
	}
}

// ask gives the answer to a query, TabSeparated.
func (w *world) ask(sql string) string {
	w.t.Helper()
	text, err := w.tables.Exec(w.t.Context(), sql)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return strings.TrimSpace(text)
}

// waitFor asks until the answer is the wanted one.
func (w *world) waitFor(sql, want string) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		got := w.ask(sql)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: %s, want %s, after %v", sql, got, want, patience)
		}
	}
}

const sweeperOff = "sweeper: {interval: 0s}\n"

// Every published sample goes the whole way, and what comes out of the table is
// what a person reads in the sample.
func TestSamplesGoThroughTheWholeJob(t *testing.T) {
	w := newWorld(t, sweeperOff) // so that the events alone bring the blobs in
	samples := sampleBlobs(t, time.Now().UTC().Truncate(time.Hour).Add(-time.Hour))
	r := w.run()
	total := 0
	for _, s := range samples {
		total += s.rows
		w.grow(s, func(etag string, length int) {
			w.announce(s, etag, length)
			w.announce(s, etag, length) // events come twice, now and then
		})
	}
	w.waitFor("SELECT count() FROM millrace.flows", fmt.Sprint(total))
	r.drain()

	for _, s := range samples {
		if got := w.ask(w.rowsOf("SELECT count()", s)); got != fmt.Sprint(s.rows) {
			t.Errorf("%s: %s rows, want %d", s.name, got, s.rows)
		}
		w.checkOffsets(s)
	}
	w.checkTotals(samples)
	w.checkRows(samples)
	if got := w.ask(noAddressTwice); got != "0" {
		t.Errorf("%s tuple addresses are twice in flows", got)
	}
	if got := w.ask("SELECT count() FROM millrace.quarantine"); got != "0" {
		t.Errorf("%s entries in quarantine, want none", got)
	}

	// The next start goes on: the same events again bring nothing.
	r = w.run()
	for _, s := range samples {
		w.announce(s, "0x1", len(s.content()))
	}
	r.drain()
	if got := w.ask("SELECT count() FROM millrace.flows"); got != fmt.Sprint(total) {
		t.Errorf("%s rows after a second start, want %d", got, total)
	}
}

// What no event tells of is found by the sweeper.
func TestSweeperFindsWhatNobodyAnnounced(t *testing.T) {
	w := newWorld(t, "sweeper: {interval: 1s, discover: 1s}\n")
	r := w.run()
	total := 0
	for _, s := range sampleBlobs(t, time.Now().UTC().Truncate(time.Hour).Add(-time.Hour))[:4] {
		total += s.rows
		w.grow(s, func(string, int) {})
	}
	w.waitFor("SELECT count() FROM millrace.flows", fmt.Sprint(total))
	r.drain()
	if got := w.ask(noAddressTwice); got != "0" {
		t.Errorf("%s tuple addresses are twice in flows", got)
	}
}

// rowsOf completes a query over the rows of one sample.
func (w *world) rowsOf(sql string, s sampleBlob) string {
	return fmt.Sprintf("%s FROM millrace.flows WHERE blob = '%s/%s/%s'", sql, w.account, s.container, s.path)
}

// checkOffsets wants every row's address to be the place of a record in the blob.
func (w *world) checkOffsets(s sampleBlob) {
	w.t.Helper()
	content := s.content()
	for _, text := range strings.Fields(w.ask(w.rowsOf("SELECT DISTINCT record_offset", s))) {
		var offset int
		if _, err := fmt.Sscan(text, &offset); err != nil || offset >= len(content) || content[offset] != '{' {
			w.t.Errorf("%s: no record begins at byte %s of the blob", s.name, text)
		}
	}
}

// checkTotals compares sums that stand in the documentation or were counted by
// hand, in rows and in windows.
func (w *world) checkTotals(samples []sampleBlob) {
	w.t.Helper()
	for _, c := range []struct{ sample, sql, want string }{
		{"vnet-docs-bandwidth", "SELECT sum(packets_sent + packets_received), sum(bytes_sent + bytes_received)", "9125\t5256000"},
		{"nsg-docs-bandwidth", "SELECT sum(packets_sent + packets_received), sum(bytes_sent + bytes_received)", "9125\t5256000"},
		{"nsg-docs-bandwidth", "SELECT arrayMap(x -> x.2, arraySort(groupArray((ordinal, state))))", "['begin','continuing','end']"},
		{"vnet-docs-v4-record.compact", "SELECT countIf(action = 'denied'), sum(packets_sent), sum(bytes_sent), sum(packets_received), sum(bytes_received)", "9\t33\t4528\t44\t43292"},
		{"nsg-docs-v2", "SELECT countIf(action = 'denied'), sum(packets_sent), sum(bytes_sent), sum(packets_received), sum(bytes_received)", "7\t46\t25533\t37\t21128"},
		{"nsg-connector-v1-large", "SELECT countIf(action = 'denied'), any(format), sum(bytes_sent), groupUniqArray(state)", "35\tnsg-1\t0\t['unknown']"},
		{"nsg-connector-v2-trailing", "SELECT countIf(action = 'denied'), sum(bytes_sent), sum(bytes_received)", "0\t738\t378"},
	} {
		for _, s := range samples {
			if !strings.HasPrefix(s.name, c.sample) {
				continue
			}
			if got := w.ask(w.rowsOf(c.sql, s)); got != c.want {
				w.t.Errorf("%s: %s: %q, want %q", s.name, c.sql, got, c.want)
			}
		}
	}
	const sums = "sum(packets_sent), sum(bytes_sent), sum(packets_received), sum(bytes_received) FROM millrace."
	rows := w.ask("SELECT count(), " + sums + "flows")
	for _, table := range []string{"windows_traffic_1m", "windows_traffic_1m_merged", "windows_services_1m", "windows_rules_5m_merged"} {
		if got := w.ask("SELECT sum(rows), " + sums + table); got != rows {
			w.t.Errorf("%s: %q, want %q as in flows", table, got, rows)
		}
	}
}

// checkRows compares whole rows with what a person reads in the samples.
func (w *world) checkRows(samples []sampleBlob) {
	w.t.Helper()
	const sub = "aaaa0a0a-bb1b-cc2c-dd3d-eeeeee4e4e4e"
	row := func(format, mac, src, dst string, srcPort, dstPort, protocol int, direction, state, action, encryption string, counters [4]int, acl, rule, kind, flowLog, target string) map[string]any {
		number := func(n int) any { return float64(n) }
		return map[string]any{
			"cloud": "azure", "format": format, "mac": mac, "src_ip": mapped(src), "dst_ip": mapped(dst), "src_port": number(srcPort), "dst_port": number(dstPort),
			"protocol": number(protocol), "direction": direction, "state": state, "action": action, "encryption": encryption,
			"packets_sent": number(counters[0]), "bytes_sent": number(counters[1]), "packets_received": number(counters[2]), "bytes_received": number(counters[3]),
			"acl_id": acl, "rule": rule, "rule_kind": kind, "flow_log": flowLog, "target": target, "generation": number(0),
		}
	}
	for _, c := range []struct {
		sample  string
		where   string
		written int64 // the time in the sample, in ms
		want    map[string]any
	}{
		{"vnet-docs-v4-record.compact.json", "ordinal = 1", 1663146003606, row("vnet-4", "112233445566", "10.0.0.6", "192.0.2.180", 23956, 443, 6, "outbound", "end", "allowed", "NX", [4]int{3, 767, 2, 1580},
			"00aa00aa-bb11-cc22-dd33-44ee44ee44ee", "DefaultRule_AllowInternetOutBound", "default",
			"/SUBSCRIPTIONS/"+sub+"/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_EASTUS2EUAP/FLOWLOGS/VNETFLOWLOG",
			"/subscriptions/"+sub+"/resourceGroups/myResourceGroup/providers/Microsoft.Network/virtualNetworks/myVNet")},
		{"nsg-docs-v2.json", "record_offset = 12 AND ordinal = 0", 1542110402000, row("nsg-2", "000D3AF87856", "192.0.2.190", "10.5.16.4", 28746, 443, 17, "inbound", "denied", "denied", "", [4]int{},
			"66aa66aa-bb77-cc88-dd99-00ee00ee00ee", "DefaultRule_DenyAllInBound", "default", "",
			"/SUBSCRIPTIONS/"+sub+"/RESOURCEGROUPS/FABRIKAMRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/FABRIAKMVM1-NSG")},
		{"nsg-connector-appended-region.txt", "ordinal = 0", 1534164982000, row("nsg-1", "002248010362", "185.92.73.26", "172.17.0.4", 65533, 3389, 6, "inbound", "unknown", "denied", "", [4]int{},
			"7b900133-9802-46f5-a0cd-8c01a74d9106", "DefaultRule_DenyAllInBound", "default", "",
			"/SUBSCRIPTIONS/743F6ED6-83A8-46F0-822D-EA93B953952D/RESOURCEGROUPS/ESPLUNKRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/STANDALONE-NSG")},
	} {
		for _, s := range samples {
			if s.name != c.sample {
				continue
			}
			text := w.ask(w.rowsOf("SELECT * EXCEPT (time, blob, record_offset, ordinal, batch_id), toUnixTimestamp64Milli(time) AS ms", s) +
				" AND " + c.where + " FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0")
			var got map[string]any
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				w.t.Errorf("%s: %q: %v", s.name, text, err)
				continue
			}
			c.want["ms"] = float64(c.written + s.shift.Milliseconds())
			if diff := cmp.Diff(c.want, got); diff != "" {
				w.t.Errorf("%s (-want +got):\n%s", s.name, diff)
			}
		}
	}
}

// mapped is how the table shows an IPv4 address.
func mapped(s string) string { return "::ffff:" + netip.MustParseAddr(s).String() }
