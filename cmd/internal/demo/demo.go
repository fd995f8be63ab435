// Package demo runs the whole main job on one machine: an Event Hubs emulator,
// Azurite, a simulated estate, the real pipeline and an embedded ClickHouse, each
// in a process of its own, and at the end compares what was written with what has
// landed.
//
// What flows in: a Config and the user's interrupts. What flows out: lines for
// people on Config.Status, the result on Config.Out, and the tables, which stay in
// Config.Dir. Run owns every child and every goroutine; when it returns, all are
// gone. Should this process be killed, the children end within two seconds.
//
// One goroutine starts, watches and reconciles; Run beside it hears the
// interrupts. A pipeline that was killed on purpose is started again by package
// children, in a goroutine of its own.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/children"
	"github.com/millrace/millrace/deploy/local"
	"github.com/millrace/millrace/pipeline/secret"
)

// Config of a demo.
type Config struct {
	// For is how long to run; 0 means until interrupted.
	For time.Duration
	// JSON makes the last line of Out one JSON object.
	JSON bool
	// Keep adds to the tables that the last demo in Dir left.
	Keep bool
	// Batching is how long a batch waits for more, and Sweep the time between two
	// listings of the containers.
	Batching, Sweep time.Duration
	// Limits, when set, are held against the result.
	Limits *Limits
	// Kills is how often the pipeline is killed (SIGKILL) and started again, spread
	// over For, or over a minute when For is 0.
	Kills int
	// Dir holds data, state and logs. It belongs to the demo: what the last one left
	// is removed.
	Dir string
	// ClickHouse is a server to use instead of the embedded one; its URL is empty for
	// the embedded one.
	ClickHouse Server
	// Traffic is the estate. TruthFile is filled in.
	Traffic    traffic.Config
	Partitions int // of the event hub

	Program       string // path of millrace
	ServerProgram string // path of millrace-clickhouse
	Cache         local.Cache
	Machine       string // what it is and runs, for the banner

	Out    io.Writer // results
	Status io.Writer // progress, for people
	// Interrupts delivers the user's interrupts: the first one drains, the second
	// one kills.
	Interrupts <-chan os.Signal
}

// Server is a ClickHouse that the user brings.
type Server struct {
	URL, User string
	Password  secret.Secret
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
	// drainTimeout is generous: on a busy machine a late result is better than none.
	drainTimeout = 60 * time.Second
	stopTimeout  = 5 * time.Second
	// askTimeout bounds a question to a child's status page.
	askTimeout = 2 * time.Second
)

// Errors of Run beside those of its parts.
var (
	// ErrNotReconciled: the demo was cut short, so nothing was compared.
	ErrNotReconciled = errors.New("not reconciled")
	// ErrMismatch: the comparison found something lost, doubled or altered. Run has
	// printed what.
	ErrMismatch = errors.New("the tables do not match what was written")
)

// judged says that a demo came to its end, whatever it found.
func judged(err error) bool { return errors.Is(err, ErrMismatch) || errors.Is(err, ErrMissed) }

type demo struct {
	cfg   Config
	say   *console
	began time.Time
	http  *http.Client
	group *children.Group
	// drain is closed by the first interrupt.
	drain chan struct{}

	// Set while starting, read-only afterwards.
	tables     tables
	blobs      blobStorage
	estateURL  string
	connection string    // of the hub; secret
	fed        time.Time // when the estate began

	pipeline pipelineChild

	// Owned by the goroutine that runs the demo.
	kills       int
	firstRow    time.Duration
	fetched     int64 // bytes fetched by pipelines that were killed, by their last word
	lastSeen    pipelineStatus
	peakRSS     int64
	serverPorts [2]int // of the embedded ClickHouse, HTTP and native; 0 before its first start
}

// blobStorage is where the estate writes. Its accounts have one key.
type blobStorage struct {
	endpoints map[string]string // by account
	key       string
}

// Run runs a demo to its end.
//
// Errors: ErrMismatch; ErrNotReconciled after a second interrupt, or one while
// still starting; the end of a child that nobody asked for, with the last lines of
// its log; a part that does not start.
func Run(ctx context.Context, cfg Config) error {
	d := &demo{
		cfg: cfg, say: newConsole(cfg.Status), began: time.Now(), http: newClient(),
		group: children.New(slog.New(slog.DiscardHandler)), drain: make(chan struct{}),
	}
	err := d.interruptible(ctx)
	d.say.close()
	if err != nil && cfg.JSON && !judged(err) {
		printFailure(cfg.Out, err)
	}
	return err
}

// interruptible runs the demo and hears the interrupts meanwhile. When it returns
// every child is gone.
func (d *demo) interruptible(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	for interrupts := 0; ; {
		select {
		case err := <-done:
			if err != nil && !judged(err) {
				d.group.Kill() // there is nothing to save
				return fmt.Errorf("demo: %w", err)
			}
			d.stopAll(ctx)
			return err
		case <-d.cfg.Interrupts:
			if interrupts++; interrupts == 1 {
				d.say.line("interrupted: draining; a second interrupt kills")
				close(d.drain)
				continue
			}
			cancel(ErrNotReconciled)
			d.group.Kill()
			if err := <-done; err == nil || judged(err) {
				return err // it was ready just now
			}
			d.say.line("killed by a second interrupt: not reconciled")
			return fmt.Errorf("demo: %w", ErrNotReconciled)
		}
	}
}

// run starts everything, watches, and reconciles.
func (d *demo) run(ctx context.Context) error {
	err := d.stages(ctx)
	if err == nil || judged(err) || errors.Is(err, ErrNotReconciled) || ctx.Err() != nil {
		return err
	}
	// When a child ends, others complain that it is gone: its own words say more. Its
	// end is noticed a moment after.
	select {
	case failure := <-d.group.Failed():
		return d.explain(failure)
	case <-time.After(500 * time.Millisecond):
		return err
	}
}

func (d *demo) stages(ctx context.Context) error {
	if err := d.prepare(); err != nil {
		return err
	}
	defer d.tables.close()
	if err := d.startAll(ctx); err != nil {
		return err
	}
	d.announce()
	if err := d.watch(ctx); err != nil {
		return err
	}
	return d.reconcile(ctx)
}

// explain adds to a child's last words where there are more.
func (d *demo) explain(failure error) error {
	return fmt.Errorf("%w\nlogs of all parts: %s", failure, d.path("logs"))
}

// stopAll ends the children softly, ClickHouse so that its tables are whole.
func (d *demo) stopAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	_ = d.group.Stop(ctx) // what does not stop in time is killed
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.cfg.Dir}, parts...)...)
}

// announce tells what runs, where things are and what to ask.
func (d *demo) announce() {
	t := &d.tables
	d.say.line("everything is up after %.1f s", time.Since(d.began).Seconds())
	d.say.line("versions:   ClickHouse %s, Azurite %s, on %s", t.version, part(local.PartAzurite).Version, d.cfg.Machine)
	d.say.line("ClickHouse: %s   database %s, %s", t.url, t.database, t.login())
	d.say.line("blobs:      %s   estate: %s/status", d.blobs.endpoints[d.cfg.Traffic.Account], d.estateURL)
	d.say.line("pipeline:   %s/status   metrics: %s/metrics", d.pipeline.address(), d.pipeline.address())
	d.say.line("folder:     %s   (configuration millrace.yaml, logs, tables)", d.cfg.Dir)
	d.say.line("ask, for instance:")
	for _, q := range Questions(t.database) {
		d.say.line("  curl -s %s'%s/' --data-binary \"%s\"", t.curlLogin(), t.url, q)
	}
	if d.cfg.For == 0 {
		d.say.line("Ctrl-C drains and reconciles")
	}
}

// Questions are three queries that answer something from the first rows on. The
// last one shows that no tuple address is twice in the table.
func Questions(database string) []string {
	flows := database + ".flows"
	return []string{
		"SELECT dst_ip, dst_port, sum(bytes_sent + bytes_received) AS bytes FROM " + flows + " WHERE direction = 'outbound' GROUP BY ALL ORDER BY bytes DESC LIMIT 10 FORMAT PrettyCompact",
		"SELECT rule, count() AS denied, uniq(src_ip) AS sources FROM " + flows + " WHERE action = 'denied' GROUP BY rule ORDER BY denied DESC LIMIT 10 FORMAT PrettyCompact",
		"SELECT count() AS tuples, uniqExact(blob, generation, record_offset, ordinal) AS addresses, tuples - addresses AS twice FROM " + flows + " FORMAT PrettyCompact",
	}
}

// newClient speaks with the children on this machine: through no proxy, and to no
// other place that an answer names. Contexts bound the calls.
func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: nil, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get asks a child's status page.
func (d *demo) get(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
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

// post tells a child something and waits until it has done it, as long as ctx lets it.
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
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // as much as there is
		return fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// pipelineChild is what the demo and the restarts of its pipeline share.
type pipelineChild struct {
	url atomic.Value // string
	// lives counts the pipelines that have come up; killed those that we killed.
	lives, killed atomic.Int32
	born          atomic.Int64 // when the last one was up, in Unix ns
}

func (p *pipelineChild) address() string {
	url, _ := p.url.Load().(string)
	return url
}
