package assembly

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/cmd/internal/backfill"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// OpenBackfill opens the storage accounts and the target of a pipeline for a
// backfill. The pipeline may run meanwhile. What it gives has no engine; Close it
// after the backfill.
//
// Errors: a pipeline of directories: they have no age limit, so nothing is left to
// backfill.
func OpenBackfill(cfg config.Config, deps Deps) (*Pipeline, backfill.Deps, error) {
	if len(cfg.Directories) > 0 {
		return nil, backfill.Deps{}, errors.New("this pipeline reads directories, whatever the age of their files: it has nothing to backfill; millrace replay lands further folders")
	}
	return openBackfill(cfg, deps, func(p *Pipeline, d *backfill.Deps) error {
		if err := p.openStore(cfg); err != nil {
			return err
		}
		d.Name, d.Lister, d.Containers = "containers", p.store, containers(cfg)
		return nil
	})
}

// OpenReplay opens a recorded tree and the target of a pipeline for a replay, as
// OpenBackfill does.
func OpenReplay(ctx context.Context, cfg config.Config, deps Deps, tree blob.DirectoryConfig) (*Pipeline, backfill.Deps, error) {
	return openBackfill(cfg, deps, func(p *Pipeline, d *backfill.Deps) error {
		path, err := filepath.Abs(tree.Path)
		if err != nil {
			return fmt.Errorf("open directory of blobs: %w", err)
		}
		if p.files, err = blob.NewDirectoryStore([]blob.DirectoryConfig{tree}); err != nil {
			return err
		}
		if p.Reader, err = newReader(p.files); err != nil {
			return err
		}
		found, err := p.files.Containers(ctx)
		for _, id := range found {
			d.Containers = append(d.Containers, listing.Container{Account: id.Account, Container: id.Container})
		}
		// An interrupted replay reads the same files again, so each tree has a ledger.
		name := xxh3.HashString(strings.Join([]string{path, tree.Account, tree.Container}, "\n"))
		d.Name, d.Lister, d.Hourless = fmt.Sprintf("tree-%016x", name), p.files, true
		return err
	})
}

// Skipped counts the files of a tree that were passed over, by why.
func (p *Pipeline) Skipped() map[string]int {
	if p.files == nil {
		return nil
	}
	return p.files.Skipped()
}

func openBackfill(cfg config.Config, deps Deps, open func(p *Pipeline, d *backfill.Deps) error) (*Pipeline, backfill.Deps, error) {
	p := &Pipeline{}
	d, err := p.backfillDeps(cfg, deps)
	if err == nil {
		err = open(p, &d)
	}
	if err != nil {
		p.Close()
		return nil, d, err
	}
	d.Reader = p.Reader
	return p, d, nil
}

// backfillDeps are those that do not depend on where blobs are read from.
func (p *Pipeline) backfillDeps(cfg config.Config, deps Deps) (backfill.Deps, error) {
	d := backfill.Deps{
		State: cfg.State, KeepOffsets: engineConfig(cfg).Shard.KeepOffsets, Shards: cfg.Shards, Config: engineConfig(cfg),
		IsLive:  isLive(cfg),
		Prepare: func(ctx context.Context) error { return p.prepareBackfill(ctx, cfg, deps) },
		Register: func(ctx context.Context, name string, shards int) (uint16, error) {
			// The rows of the live pipeline are those that it adds to.
			return p.register(ctx, name, shards, true, true)
		},
		Transforms: func() ([]engine.Transforms, error) { return listTransforms(cfg, deps) },
		Operators:  func() ([]pipeline.Operator, error) { return operators(cfg, deps.Meter) },
		Allocator:  memory.DefaultAllocator, Meter: deps.Meter, Tracer: deps.Tracer, Logger: deps.Logger, Now: deps.clock(),
	}
	if cfg.Ledger.Azure != nil {
		return d, fmt.Errorf("the ledger of this pipeline is in a shared %s: backfill and replay work beside a ledger in a folder only, as they have to keep its owner from hours that they land", cfg.LedgerPlace())
	}
	var err error
	if d.Start, err = cfg.StartTime(d.Now().UTC()); err != nil {
		return d, fmt.Errorf("start: %w", err)
	}
	if !cfg.HasClickHouse() {
		return d, errors.New("clickhouse.url: missing: what live has landed is read from ClickHouse")
	}
	if p.Sink, err = OpenSink(cfg); err != nil {
		return d, err
	}
	if err := p.openKafka(cfg, deps); err != nil {
		return d, err
	}
	conn, err := p.Sink.Conn()
	if err != nil {
		return d, err
	}
	d.Table, d.Sinks, d.Checkpoints = backfill.NewTable(conn), p.sinks(), p.checkpoints()
	return d, nil
}

// prepareBackfill brings the target up to date, and makes the live pipeline's ledger
// if it has never run: that fixes from when on blobs are the live pipeline's.
func (p *Pipeline) prepareBackfill(ctx context.Context, cfg config.Config, deps Deps) error {
	if err := p.Prepare(ctx, cfg, deps); err != nil {
		return err
	}
	_, err := ledger.View(ctx, ledger.ViewDirectory(cfg.State))
	if !errors.Is(err, ledger.ErrNotExist) {
		return err
	}
	if p.directory, err = ledger.OpenDirectory(cfg.State); err != nil {
		return err
	}
	_, err = p.openLedger(ctx, cfg, holding{store: p.directory})
	err = errors.Join(err, p.directory.Close())
	p.directory = nil
	return err
}

// isLive says of a blob whether the pipeline reads its container.
func isLive(cfg config.Config) func(id pipeline.BlobID) bool {
	live := containers(cfg)
	all := false
	for _, d := range cfg.Directories {
		live = append(live, listing.Container{Account: d.Account, Container: d.Container})
		all = all || d.Account == ""
	}
	return func(id pipeline.BlobID) bool {
		return all || slices.Contains(live, listing.Container{Account: id.Account, Container: id.Container})
	}
}
