// Package assembly makes a running pipeline out of a configuration: it opens the
// ledger and the target, makes the sources, the reader and the operators, and
// hands them to the engine.
//
// Open starts nothing that outlives it but connections; the caller runs the engine
// and closes the pipeline.
package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/azureblob"
	"github.com/millrace/millrace/pipeline/source/directory"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
	source "github.com/millrace/millrace/pipeline/source/kafka"
	"github.com/millrace/millrace/pipeline/source/listing"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// Deps are what the caller brings.
type Deps struct {
	Meter  metric.Meter
	Tracer trace.Tracer
	Logger *slog.Logger
	// Now is the clock that blobs are judged by. Default time.Now.
	Now func() time.Time
}

func (d Deps) clock() func() time.Time {
	if d.Now == nil {
		return time.Now
	}
	return d.Now
}

// Pipeline is an assembled pipeline.
type Pipeline struct {
	Engine *engine.Engine
	Reader *blob.Reader
	Sink   *clickhouse.Sink // nil for a pipeline into Kafka alone

	kafka      kafkaSink // nil for a pipeline without
	topics     []*source.Source
	log        *slog.Logger
	directory  *ledger.Directory    // nil when the caller holds the ledger
	store      *blob.AzureStore     // nil where directories are read
	accounts   []blob.AccountConfig // of the store, as they were resolved last
	files      *blob.DirectoryStore // nil where accounts are read
	hubs       *hubSet
	sweeps     *listing.Source // nil without a sweeper
	parser     atomic.Pointer[announce.Parser]
	openHub    func(Hub) (*eventhubs.Source, error)
	transforms *transforms
	excerpts   *clickhouse.Excerpts // nil where Sink is
	container  *azureblob.Store     // of a shared ledger that is only read; else nil
}

// Open assembles a pipeline.
//
// Errors: every fault of the configuration's parts; a ledger that another process
// uses; a target that breaks the promise.
func Open(ctx context.Context, cfg config.Config, deps Deps) (*Pipeline, error) {
	return openAs(ctx, cfg, deps, holding{})
}

// openAs is Open for whoever holds the ledger already.
func openAs(ctx context.Context, cfg config.Config, deps Deps, held holding) (*Pipeline, error) {
	p := &Pipeline{}
	if err := p.open(ctx, cfg, deps, held); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// open looks at what is on this machine first: secrets, the texts of connections,
// the ledger's lock. Then it asks the target.
func (p *Pipeline) open(ctx context.Context, cfg config.Config, deps Deps, held holding) error {
	if err := cfg.CheckSecrets(); err != nil {
		return err
	}
	var err error
	if p.transforms, err = openTransforms(cfg, deps); err != nil {
		return err
	}
	if err := p.openStore(cfg); err != nil {
		return err
	}
	if err := instrument(deps.Meter, p.Reader); err != nil {
		return err
	}
	if err := p.openHubs(cfg, deps); err != nil {
		return err
	}
	if err := p.openKafka(cfg, deps); err != nil {
		return err
	}
	if held.store == nil {
		if p.directory, err = ledger.OpenDirectory(cfg.State); err != nil {
			return err
		}
		held.store = p.directory
	}
	if err := p.openTarget(ctx, cfg, deps); err != nil {
		return err
	}
	var book *ledger.Ledger
	err = patiently(ctx, deps.Logger, "ledger", func() (err error) {
		book, err = p.openLedger(ctx, cfg, held)
		return err
	})
	if err != nil {
		return err
	}
	var sources []pipeline.Source
	if !held.reshard { // which wants what is pending, and nothing new
		if sources, err = p.sources(cfg, deps, book.Info().Start); err != nil {
			return err
		}
	}
	p.Engine, err = engine.New(engineConfig(cfg), engine.Parts{
		Ledger: book, Sources: sources, Reader: p.Reader, Sinks: p.sinks(), Checkpoints: p.checkpoints(),
		Transforms: p.transforms.list(),
		Operators:  func() ([]pipeline.Operator, error) { return operators(cfg, deps.Meter) },
		Allocator:  memory.DefaultAllocator, Meter: deps.Meter, Tracer: deps.Tracer, Logger: deps.Logger, Now: deps.clock(),
	})
	return err
}

// operators makes those of one shard.
func operators(cfg config.Config, meter metric.Meter) ([]pipeline.Operator, error) {
	op, err := window.New(cfg.Windows, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	if err := op.Instrument(meter); err != nil {
		op.Release()
		return nil, err
	}
	return []pipeline.Operator{op}, nil
}

// openTarget makes the sink for ClickHouse, waits for the targets and brings them up
// to date.
func (p *Pipeline) openTarget(ctx context.Context, cfg config.Config, deps Deps) error {
	if cfg.HasClickHouse() {
		var err error
		if p.Sink, err = OpenSink(cfg); err != nil {
			return err
		}
		p.excerpts, err = clickhouse.NewExcerpts(p.Sink, cfg.ClickHouse.MaxExcerpts<<20, clickhouse.ExcerptsDeps{Meter: deps.Meter, Logger: deps.Logger})
		if err != nil {
			return err
		}
	}
	return p.Prepare(ctx, cfg, deps)
}

// Run runs the engine, then saves what the sources were told last.
func (p *Pipeline) Run(ctx context.Context) error {
	defer p.transforms.watch(ctx)()
	if p.excerpts != nil {
		defer p.excerpts.Watch(ctx)()
	}
	err := p.Engine.Run(ctx)
	// A soft stop acknowledges after the sources have ended.
	for _, t := range p.topics {
		err = errors.Join(err, t.Flush(context.WithoutCancel(ctx)))
	}
	if p.hubs == nil {
		return err
	}
	return errors.Join(err, p.hubs.Flush(context.WithoutCancel(ctx)))
}

// Close frees what Open took. The engine must have ended.
func (p *Pipeline) Close() {
	if p.hubs != nil {
		p.hubs.close()
	}
	if p.Sink != nil {
		_ = p.Sink.Close() // nothing is buffered in it
	}
	if p.kafka != nil {
		_ = p.kafka.Close() // nor in it
	}
	if p.store != nil {
		p.store.Close()
	}
	if p.files != nil {
		p.files.Close()
	}
	if p.container != nil {
		p.container.Close()
	}
	if p.directory != nil {
		_ = p.directory.Close() // gives the lock back
	}
}

// OpenSink gives the sink for every table that the pipeline writes.
func OpenSink(cfg config.Config) (*clickhouse.Sink, error) {
	c, err := cfg.ClickHouse.Target()
	if err != nil {
		return nil, err
	}
	return clickhouse.New(c, landedTables(cfg))
}

// landedTables are those that the pipeline writes.
func landedTables(cfg config.Config) []schemas.Table {
	tables := []schemas.Table{cfg.FlowTable(), schemas.Quarantine}
	for _, w := range cfg.Windows {
		tables = append(tables, w.Table())
	}
	return tables
}

func engineConfig(cfg config.Config) engine.Config {
	c := engine.DefaultConfig()
	c.Shard.MaxBatchAge, c.Shard.OutOfOrderness = cfg.MaxBatchAge, cfg.OutOfOrderness
	c.BudgetBytes = cfg.MemoryBudget << 20
	if cfg.Enrich != nil {
		c.BudgetBytes /= 2 // it is counted in text, and a row takes twice the memory
	}
	if len(cfg.Directories) > 0 {
		// Whoever puts files there says what is read, and says it once.
		c.Shard.KeepOffsets, c.Shard.MaxHourAhead = forever, 0
	}
	return c
}

// openStore makes the clients of the storage accounts, or opens the directories, and
// makes the reader over them.
func (p *Pipeline) openStore(cfg config.Config) error {
	if len(cfg.Directories) > 0 {
		return p.openDirectories(cfg)
	}
	var err error
	if p.accounts, err = storageAccounts(cfg); err != nil {
		return err
	}
	if p.store, err = blob.NewAzureStore(p.accounts); err != nil {
		return err
	}
	p.Reader, err = newReader(p.store)
	return err
}

func newReader(store blob.Store) (*blob.Reader, error) {
	c := blob.DefaultConfig(decode.SplitRecords)
	c.ChunkBytes, c.MaxRecordBytes = chunkBytes, maxRecordBytes
	return blob.New(c, store)
}

// Bounds of what is read at one time, in bytes. The memory budget of a pipeline,
// at least 128 MiB, has room for a record of the largest size.
const (
	chunkBytes     = 4 << 20
	maxRecordBytes = 32 << 20
)

// openLedger takes the ledger in the locked folder over, or the one that is owned.
func (p *Pipeline) openLedger(ctx context.Context, cfg config.Config, held holding) (*ledger.Ledger, error) {
	now := time.Now().UTC()
	start, err := cfg.StartTime(now)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	fresh := ledger.Info{Shards: cfg.Shards, Created: now, Start: start}
	register := func(ctx context.Context, name string, shards int) (uint16, error) {
		return p.register(ctx, name, shards, cfg.ClickHouse.AllowNonEmpty, cfg.Kafka != nil && cfg.Kafka.AllowNonEmpty)
	}
	switch {
	case held.reshard:
		return ledger.OpenToReshard(ctx, held.store, held.lease, register)
	case held.lease != nil:
		return ledger.OpenOwned(ctx, held.lease, fresh, register)
	}
	return ledger.Open(ctx, held.store, fresh, register)
}

// openHubs makes the sources of the event hubs; it connects nothing.
func (p *Pipeline) openHubs(cfg config.Config, deps Deps) error {
	if p.files != nil {
		return nil
	}
	parser, err := announce.New(announceAccounts(cfg))
	if err != nil {
		return err
	}
	ignored, err := deps.Meter.Int64Counter("millrace.events.ignored", metric.WithUnit("{event}"), metric.WithDescription("Events that announce nothing to read, by reason."))
	if err != nil {
		return err
	}
	p.parser.Store(parser)
	if p.hubs, err = newHubSet(deps); err != nil {
		return err
	}
	p.openHub = func(h Hub) (*eventhubs.Source, error) { return h.source(p.parser.Load, ignored, deps) }
	openers, hubs, err := p.hubOpeners(cfg)
	for name, open := range openers {
		p.hubs.add(name, hubs[name], open)
	}
	return errors.Join(err, p.openTopics(cfg, ignored, deps))
}

// hubOpeners gives what makes the source of each hub, by name, and what was read of
// it. Secrets are read here, to see that they are there, and again whenever a source
// is made.
func (p *Pipeline) hubOpeners(cfg config.Config) (map[string]func() (*eventhubs.Source, error), map[string]Hub, error) {
	openers, hubs := map[string]func() (*eventhubs.Source, error){}, map[string]Hub{}
	names := map[string]int{}
	var faults []error
	for i, h := range cfg.EventHubs {
		open := func() (*eventhubs.Source, error) {
			hub, err := ResolveHub(i, h, cfg.State)
			if err != nil {
				return nil, err
			}
			return p.openHub(hub)
		}
		hub, err := ResolveHub(i, h, cfg.State)
		if err == nil {
			err = errors.Join(prefixed(hub.Config.Validate(), "eventhubs[%d]", i), hubNamed(names, hub.Name(), i))
			openers[hub.Name()], hubs[hub.Name()] = open, hub
		}
		faults = append(faults, err)
	}
	return openers, hubs, errors.Join(faults...)
}

// sources are the event hubs and the sweeper, or the directories.
func (p *Pipeline) sources(cfg config.Config, deps Deps, start time.Time) ([]pipeline.Source, error) {
	if p.files != nil {
		s, err := directory.New(directory.Config{
			Watch: cfg.DirectorySource.Watch, Interval: cfg.DirectorySource.Interval, Suffix: cfg.DirectorySource.Suffix, Log: deps.Logger,
		}, p.files)
		return []pipeline.Source{s}, err
	}
	var sources []pipeline.Source
	if len(cfg.EventHubs) > 0 {
		sources = append(sources, p.hubs)
	}
	for _, t := range p.topics {
		sources = append(sources, t)
	}
	if cfg.Sweeper.Interval > 0 {
		var err error
		if p.sweeps, err = p.sweeper(cfg, deps, start); err != nil {
			return nil, err
		}
		sources = append(sources, p.sweeps)
	}
	return sources, nil
}

func announceAccounts(cfg config.Config) []announce.Account {
	var out []announce.Account
	for _, a := range cfg.Accounts {
		out = append(out, announce.Account{Name: a.Name, Endpoint: a.Endpoint, Aliases: a.Aliases, Containers: a.Containers})
	}
	return out
}

// containers are those of the storage accounts.
func containers(cfg config.Config) []listing.Container {
	var all []listing.Container
	for _, a := range cfg.Accounts {
		for _, c := range a.Containers {
			all = append(all, listing.Container{Account: a.Name, Container: c})
		}
	}
	return all
}

func (p *Pipeline) sweeper(cfg config.Config, deps Deps, start time.Time) (*listing.Source, error) {
	c := listing.DefaultConfig(start, containers(cfg)...)
	c.Interval, c.Discover, c.Log, c.Now = cfg.Sweeper.Interval, cfg.Sweeper.Discover, deps.Logger, deps.clock()
	return listing.New(c, p.store)
}

const (
	// A target that is still starting is asked for half a minute: at once and after
	// pauses that grow, as one that was started together with us is soon there.
	targetPatience = 30 * time.Second
	firstPause     = 50 * time.Millisecond
	lastPause      = time.Second
	// sayEvery keeps the log short meanwhile.
	sayEvery = 10 * time.Second
)

// patiently waits for a target that is still starting.
func patiently(ctx context.Context, log *slog.Logger, what string, f func() error) error {
	began, said := time.Now(), time.Time{}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := f()
		if err == nil || !errors.Is(err, pipeline.ErrTransient) || time.Since(began) > targetPatience {
			return err
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			log.Warn("not there yet, waiting for it", slog.String("what", what), slog.Any("cause", err))
		}
		if pipeline.Wait(ctx, pause) != nil {
			return context.Cause(ctx)
		}
	}
}
