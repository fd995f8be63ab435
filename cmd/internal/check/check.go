// Package check says what is wrong with a configuration, and with what it names,
// before a pipeline is started: all of it at once. It writes nothing anywhere, but for
// a transactional id of its own that brokers of Kafka keep for a while.
//
// Probes run at the same time, each within a limit; Run waits for all of them.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// Level says how bad a finding is.
type Level string

// Levels.
const (
	Fault Level = "fault" // a start fails, or loses something
	Warn  Level = "warn"  // a start works, but look at it
	OK    Level = "ok"
)

// Finding is one thing that was looked at.
type Finding struct {
	Level  Level  `json:"level"`
	Key    string `json:"key,omitempty"`  // path in the configuration
	Line   int    `json:"line,omitempty"` // where the key, or the section around it, stands
	Column int    `json:"column,omitempty"`
	Text   string `json:"text"`
}

// ProbeTimeout bounds every question to a service.
const ProbeTimeout = 15 * time.Second

// Run looks at a configuration, and unless offline at the services that it names.
// Findings come in the order of the file, faults of the text first.
func Run(ctx context.Context, data []byte, offline bool) []Finding {
	cfg, err := config.Parse(data)
	r := &run{cfg: cfg, place: config.Places(data)}
	for _, f := range config.FaultsOf(err) {
		r.broken = append(r.broken, f.Key)
		r.found = append(r.found, Finding{Fault, f.Key, f.Line, f.Column, f.Text})
	}
	if err == nil {
		r.add(OK, "", "the configuration reads well")
	}
	r.secrets()
	r.state()
	r.directories()
	r.files()
	if !offline {
		r.probes(ctx)
	}
	slices.SortStableFunc(r.found, func(a, b Finding) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Line, b.Line)) })
	return r.found
}

func rank(f Finding) int { return slices.Index([]Level{OK, Warn, Fault}, f.Level) }

type run struct {
	cfg   config.Config
	place func(key string) config.Place

	broken []string // keys with faults; complete before the probes start

	mu    sync.Mutex
	found []Finding
}

func (r *run) add(level Level, key, format string, args ...any) {
	p := r.place(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, Finding{level, key, p.Line, p.Column, fmt.Sprintf(format, args...)})
}

// whole says whether nothing at or below a key is broken.
func (r *run) whole(key string) bool {
	return !slices.ContainsFunc(r.broken, func(b string) bool {
		return b == key || strings.HasPrefix(b, key+".") || strings.HasPrefix(b, key+"[") || strings.HasPrefix(key, b+".") || strings.HasPrefix(key, b+"[")
	})
}

func (r *run) secrets() {
	named, bad := 0, 0
	for _, n := range r.cfg.References() {
		if !r.whole(n.Key) {
			continue
		}
		named++
		if _, err := n.Resolve(); err != nil {
			bad++
			r.add(Fault, n.Key, "%v", err)
			r.broken = append(r.broken, n.Key)
		}
	}
	if named > bad {
		r.add(OK, "", "%d secrets are there", named-bad)
	}
}

// state looks at the folder of the ledger without touching it.
func (r *run) state() {
	dir := r.cfg.State
	if dir == "" || r.cfg.Ledger.Azure != nil {
		return
	}
	info, err := os.Stat(dir)
	missing := errors.Is(err, fs.ErrNotExist)
	for missing && dir != filepath.Dir(dir) { // it is made at the first start
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
		if err == nil {
			break
		}
	}
	wrong := func(format string, args ...any) {
		r.add(Fault, "state", format, args...)
		r.broken = append(r.broken, "state")
	}
	switch {
	case err != nil:
		wrong("%v: name a folder that can be reached", err)
	case !info.IsDir():
		wrong("%q is no folder: name another", dir)
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		wrong("this user may not write into %q: give it the folder, or name another", dir)
	case missing:
		r.add(OK, "state", "the folder is made at the first start")
	default:
		r.add(OK, "state", "the folder can be written")
	}
}

// probes asks every service whose section is whole.
func (r *run) probes(ctx context.Context) {
	var group sync.WaitGroup
	start := func(key string, probe func(context.Context)) {
		if !r.whole(key) {
			return
		}
		group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, ProbeTimeout)
			defer cancel()
			probe(ctx)
		})
	}
	for i, a := range r.cfg.Accounts {
		key := fmt.Sprintf("accounts[%d]", i)
		start(key, func(ctx context.Context) { r.account(ctx, key, i, a) })
	}
	for i, h := range r.cfg.EventHubs {
		key := fmt.Sprintf("eventhubs[%d]", i)
		start(key, func(ctx context.Context) { r.hub(ctx, key, i, h) })
	}
	if r.cfg.Ledger.Azure != nil {
		start("ledger", r.ledger)
	}
	if r.cfg.HasClickHouse() {
		start("clickhouse", r.clickhouse)
	}
	if r.cfg.Kafka != nil {
		start("kafka", r.kafka)
	}
	for i, k := range r.cfg.KafkaSources {
		key := fmt.Sprintf("kafka_sources[%d]", i)
		start(key, func(ctx context.Context) { r.topic(ctx, key, k) })
	}
	group.Wait()
}

// account lists each container, and reads the first blob that is there.
func (r *run) account(ctx context.Context, key string, i int, a config.Account) {
	one := r.cfg
	one.Accounts = r.cfg.Accounts[i : i+1]
	store, err := assembly.Blobs(one)
	if err != nil {
		r.add(Fault, key, "%s", strings.ReplaceAll(err.Error(), "accounts[0].", key+"."))
		return
	}
	defer store.Close()
	for j, container := range a.Containers {
		at := fmt.Sprintf("%s.containers[%d]", key, j)
		first, err := firstBlob(ctx, store, a.Name, container)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.add(Warn, at, "there is no container %q: it is made with the first flow log; is the name right, and are flow logs on?", container)
		case err != nil:
			r.add(Fault, at, "%s", told(ctx, err))
		case first == "":
			r.add(Warn, at, "the container is empty: are flow logs on?")
		default:
			if err := readOne(ctx, store, a.Name, container, first); err != nil {
				r.add(Fault, at, "%s", told(ctx, err))
				continue
			}
			r.add(OK, at, "may be listed and read")
		}
	}
}

// told gives an error's text, with advice where it says nothing but that time ran
// out.
func told(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return fmt.Sprintf("no answer within %v: is the address right, and does the network let it through?", ProbeTimeout)
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	var e *blob.Error
	if errors.As(err, &e) && e.Kind == blob.KindUnavailable {
		text += ": is the endpoint right, and does the network let it through?"
	}
	return text
}

// hub looks whether the hub may be read, and whether it keeps messages for long
// enough.
func (r *run) hub(ctx context.Context, key string, i int, h config.EventHub) {
	hub, err := assembly.ResolveHub(i, h, r.cfg.State)
	if err != nil {
		r.add(Fault, key, "%s", strings.TrimPrefix(err.Error(), key+"."))
		return
	}
	saved, err := hub.Positions.Load(ctx)
	if err != nil && r.whole("state") {
		r.add(Fault, "state", "%v", err)
	}
	report, err := eventhubs.Look(ctx, hub.Config, saved)
	if err != nil {
		r.add(Fault, key, "%s: are namespace, hub and consumer group right, and may the credential listen (Listen, or the role Azure Event Hubs Data Receiver)? Where only port 443 is open, set transport: websocket", told(ctx, err))
		return
	}
	r.retention(key, report)
	r.add(OK, key, "%s may be read, %d partitions", hub.Name(), report.Partitions)
}

// retention tells of messages that are gone, or soon will be.
func (r *run) retention(key string, report eventhubs.Report) {
	level, sweeper := Warn, "the sweeper finds their blobs"
	if r.cfg.Sweeper.Interval == 0 {
		level, sweeper = Fault, "the sweeper is off, so nothing finds their blobs: set sweeper.interval"
	}
	if report.Recreated {
		r.add(level, key, "the hub was made anew since it was last read: what it held is gone; %s", sweeper)
	}
	if report.Expired > 0 {
		r.add(level, key, "%d messages expired before they were read: the hub keeps them for less than the lag, raise its retention; %s", report.Expired, sweeper)
	}
	kept, lag := time.Since(report.Oldest), time.Since(report.Unread)
	if !report.Unread.IsZero() && lag > time.Hour && lag > kept/2 {
		r.add(Warn, key, "the oldest unread message is %v old and the oldest kept one %v: raise the hub's retention, or start the pipeline soon", lag.Round(time.Minute), kept.Round(time.Minute))
	}
}

// clickhouse asks every server what a start asks, and changes nothing.
func (r *run) clickhouse(ctx context.Context) {
	sink, err := assembly.OpenSink(r.cfg)
	if err != nil {
		r.add(Fault, "clickhouse", "%v", err)
		return
	}
	defer sink.Close()
	for _, e := range sink.ExamineServers(ctx) {
		key, address := "clickhouse", "clickhouse.url"
		if len(r.cfg.ClickHouse.Servers) > 0 {
			key = fmt.Sprintf("clickhouse.servers[%d]", e.Place)
			address = key
		}
		switch {
		case e.Err != nil && ctx.Err() != nil:
			r.add(Fault, address, "%s", told(ctx, e.Err))
		case e.Err != nil:
			r.add(Fault, address, "check the server: %v: is the address right, and does the server run?", e.Err)
		case len(e.Faults) == 0:
			r.add(OK, key, "version, settings, rights and tables are as the promise needs them")
		}
		for _, f := range e.Faults {
			for line := range strings.Lines(f.Error()) {
				r.add(Fault, key, "%s", strings.TrimSpace(line))
			}
		}
	}
}
