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
	"github.com/millrace/millrace/cmd/internal/jobtest"
)

// world is what a pipeline runs against, with the events that announce sends.
type world struct {
	*jobtest.World
	producer *azeventhubs.ProducerClient // the official one
	sent     int
	trace    string // traceparent of the messages; "" for none
}

// newWorld starts all parts. extra is added to the configuration.
func newWorld(t *testing.T, extra string) *world {
	t.Helper()
	return newWorldOf(t, jobtest.Options{Extra: extra})
}

func newWorldOf(t *testing.T, o jobtest.Options) *world {
	t.Helper()
	w := &world{World: jobtest.New(t, o)}
	var err error
	if w.producer, err = azeventhubs.NewProducerClientFromConnectionString(w.Hub.ConnectionString(jobtest.HubName), "", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.producer.Close(context.WithoutCancel(t.Context())) }) // of a test that ends
	return w
}

// announce sends an event about a blob, in turn in the Event Grid schema and as a
// CloudEvent.
func (w *world) announce(s sampleBlob, etag string, length int) {
	w.T.Helper()
	w.sent++
	now := time.Now().UTC().Format("2006-01-02T15:04:05.0000000Z")
	topic := "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/" + w.Account
	subject := "/blobServices/default/containers/" + s.container + "/blobs/" + s.path
	event := map[string]any{
		"subject": subject, "id": fmt.Sprintf("event-%d", w.sent),
		"data": map[string]any{
			"api": "PutBlockList", "eTag": etag, "contentType": "application/octet-stream", "contentLength": length, "blobType": "BlockBlob",
			"url":       "https://" + w.Account + ".blob.core.windows.net/" + s.container + "/" + s.path,
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
		w.T.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.T.Context(), jobtest.Patience)
	defer cancel()
	batch, err := w.producer.NewEventDataBatch(ctx, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	message := &azeventhubs.EventData{Body: body}
	if w.trace != "" {
		message.Properties = map[string]any{"traceparent": w.trace}
	}
	if err := batch.AddEventData(message, nil); err != nil {
		w.T.Fatal(err)
	}
	if err := w.producer.SendEventDataBatch(ctx, batch, nil); err != nil {
		w.T.Fatal(err)
	}
}

// grow writes a blob as the log service does: a header block and a footer block
// that stay, and between them one more block each time, all committed anew. tell is
// called after each append.
func (w *world) grow(s sampleBlob, tell func(etag string, length int)) {
	w.T.Helper()
	name := traffic.BlobName{Container: s.container, Path: s.path}
	serial := 0
	stage := func(data string) string {
		w.T.Helper()
		serial++
		id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "block-%08d", serial))
		if err := w.Blobs.Stage(w.T.Context(), name, id, []byte(data)); err != nil {
			w.T.Fatal(err)
		}
		return id
	}
	header, appends, footer := s.blocks()
	ids, last := []string{stage(header)}, stage(footer)
	length := len(header) + len(footer)
	for _, a := range appends {
		ids = append(ids, stage(a))
		length += len(a)
		etag, err := w.Blobs.Commit(w.T.Context(), name, append(append([]string{}, ids...), last))
		if err != nil {
			w.T.Fatal(err)
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
	w.T.Helper()
	return w.runWith(assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.NewTextHandler(w.T.Output(), nil))})
}

func (w *world) runWith(deps assembly.Deps) *running {
	w.T.Helper()
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		w.T.Fatal(err)
	}
	p, err := assembly.Open(w.T.Context(), cfg, deps)
	if err != nil {
		w.T.Fatal(err)
	}
	r := &running{w: w, p: p, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.T.Context()))
	go func() {
		r.done <- p.Run(ctx)
		p.Close()
	}()
	w.T.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// drain stops softly; it is the end of the input, so every window closes.
func (r *running) drain() {
	r.w.T.Helper()
	r.p.Engine.Drain(true)
	select {
	case err := <-r.done:
		if err != nil {
			r.w.T.Fatal(err)
		}
		r.done <- nil // for the cleanup
	case <-time.After(jobtest.Patience):
		r.w.T.Fatalf("the pipeline did not drain within %v", jobtest.Patience)
	}
}

// Every published sample goes the whole way, and what comes out of the table is
// what a person reads in the sample.
func TestSamplesGoThroughTheWholeJob(t *testing.T) {
	w := newWorld(t, jobtest.SweeperOff) // so that the events alone bring the blobs in
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
	w.WaitFor("SELECT count() FROM millrace.flows", fmt.Sprint(total))
	r.drain()

	for _, s := range samples {
		if got := w.Ask(w.rowsOf("SELECT count()", s)); got != fmt.Sprint(s.rows) {
			t.Errorf("%s: %s rows, want %d", s.name, got, s.rows)
		}
		w.checkOffsets(s)
	}
	w.checkTotals(samples)
	w.checkRows(samples)
	if got := w.Ask(jobtest.AddressesTwice); got != "0" {
		t.Errorf("%s tuple addresses are twice in flows", got)
	}
	if got := w.Ask("SELECT count() FROM millrace.quarantine"); got != "0" {
		t.Errorf("%s entries in quarantine, want none", got)
	}

	// The next start goes on: the same events again bring nothing.
	r = w.run()
	for _, s := range samples {
		w.announce(s, "0x1", len(s.content()))
	}
	r.drain()
	if got := w.Ask("SELECT count() FROM millrace.flows"); got != fmt.Sprint(total) {
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
	w.WaitFor("SELECT count() FROM millrace.flows", fmt.Sprint(total))
	r.drain()
	if got := w.Ask(jobtest.AddressesTwice); got != "0" {
		t.Errorf("%s tuple addresses are twice in flows", got)
	}
}

// rowsOf completes a query over the rows of one sample.
func (w *world) rowsOf(sql string, s sampleBlob) string {
	return fmt.Sprintf("%s FROM millrace.flows WHERE blob = '%s/%s/%s'", sql, w.Account, s.container, s.path)
}

// checkOffsets wants every row's address to be the place of a record in the blob.
func (w *world) checkOffsets(s sampleBlob) {
	w.T.Helper()
	content := s.content()
	for _, text := range strings.Fields(w.Ask(w.rowsOf("SELECT DISTINCT record_offset", s))) {
		var offset int
		if _, err := fmt.Sscan(text, &offset); err != nil || offset >= len(content) || content[offset] != '{' {
			w.T.Errorf("%s: no record begins at byte %s of the blob", s.name, text)
		}
	}
}

// checkTotals compares sums that stand in the documentation or were counted by
// hand, in rows and in windows.
func (w *world) checkTotals(samples []sampleBlob) {
	w.T.Helper()
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
			if got := w.Ask(w.rowsOf(c.sql, s)); got != c.want {
				w.T.Errorf("%s: %s: %q, want %q", s.name, c.sql, got, c.want)
			}
		}
	}
	const sums = "sum(packets_sent), sum(bytes_sent), sum(packets_received), sum(bytes_received) FROM millrace."
	rows := w.Ask("SELECT count(), " + sums + "flows")
	for _, table := range []string{"windows_traffic_1m", "windows_traffic_1m_merged", "windows_services_1m", "windows_rules_5m_merged"} {
		if got := w.Ask("SELECT sum(rows), " + sums + table); got != rows {
			w.T.Errorf("%s: %q, want %q as in flows", table, got, rows)
		}
	}
}

// checkRows compares whole rows with what a person reads in the samples.
func (w *world) checkRows(samples []sampleBlob) {
	w.T.Helper()
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
			text := w.Ask(w.rowsOf("SELECT * EXCEPT (time, blob, record_offset, ordinal, batch_id), toUnixTimestamp64Milli(time) AS ms", s) +
				" AND " + c.where + " FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0")
			var got map[string]any
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				w.T.Errorf("%s: %q: %v", s.name, text, err)
				continue
			}
			c.want["ms"] = float64(c.written + s.shift.Milliseconds())
			if diff := cmp.Diff(c.want, got); diff != "" {
				w.T.Errorf("%s (-want +got):\n%s", s.name, diff)
			}
		}
	}
}

// mapped is how the table shows an IPv4 address.
func mapped(s string) string { return "::ffff:" + netip.MustParseAddr(s).String() }
