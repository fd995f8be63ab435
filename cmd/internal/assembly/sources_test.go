package assembly

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

const sourcesPatience = 30 * time.Second

// hubs is an emulator and a pipeline's event hubs on it, without the pipeline.
type hubs struct {
	*emulator.Server
	p    *Pipeline
	cfg  config.Config
	deps Deps
	read *sdkmetric.ManualReader

	mu   sync.Mutex
	got  map[string]bool // container/path
	fail error           // what the pipeline answers
}

const goodKey = "c2VjcmV0LWtleS1vZi10ZXN0cw=="

// startHubs makes hubs of entries, with the fields of config.EventHub; %s is a file
// for a connection string.
func startHubs(t *testing.T) *hubs {
	t.Helper()
	server, err := emulator.New(emulator.Config{Addr: "127.0.0.1:0", Key: goodKey, Hubs: []emulator.Hub{{Name: "one", Partitions: 2}, {Name: "two", Partitions: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	h := &hubs{Server: server, p: &Pipeline{}, got: map[string]bool{}, read: sdkmetric.NewManualReader()}
	h.deps = Deps{
		Meter:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(h.read)).Meter("test"),
		Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.DiscardHandler),
	}
	h.cfg.State = filepath.Join(t.TempDir(), "state")
	h.cfg.Accounts = []config.Account{{Name: "logs", Endpoint: "https://logs.blob.core.windows.net", Containers: []string{"flowlogs"}}}
	return h
}

// entry is a hub whose connection string stands in a file.
func (h *hubs) entry(t *testing.T, hub, connection string) config.EventHub {
	t.Helper()
	file := filepath.Join(t.TempDir(), "connection")
	h.write(t, file, connection)
	return config.EventHub{Hub: hub, ConsumerGroup: "$Default", Transport: config.TransportAMQP, ConnectionString: config.Reference{File: file}}
}

func (h *hubs) write(t *testing.T, file, connection string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(connection), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run reads the hubs until the test ends.
func (h *hubs) run(t *testing.T) (stop func() error) {
	t.Helper()
	if err := h.p.openHubs(h.cfg, h.deps); err != nil {
		t.Fatal(err)
	}
	h.p.hubs.retryMin, h.p.hubs.retryMax = 20*time.Millisecond, 100*time.Millisecond
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- h.p.hubs.Run(ctx, h.emit) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func (h *hubs) emit(_ context.Context, d pipeline.Delivery) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return h.fail
	}
	for _, a := range d.Announcements {
		h.got[a.Blob.Path] = true
	}
	d.Ack()
	return nil
}

// publish announces a blob.
func (h *hubs) publish(t *testing.T, hub, path string) {
	t.Helper()
	body := fmt.Sprintf(`[{"topic":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/logs","subject":"/blobServices/default/containers/flowlogs/blobs/%[1]s","eventType":"Microsoft.Storage.BlobCreated","id":"1","eventTime":"2026-11-23T07:00:00Z","data":{"api":"PutBlockList","eTag":"0x1","contentType":"application/octet-stream","contentLength":100,"blobType":"BlockBlob","url":"https://logs.blob.core.windows.net/flowlogs/%[1]s","sequencer":"1"},"dataVersion":"","metadataVersion":"1"}]`, path)
	if _, err := h.Publish(hub, emulator.InTurn(), []byte(body), nil); err != nil {
		t.Fatal(err)
	}
}

func (h *hubs) has(path string) func() bool {
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.got[path]
	}
}

// states gives the state of each hub, by hub and group.
func (h *hubs) states() map[string]SourceStatus {
	all := map[string]SourceStatus{}
	for _, s := range h.p.Sources() {
		_, name, _ := strings.Cut(s.Name, "/")
		all[name] = s
	}
	return all
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(sourcesPatience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %v", what, sourcesPatience)
		}
	}
}

func flowLog(n int) string {
	return fmt.Sprintf("flowLogResourceID=/S_G/N_F/y=2026/m=11/d=23/h=07/m=00/macAddress=%012X/PT1H.json", n)
}

// One hub that is not there and one whose key is wrong do not end the third. They
// are shown, counted and tried again, and read once what was wrong is mended: the
// key's file is read anew.
func TestOneBadHubDoesNotEndTheOthers(t *testing.T) {
	h := startHubs(t)
	good := h.ConnectionString("one")
	strip := func(s string) string { s, _, _ = strings.Cut(s, ";EntityPath"); return s }
	wrongKey := h.entry(t, "two", strings.Replace(h.ConnectionString("two"), goodKey, "d3Jvbmc=", 1))
	h.cfg.EventHubs = []config.EventHub{h.entry(t, "one", good), h.entry(t, "missing", strip(good)), wrongKey}
	stop := h.run(t)
	h.publish(t, "one", flowLog(1))
	h.publish(t, "two", flowLog(2))
	eventually(t, "blob of the good hub", h.has(flowLog(1)))
	eventually(t, "refusal of both bad hubs", func() bool {
		s := h.states()
		return s["missing/$Default"].State == StateRefused && s["two/$Default"].State == StateRefused
	})
	s := h.states()
	if g := s["one/$Default"]; g.State != StateReading || g.Error != "" {
		t.Errorf("the good hub: %+v", g)
	}
	for _, name := range []string{"missing/$Default", "two/$Default"} {
		if b := s[name]; b.Error == "" || b.RetryAt == nil || b.Since.IsZero() || strings.Contains(b.Error, "d3Jvbmc=") {
			t.Errorf("%s: %+v", name, b)
		}
	}
	up := h.gauge(t, "millrace.source.up")
	if len(up) != 3 || up["one/$Default"] != 1 || up["missing/$Default"] != 0 || up["two/$Default"] != 0 {
		t.Errorf("millrace.source.up: %v", up)
	}

	h.write(t, wrongKey.ConnectionString.File, h.ConnectionString("two"))
	eventually(t, "blob of the mended hub", h.has(flowLog(2)))
	h.publish(t, "one", flowLog(3))
	eventually(t, "second blob of the good hub", h.has(flowLog(3)))
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := h.p.hubs.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// An error of the pipeline is not the hub's: it ends the source.
func TestErrorOfThePipelineEndsTheHubs(t *testing.T) {
	h := startHubs(t)
	h.cfg.EventHubs = []config.EventHub{h.entry(t, "one", h.ConnectionString("one"))}
	h.fail = fmt.Errorf("no room")
	if err := h.p.openHubs(h.cfg, h.deps); err != nil {
		t.Fatal(err)
	}
	h.publish(t, "one", flowLog(1))
	if err := h.p.hubs.Run(t.Context(), h.emit); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("have: %v", err)
	}
}

// Two entries for one hub and group are a fault, found before anything is read.
func TestOneHubTwice(t *testing.T) {
	h := startHubs(t)
	h.cfg.EventHubs = []config.EventHub{h.entry(t, "one", h.ConnectionString("one")), h.entry(t, "one", h.ConnectionString("one"))}
	if err := h.p.openHubs(h.cfg, h.deps); err == nil || !strings.Contains(err.Error(), "eventhubs[1]: the same namespace, hub and consumer group as eventhubs[0]") {
		t.Errorf("have: %v", err)
	}
}

// gauge reads an instrument's values by the source's hub and group.
func (h *hubs) gauge(t *testing.T, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := h.read.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	values := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if g, ok := m.Data.(metricdata.Gauge[int64]); ok && m.Name == name {
				for _, p := range g.DataPoints {
					source, _ := p.Attributes.Value("source")
					_, short, _ := strings.Cut(source.AsString(), "/")
					values[short] = p.Value
				}
			}
		}
	}
	return values
}

// Hubs come and go while the others are read; one whose key was rotated is read with
// the new one.
func TestHubsChangeWhileTheyRun(t *testing.T) {
	h := startHubs(t)
	one := h.entry(t, "one", h.ConnectionString("one"))
	h.cfg.EventHubs = []config.EventHub{one}
	h.run(t)
	h.publish(t, "one", flowLog(1))
	eventually(t, "blob of the first hub", h.has(flowLog(1)))
	apply := func(hubs ...config.EventHub) {
		t.Helper()
		fresh := h.cfg
		fresh.EventHubs = hubs
		openers, resolved, err := h.p.hubOpeners(fresh)
		if err != nil {
			t.Fatal(err)
		}
		h.p.hubs.apply(t.Context(), openers, resolved)
	}
	member := func() *hubMember { return h.p.hubs.list()[0] }
	before := member()
	two := h.entry(t, "two", h.ConnectionString("two"))
	apply(one, two)
	h.publish(t, "two", flowLog(2))
	eventually(t, "blob of the new hub", h.has(flowLog(2)))
	if member() != before {
		t.Error("the hub that did not change was begun anew")
	}
	h.write(t, one.ConnectionString.File, h.ConnectionString("one")+";")
	apply(one)
	if list := h.p.hubs.list(); len(list) != 1 || list[0] == before {
		t.Errorf("%d hubs; a rotated key begins the hub anew", len(list))
	}
	h.publish(t, "one", flowLog(3))
	eventually(t, "blob after the rotation", h.has(flowLog(3)))
}
