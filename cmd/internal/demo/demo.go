// Package demo runs the whole main job on one machine: an Event Hubs emulator,
// Azurite, a simulated estate, the real pipeline and an embedded ClickHouse, each
// in a process of its own, and at the end compares what was written with what has
// landed.
//
// Run owns every child and every goroutine; when it returns, all are gone. Should
// this process be killed, the children end within two seconds.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/deploy/local"
	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// Config of a demo.
type Config struct {
	For        time.Duration // 0: until interrupted
	JSON       bool          // the last line is one JSON object
	Keep       bool          // go on with the tables of the last run
	Chaos      int           // how often the pipeline is killed and started again
	Dir        string        // state, data and logs
	ClickHouse string        // URL of a server to use instead of the embedded one
	Traffic    traffic.Config
	Partitions int

	Program string // path of millrace
	Server  string // path of millrace-clickhouse
	Cache   local.Cache

	Out    io.Writer // results
	Status io.Writer // progress, for people
	// Interrupts delivers the user's interrupts: the first one drains, the second
	// one kills.
	Interrupts <-chan os.Signal
}

// Stable ports of a demo; the next free one is taken when one is busy.
const (
	portHTTP      = 8123
	portNative    = 9000
	portBlobs     = 10000
	portEventHubs = 5672
	portPipeline  = 9464
	portEstate    = 9465
)

// Bounds of a demo's steps.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
	pollEvery    = time.Second
	// memoryLimit is the Go runtime's soft limit in the pipeline's process.
	memoryLimit = "380MiB"
	// serverMemory bounds the embedded ClickHouse, in bytes.
	serverMemory = 6 << 30
)

// Errors of Run beside those of its parts.
var (
	// ErrNotReconciled: the demo was cut short, so nothing was compared.
	ErrNotReconciled = errors.New("not reconciled")
	// ErrMismatch: the comparison found rows lost, doubled or altered.
	ErrMismatch = errors.New("rows were lost, doubled or altered")
)

type demo struct {
	cfg   Config
	say   *console
	began time.Time

	clickhouse *servers.ClickHouse
	azurite    *servers.Azurite
	estate     *process.Process
	pipeline   *process.Process

	url         string // of ClickHouse
	database    string
	password    string
	estateURL   string
	pipelineURL string
	connection  string // of the hub; secret
	configFile  string
	truthFile   string
	http        *http.Client
	sink        *clickhouse.Sink // for questions; made when first needed

	fed      time.Time // when the estate began
	firstRow time.Duration
	fetched  int64 // bytes fetched by pipelines that were killed
	lastSeen pipelineStatus
	peakRSS  int64
	kills    int
}

// pipelineStatus is what the pipeline's /status tells.
type pipelineStatus struct {
	engine.Status
	BytesFetched int64 `json:"bytes_fetched"`
}

// Run runs a demo to its end.
func Run(ctx context.Context, cfg Config) error {
	d := &demo{cfg: cfg, say: newConsole(cfg.Status), began: time.Now(), http: &http.Client{Timeout: stopTimeout}}
	if err := d.prepare(); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer d.stopAll()
	if err := d.startAll(ctx); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.announce()
	err := d.watch(ctx)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return d.finish(ctx, cancel)
}

// finish drains and compares; a second interrupt on the way kills.
func (d *demo) finish(ctx context.Context, cancel context.CancelCauseFunc) error {
	done := make(chan error, 1)
	go func() { done <- d.reconcile(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-d.cfg.Interrupts:
			cancel(ErrNotReconciled)
			d.killAll()
			<-done
			d.say.line("not reconciled: killed by a second interrupt")
			return fmt.Errorf("demo: %w", ErrNotReconciled)
		}
	}
}

// prepare makes the folder clean, or keeps what the last run left.
func (d *demo) prepare() error {
	d.database = "millrace"
	if d.cfg.ClickHouse != "" && !d.cfg.Keep {
		// Somebody's server: never touch a database that is there.
		d.database = "millrace_demo_" + d.began.UTC().Format("20060102_150405")
	}
	if !d.cfg.Keep {
		for _, part := range []string{"clickhouse", "state", "azurite", "logs"} {
			if err := os.RemoveAll(filepath.Join(d.cfg.Dir, part)); err != nil {
				return fmt.Errorf("clean %q: %w", d.cfg.Dir, err)
			}
		}
	}
	for _, part := range []string{"azurite", "logs"} {
		if err := os.MkdirAll(filepath.Join(d.cfg.Dir, part), 0o700); err != nil {
			return err
		}
	}
	d.truthFile = filepath.Join(d.cfg.Dir, "truth.json")
	return nil
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.cfg.Dir}, parts...)...)
}

// announce tells where things are and what to ask.
func (d *demo) announce() {
	d.say.line("ClickHouse: %s   database %s, user default, no password", d.url, d.database)
	d.say.line("status:     %s/status   metrics: %s/metrics   logs: %s", d.pipelineURL, d.pipelineURL, d.path("logs"))
	d.say.line("ask, for instance:")
	for _, q := range questions(d.database) {
		d.say.line("  curl -s '%s/' --data-binary \"%s\"", d.url, q)
	}
}

// questions are three queries that answer something within seconds.
func questions(database string) []string {
	return []string{
		"SELECT dst_ip, dst_port, sum(bytes_sent + bytes_received) AS bytes FROM " + database + ".flows WHERE direction = 'outbound' GROUP BY ALL ORDER BY bytes DESC LIMIT 10 FORMAT PrettyCompact",
		"SELECT rule, count() AS denied, uniq(src_ip) AS sources FROM " + database + ".flows WHERE action = 'denied' GROUP BY rule ORDER BY denied DESC LIMIT 10 FORMAT PrettyCompact",
		"SELECT count() AS rows, uniqExact(blob, generation, record_offset, ordinal) AS addresses FROM " + database + ".flows WHERE time > now() - 600 FORMAT PrettyCompact",
	}
}

// watch shows the status until the time is up, an interrupt comes, or a child
// ends that should not.
func (d *demo) watch(ctx context.Context) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var end <-chan time.Time
	if d.cfg.For > 0 {
		end = time.After(d.cfg.For)
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end:
			return nil
		case <-d.cfg.Interrupts:
			d.say.line("interrupted: draining, a second interrupt kills")
			return nil
		case <-d.pipeline.Done():
			return d.pipeline.ExitError()
		case <-d.estate.Done():
			return d.estate.ExitError()
		case <-d.azurite.Done():
			return d.azurite.ExitError()
		case <-ticker.C:
			d.show(ctx)
			if err := d.chaos(ctx); err != nil {
				return err
			}
		}
	}
}

// chaos kills the pipeline when it is time to, in front of the user's eyes.
func (d *demo) chaos(ctx context.Context) error {
	if d.kills >= d.cfg.Chaos {
		return nil
	}
	span := d.cfg.For
	if span == 0 {
		span = time.Minute
	}
	if time.Since(d.fed) < span*time.Duration(d.kills+1)/time.Duration(d.cfg.Chaos+1) {
		return nil
	}
	d.kills++
	pid := d.pipeline.Pid()
	d.pipeline.Kill()
	d.fetched += d.lastSeen.BytesFetched
	d.lastSeen = pipelineStatus{}
	d.say.line("chaos %d of %d: pipeline %d killed with SIGKILL, starting it again", d.kills, d.cfg.Chaos, pid)
	began := time.Now()
	if err := d.startPipeline(ctx); err != nil {
		return err
	}
	d.say.line("chaos %d of %d: recovered and live after %.1f s", d.kills, d.cfg.Chaos, time.Since(began).Seconds())
	return nil
}

// show prints one status line.
func (d *demo) show(ctx context.Context) {
	var e EstateStatus
	if err := d.get(ctx, d.estateURL+"/status", &e); err != nil {
		return
	}
	if err := d.get(ctx, d.pipelineURL+"/status", &d.lastSeen); err != nil {
		return
	}
	p := d.lastSeen
	// The table, not the pipeline, says what has landed: pipelines are killed here.
	if n, err := d.count(ctx, "SELECT count() FROM flows"); err == nil {
		p.Landed = int64(n)
	}
	if d.firstRow == 0 && p.Landed > 0 {
		d.firstRow = time.Since(d.began)
	}
	d.peakRSS = max(d.peakRSS, residentPeak(d.pipeline.Pid()))
	mode := "replaying " + e.Traffic.Position.Format("15:04:05")
	if e.Traffic.Live {
		mode = "live"
	}
	watermark := "-"
	if p.Watermark > 0 {
		watermark = time.UnixMilli(p.Watermark).UTC().Format("15:04:05")
	}
	d.say.status(sample{at: time.Now(), blobs: int64(e.Traffic.Appends), tuples: p.Landed},
		"%s | written %s landed %s | behind %s | watermark %s | quarantined %d", mode,
		thousands(int64(e.Traffic.Tuples)), thousands(p.Landed), thousands(max(0, int64(e.Traffic.Tuples)-p.Landed)), watermark, p.Quarantined)
}

func (d *demo) get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (d *demo) post(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
