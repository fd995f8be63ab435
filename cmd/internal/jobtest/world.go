// Package jobtest runs the whole job for tests: blobs that grow in Azurite, an
// Event Hubs emulator, the embedded ClickHouse, an estate that writes logs and keeps
// the truth about them, and `millrace run` in processes of its own that can be
// killed, frozen and started again.
//
// What flows in: options of a World. What flows out: its configuration, running
// programs, answers to SQL. Everything ends with the test. It is imported by tests
// only.
package jobtest

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// Patience bounds every wait: other packages' tests run beside.
const Patience = 60 * time.Second

// Names in every world.
const (
	HubName  = "flowlogs"
	Database = "millrace"
	// VNetLogs and NSGLogs are the containers of the two kinds of flow logs.
	VNetLogs = "insights-logs-flowlogflowevent"
	NSGLogs  = "insights-logs-networksecuritygroupflowevent"
)

// Pieces of configuration.
const (
	SweeperOff  = "sweeper: {interval: 0s}\n"
	SweeperSoon = "sweeper: {interval: 2s, discover: 2s}\n"
)

// Service is one of the parts behind a pipeline.
type Service string

// Services.
const (
	Blobs      Service = "blobs"
	Hub        Service = "hub"
	ClickHouse Service = "clickhouse"
)

// Options of a World.
type Options struct {
	// URL is where the test asks the target; empty starts a ClickHouse.
	URL string
	// Target is what the configuration says of it, default its URL.
	Target string
	// Extra is added to the configuration.
	Extra string
	// Via gives the address that the pipeline is told instead of a service's own
	// host:port, that of a proxy in front of it. Optional.
	Via func(s Service, addr string) string
}

// World is what a pipeline runs against.
type World struct {
	T       *testing.T
	Account string
	Blobs   *traffic.AzureWriter
	Hub     *emulator.Server
	Tables  *clickhouse.Sink // to ask the target
	YAML    string           // the pipeline's configuration
	Env     []string         // what it names of the environment
	Bin     string           // what Launch starts; "" is the program of the environment
}

// New starts all parts.
func New(t *testing.T, o Options) *World {
	t.Helper()
	if o.URL == "" {
		o.URL, _ = localtest.StartClickHouse(t)
	}
	if o.Via == nil {
		o.Via = func(_ Service, addr string) string { return addr }
	}
	if o.Target == "" {
		o.Target = "url: " + via(t, o, ClickHouse, o.URL)
	}
	endpoint, account, key := localtest.StartAzurite(t)
	w := &World{T: t, Account: account}
	var err error
	if w.Blobs, err = traffic.DialAzure(endpoint, account, key); err != nil {
		t.Fatal(err)
	}
	w.startHub()
	w.setenv("TEST_STORAGE_KEY", key)
	w.setenv("TEST_EVENTHUBS", strings.Replace(w.Hub.ConnectionString(HubName), w.Hub.Addr(), o.Via(Hub, w.Hub.Addr()), 1))
	w.YAML = fmt.Sprintf(`
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
`, t.TempDir()+"/state", account, via(t, o, Blobs, endpoint), account, VNetLogs, NSGLogs, HubName, o.Target, Database) + o.Extra
	for _, c := range []string{VNetLogs, NSGLogs} {
		if err := w.Blobs.EnsureContainer(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	cfg := clickhouse.DefaultConfig()
	cfg.URL, cfg.Database = o.URL, "system" // ours does not exist yet
	if w.Tables, err = clickhouse.New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Tables.Close() })
	return w
}

// setenv is for pipelines in this process and for programs. Those of an older world
// keep their own.
func (w *World) setenv(name, value string) {
	w.T.Setenv(name, value)
	w.Env = append(w.Env, name+"="+value)
}

// In is the world for a subtest, which may run beside those of other worlds.
func (w *World) In(t *testing.T) *World {
	in := *w
	in.T = t
	return &in
}

// via puts the address that the options give into a service's URL.
func via(t *testing.T, o Options, s Service, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = o.Via(s, u.Host)
	return u.String()
}

func (w *World) startHub() {
	w.T.Helper()
	hub, err := emulator.New(emulator.Config{Addr: "127.0.0.1:0", Hubs: []emulator.Hub{{Name: HubName, Partitions: 4}}})
	if err != nil {
		w.T.Fatal(err)
	}
	w.Hub = hub
	ctx, stop := context.WithCancel(context.WithoutCancel(w.T.Context()))
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	w.T.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.T.Errorf("emulator: %v", err)
		}
	})
}

// Config is the configuration, read.
func (w *World) Config() config.Config {
	w.T.Helper()
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		w.T.Fatal(err)
	}
	return cfg
}

// State is the folder that the configuration names.
func (w *World) State() string {
	w.T.Helper()
	return w.Config().State
}

// SharedLedger puts the ledger into a container of the account. An owner that gives
// no sign of life for 5 s is followed by another one.
func (w *World) SharedLedger() {
	w.T.Helper()
	a := w.Config().Accounts[0]
	w.YAML += fmt.Sprintf("ledger: {expiry: 5s, azure: {name: %s, endpoint: %q, container: ledgers, prefix: test, key: {env: TEST_STORAGE_KEY}}}\n", a.Name, a.Endpoint)
}
