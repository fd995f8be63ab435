package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/deploy/local"
	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/deploy/local/servers"
)

// containers are those that network flow logs are written to.
var containers = []string{"insights-logs-flowlogflowevent", "insights-logs-networksecuritygroupflowevent"}

// startAll starts ClickHouse and Azurite side by side, then the estate, then the
// pipeline.
func (d *demo) startAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not everything was up after %v: see %s", startTimeout, d.path("logs")))
	defer cancel()
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.startClickHouse(gctx) })
	group.Go(func() error { return d.startAzurite(gctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	if err := d.startEstate(ctx); err != nil {
		return err
	}
	if err := d.configurePipeline(); err != nil {
		return err
	}
	if err := d.startPipeline(ctx); err != nil {
		return err
	}
	d.say.line("everything is up after %.1f s", time.Since(d.began).Seconds())
	return nil
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
	if d.cfg.ClickHouse != "" {
		d.url = strings.TrimSuffix(d.cfg.ClickHouse, "/")
		return nil
	}
	var err error
	d.clickhouse, err = servers.StartClickHouse(ctx, servers.ClickHouseOptions{
		Bin: d.cfg.Server, Lib: d.cfg.Cache.Path(part(local.PartClickHouse)), Dir: d.path("clickhouse"),
		HTTPPort: portHTTP, TCPPort: portNative, MemoryLimit: serverMemory, LogFile: d.path("logs", "clickhouse.log"),
	})
	if err != nil {
		return err
	}
	d.url = d.clickhouse.HTTPURL
	if d.clickhouse.PortsMoved {
		d.say.line("port %d or %d is busy: ClickHouse listens on %d and %d", portHTTP, portNative, d.clickhouse.HTTPPort, d.clickhouse.TCPPort)
	}
	return nil
}

func (d *demo) startAzurite(ctx context.Context) error {
	var err error
	d.azurite, err = servers.StartAzurite(ctx, servers.AzuriteOptions{
		Script: d.cfg.Cache.Path(part(local.PartAzurite)), Port: portBlobs, Account: d.cfg.Traffic.Account, Dir: d.path("azurite"),
		LogFile: d.path("logs", "azurite.log"),
	})
	if err == nil && d.azurite.PortMoved {
		d.say.line("port %d is busy: blob storage listens on %d", portBlobs, d.azurite.Port)
	}
	return err
}

// ports reserves a port and says so when it is not the usual one.
func (d *demo) port(preferred int, what string) (int, error) {
	p, moved := process.PickPort(preferred)
	if p == 0 {
		return 0, fmt.Errorf("no free port for %s", what)
	}
	if moved {
		d.say.line("port %d is busy: %s listens on %d", preferred, what, p)
	}
	return p, nil
}

func (d *demo) startEstate(ctx context.Context) error {
	control, err := d.port(portEstate, "the estate")
	if err != nil {
		return err
	}
	hub, err := d.port(portEventHubs, "Event Hubs")
	if err != nil {
		return err
	}
	cfg := EstateConfig{
		Listen: fmt.Sprintf("127.0.0.1:%d", control), EventHubs: fmt.Sprintf("127.0.0.1:%d", hub),
		Partitions: d.cfg.Partitions, Endpoint: d.azurite.Endpoint, Traffic: d.cfg.Traffic,
	}
	cfg.Traffic.TruthFile = d.truthFile
	data, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	file := d.path("estate.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	d.estateURL = "http://" + cfg.Listen
	d.connection = fmt.Sprintf("Endpoint=sb://127.0.0.1:%d;SharedAccessKeyName=demo;SharedAccessKey=ZGVtbw==;UseDevelopmentEmulator=true;EntityPath=%s", hub, Hub)
	d.fed = time.Now()
	d.estate, err = process.Start(process.Config{
		Name: "estate", Path: d.cfg.Program, Args: []string{"demo-estate", "--config", file},
		Env: []string{EnvStorageKey + "=" + d.azurite.Key}, LogFile: d.path("logs", "estate.log"),
	})
	if err != nil {
		return err
	}
	return d.waitFor(ctx, d.estate, func() error { return d.get(ctx, d.estateURL+"/status", &EstateStatus{}) })
}

// configurePipeline writes the same file that a user would.
func (d *demo) configurePipeline() error {
	port, err := d.port(portPipeline, "the pipeline")
	if err != nil {
		return err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	d.pipelineURL = "http://" + listen
	text := fmt.Sprintf(`# Configuration of the demo's pipeline. Secrets are in its environment.
state: %q
shards: 4
start: %q
listen: %q
max_batch_age: 1s
memory_budget_mib: 192
accounts:
  - name: %q
    endpoint: %q
    aliases: ["https://%s.blob.core.windows.net"]
    containers: [%s]
    key: {env: %s}
eventhubs:
  - connection_string: {env: %s}
    hub: %s
sweeper:
  interval: 5s
  discover: 10s
clickhouse:
  url: %q
  database: %q
`, d.path("state"), d.cfg.Traffic.Start.UTC().Format(time.RFC3339), listen, d.cfg.Traffic.Account, d.azurite.Endpoint, d.cfg.Traffic.Account,
		strings.Join(containers, ", "), EnvStorageKey, EnvEventHubs, Hub, d.url, d.database)
	d.configFile = d.path("millrace.yaml")
	return os.WriteFile(d.configFile, []byte(text), 0o600)
}

func (d *demo) startPipeline(ctx context.Context) error {
	var err error
	d.pipeline, err = process.Start(process.Config{
		Name: "pipeline", Path: d.cfg.Program, Args: []string{"run", "--config", d.configFile, "--end-of-input-on-stop", "--die-with-parent"},
		Env: []string{
			EnvStorageKey + "=" + d.azurite.Key, EnvEventHubs + "=" + d.connection,
			"GOMEMLIMIT=" + memoryLimit,
		},
		LogFile: d.path("logs", "pipeline.log"),
	})
	if err != nil {
		return err
	}
	return d.waitFor(ctx, d.pipeline, func() error {
		resp, err := d.http.Get(d.pipelineURL + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return fmt.Errorf("not ready: %s", resp.Status)
		}
		return nil
	})
}

// waitFor asks until the child answers.
func (d *demo) waitFor(ctx context.Context, p *process.Process, ask func() error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ask() == nil {
			return nil
		}
		select {
		case <-p.Done():
			return p.ExitError()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// running lists the children, the last one started first.
func (d *demo) running() []*process.Process {
	var all []*process.Process
	for _, p := range []*process.Process{d.pipeline, d.estate} {
		if p != nil {
			all = append(all, p)
		}
	}
	if d.azurite != nil {
		all = append(all, d.azurite.Process)
	}
	if d.clickhouse != nil {
		all = append(all, d.clickhouse.Process)
	}
	return all
}

func (d *demo) stopAll() {
	if d.sink != nil {
		_ = d.sink.Close() // nothing is buffered in it
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, p := range d.running() {
		_ = p.Stop(ctx) // killed at the latest when the time is up
	}
}

func (d *demo) killAll() {
	for _, p := range d.running() {
		p.SendKill()
	}
}
