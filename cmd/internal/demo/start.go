package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/cmd/internal/children"
	"github.com/millrace/millrace/cmd/internal/digits"
	"github.com/millrace/millrace/deploy/local"
	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline/announce"
)

// Names of the children.
const (
	childClickHouse = "clickhouse"
	childAzurite    = "azurite"
	childEstate     = "estate"
	childPipeline   = "pipeline"
)

// Files in the demo's folder.
const (
	configName = "millrace.yaml"
	estateName = "estate.json"
	truthName  = "truth.json"
	// Secrets of the demo's own parts, for the owner alone: with them the other commands
	// work on the configuration too.
	storageKeyName = "storage.key"
	connectionName = "eventhubs.connection"
)

const (
	// pipelineMemory is the Go runtime's soft limit in the pipeline's process.
	pipelineMemory = "380MiB"
	// serverMemory bounds the embedded ClickHouse, in bytes; on a small machine it is
	// half of the memory.
	serverMemory = 6 << 30
)

// startAll starts ClickHouse and Azurite side by side, then the estate, then the
// pipeline.
//
// Errors: ErrNotReconciled when the user interrupts: there is nothing to compare
// yet.
func (d *demo) startAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not everything was up after %v: see %s", startTimeout, d.path("logs")))
	defer cancel()
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	go func() {
		select {
		case <-d.drain:
			interrupt(fmt.Errorf("%w: interrupted while starting", ErrNotReconciled))
		case <-ctx.Done():
		}
	}()
	err := d.startInOrder(ctx)
	if cause := context.Cause(ctx); err != nil && errors.Is(err, context.Canceled) && cause != nil {
		return cause // says why
	}
	return err
}

func (d *demo) startInOrder(ctx context.Context) error {
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error { return d.startClickHouse(both) })
	group.Go(func() error { return d.startAzurite(both) })
	if err := group.Wait(); err != nil {
		return err
	}
	if err := d.group.Start(ctx, children.Spec{Name: childEstate, Start: d.startEstate}); err != nil {
		return err
	}
	return d.group.Start(ctx, children.Spec{Name: childPipeline, Start: d.startPipeline, Policy: d.pipeline.restart})
}

func part(name string) local.Part {
	for _, p := range local.Parts(local.ForDemo) {
		if p.Name == name {
			return p
		}
	}
	panic("BUG: no part " + name)
}

func (d *demo) startClickHouse(ctx context.Context) error {
	t := &d.tables
	if t.url = strings.TrimSuffix(d.cfg.ClickHouse.URL, "/"); t.url == "" {
		err := d.group.Start(ctx, children.Spec{Name: childClickHouse, Start: d.startEmbedded, Policy: d.serverEnded})
		if err != nil {
			return err
		}
	}
	if err := t.open(ctx); err != nil || !d.cfg.Keep {
		return err
	}
	if err := t.keep(ctx); err != nil {
		return fmt.Errorf("look at the tables to keep: %w", err)
	}
	d.say.line("kept: %s rows of earlier demos in %s", digits.Thousands(t.before), t.table("flows"))
	return nil
}

// serverEnded is the policy for the end of the embedded ClickHouse: one that
// aborted comes again, once in a while. This version does so when a client hangs up
// in the middle of a request's header (ClickHouse/ClickHouse#115666), as a pipeline
// does that is killed; the data is safe, and the pipeline finds out what landed.
func (d *demo) serverEnded(e children.Exit) children.Decision {
	killed := strings.Contains(e.Err.Error(), "signal: killed") // by somebody else: not ours to undo
	if killed || e.Restarts >= maxAborts {
		return children.Decision{}
	}
	d.say.line("ClickHouse aborted, starting it again")
	return children.Always(e)
}

// maxAborts is how often the embedded ClickHouse is started again.
const maxAborts = 5

func (d *demo) startEmbedded(ctx context.Context) (*process.Process, error) {
	o := servers.ClickHouseOptions{
		Bin: d.cfg.ServerProgram, Lib: d.cfg.Cache.Path(part(local.PartClickHouse)), Dir: d.path("clickhouse"),
		HTTPPort: portHTTP, TCPPort: portNative, MemoryLimit: serverMemoryHere(), LogFile: d.path("logs", "clickhouse.log"),
	}
	again := d.serverPorts[0] != 0
	if again {
		o.HTTPPort, o.TCPPort = d.serverPorts[0], d.serverPorts[1]
	}
	ch, err := servers.StartClickHouse(ctx, o)
	if err != nil {
		return nil, err
	}
	if again {
		if ch.PortsMoved {
			ch.Kill()
			return nil, fmt.Errorf("port %d or %d was taken while ClickHouse was down", o.HTTPPort, o.TCPPort)
		}
		return ch.Process, nil
	}
	d.tables.url, d.serverPorts = ch.HTTPURL, [2]int{ch.HTTPPort, ch.TCPPort}
	if ch.PortsMoved {
		d.say.line("port %d or %d is busy: ClickHouse listens on %d (HTTP) and %d (native)", portHTTP, portNative, ch.HTTPPort, ch.TCPPort)
	}
	return ch.Process, nil
}

func serverMemoryHere() uint64 {
	if total := memoryOfMachine(); total > 0 {
		return min(serverMemory, total/2)
	}
	return serverMemory
}

func (d *demo) startAzurite(ctx context.Context) error {
	accounts := d.cfg.Traffic.AccountNames()
	return d.group.Start(ctx, children.Spec{Name: childAzurite, Start: func(ctx context.Context) (*process.Process, error) {
		a, err := servers.StartAzurite(ctx, servers.AzuriteOptions{
			Script: d.cfg.Cache.Path(part(local.PartAzurite)), Port: portBlobs, Account: accounts[0], More: accounts[1:], Dir: d.path("azurite"),
			LogFile: d.path("logs", "azurite.log"),
		})
		if err != nil {
			return nil, err
		}
		if a.PortMoved {
			d.say.line("port %d is busy: blob storage listens on %d", portBlobs, a.Port)
		}
		d.blobs = blobStorage{endpoints: map[string]string{}, key: a.Key}
		for _, name := range accounts {
			d.blobs.endpoints[name] = a.EndpointOf(name)
		}
		return a.Process, nil
	}})
}

// startEstate starts the simulated estate and the Event Hubs emulator that it
// publishes to.
func (d *demo) startEstate(ctx context.Context) (*process.Process, error) {
	cfg := EstateConfig{Partitions: d.cfg.Partitions, Endpoints: d.blobs.endpoints, Traffic: d.cfg.Traffic}
	cfg.Traffic.TruthFile = d.path(truthName)
	start := func(ports []int) (*process.Process, error) {
		cfg.Listen, cfg.EventHubs = loopback(ports[0]), loopback(ports[1])
		data, err := json.MarshalIndent(cfg, "", "  ")
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(d.path(estateName), data, 0o600); err != nil {
			return nil, err
		}
		d.fed = time.Now()
		return process.Start(process.Config{
			Name: childEstate, Path: d.cfg.Program, Args: []string{"demo-estate", "--config", d.path(estateName)},
			Env: []string{EnvStorageKey + "=" + d.blobs.key}, LogFile: d.path("logs", "estate.log"),
		})
	}
	ready := func(ctx context.Context, pid int) error {
		var s EstateStatus
		if err := d.get(ctx, "http://"+cfg.Listen+"/status", &s); err != nil {
			return err
		}
		return ours(s.PID, pid)
	}
	p, err := d.onPorts(ctx, []wanted{{portEstate, "the estate"}, {portEventHubs, "Event Hubs"}}, start, ready)
	if err != nil {
		return nil, err
	}
	d.estateURL = "http://" + cfg.Listen
	d.connection = fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=demo;SharedAccessKey=ZGVtbw==;UseDevelopmentEmulator=true;EntityPath=%s", cfg.EventHubs, Hub)
	return p, nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// ours makes sure that it is our child that answers.
func ours(answering, child int) error {
	if answering != child {
		return errNotOurs
	}
	return nil
}

// pipelineStatus is what the pipeline's /status tells, as far as a demo asks.
type pipelineStatus struct {
	PID          int   `json:"pid"`
	Live         bool  `json:"live"`
	Watermark    int64 `json:"watermark"`
	BytesFetched int64 `json:"bytes_fetched"`
}

// startPipeline starts the pipeline, the first one and those after a kill, and
// waits until it has recovered what the one before left.
func (d *demo) startPipeline(ctx context.Context) (*process.Process, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("the pipeline was not up after %v: see %s", startTimeout, d.path("logs", "pipeline.log")))
	defer cancel()
	var url string
	start := func(ports []int) (*process.Process, error) {
		url = "http://" + loopback(ports[0])
		for name, text := range map[string]string{
			storageKeyName: d.blobs.key, connectionName: d.connection, configName: d.pipelineConfig(loopback(ports[0])),
		} {
			if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
				return nil, err
			}
		}
		return process.Start(process.Config{
			Name: childPipeline, Path: d.cfg.Program,
			Args:    []string{"run", "--config", d.path(configName), "--end-of-input-on-stop", "--die-with-parent"},
			Env:     []string{"GOMEMLIMIT=" + pipelineMemory},
			LogFile: d.path("logs", "pipeline.log"),
		})
	}
	ready := func(ctx context.Context, pid int) error {
		var s pipelineStatus
		if err := d.get(ctx, url+"/status", &s); err != nil {
			return err
		}
		if !s.Live {
			return errors.New("recovering")
		}
		return ours(s.PID, pid)
	}
	p, err := d.onPorts(ctx, []wanted{{portPipeline, "the pipeline"}}, start, ready)
	if err != nil {
		return nil, err
	}
	d.pipeline.url.Store(url)
	d.pipeline.born.Store(time.Now().UnixNano())
	if d.pipeline.lives.Add(1) > 1 {
		d.say.line("chaos %d of %d: recovered and live after %.1f s", d.pipeline.killed.Load(), d.cfg.Kills, time.Since(began).Seconds())
	}
	return p, nil
}

// restart is the policy for the end of a pipeline: those that we killed come
// again.
func (p *pipelineChild) restart(children.Exit) children.Decision {
	return children.Decision{Restart: p.killed.Load() == p.lives.Load()}
}

// accountsConfig is the list of accounts in that file.
func (d *demo) accountsConfig() string {
	var text strings.Builder
	for _, name := range d.cfg.Traffic.AccountNames() {
		fmt.Fprintf(&text, `  - name: %q
    endpoint: %q
    aliases: ["https://%s.blob.core.windows.net"]
    containers: [%s]
    key: {file: %q}
`, name, d.blobs.endpoints[name], name, strings.Join(announce.DefaultContainers(), ", "), d.path(storageKeyName))
	}
	return text.String()
}

// pipelineConfig is the file that a user would write.
func (d *demo) pipelineConfig(listen string) string {
	t := &d.tables
	text := fmt.Sprintf(`# Configuration of the demo's pipeline. Secrets are in files beside it.
state: %q
shards: 4
start: %q
listen: %q
max_batch_age: %v
memory_budget_mib: 192
accounts:
%seventhubs:
  - connection_string: {file: %q}
    hub: %s
sweeper:
  interval: %v
  discover: %v
clickhouse:
  url: %q
  database: %q
  allow_non_empty: %v
`, d.path("state"), d.cfg.Traffic.Start.UTC().Format(time.RFC3339), listen, d.cfg.Batching, d.accountsConfig(),
		d.path(connectionName), Hub, d.cfg.Sweep, 2*d.cfg.Sweep, t.url, t.database, d.cfg.Keep)
	if t.server.User != "" {
		text += fmt.Sprintf("  user: %q\n", t.server.User)
	}
	if !t.server.Password.IsZero() {
		text += fmt.Sprintf("  password: {env: %s}\n", EnvClickHousePassword)
	}
	if countries := d.cfg.Cache.Countries(); countries != "" {
		text += fmt.Sprintf("enrich:\n  country_file: %q\n", countries)
	}
	return text
}
