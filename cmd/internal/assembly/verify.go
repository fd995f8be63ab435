package assembly

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/cmd/internal/backfill"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/quarantine"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/cmd/internal/verify"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// OpenVerify opens the blobs, the ledgers and the target of a pipeline to compare
// them. The pipeline may run meanwhile. What it gives has no engine; Close it.
func OpenVerify(ctx context.Context, cfg config.Config, deps Deps) (*Pipeline, verify.Deps, error) {
	p := &Pipeline{}
	d, err := p.verifyDeps(ctx, cfg, deps)
	if err != nil {
		p.Close()
		return nil, d, err
	}
	return p, d, nil
}

// OpenRepair is OpenVerify for whoever may put things right, too.
func OpenRepair(ctx context.Context, cfg config.Config, deps Deps) (*Pipeline, verify.Deps, verify.RepairDeps, error) {
	p, d, err := OpenVerify(ctx, cfg, deps)
	if err != nil {
		return nil, d, verify.RepairDeps{}, err
	}
	return p, d, verify.RepairDeps{
		Target: p.Sink, Flows: cfg.FlowTable(), State: cfg.State, Cluster: len(cfg.ClickHouse.Servers) > 0,
		Register: func(ctx context.Context, name string, shards int) (uint16, error) {
			// The rows of others are what it repairs.
			return p.register(ctx, name, shards, true, true)
		},
	}, nil
}

func (p *Pipeline) verifyDeps(ctx context.Context, cfg config.Config, deps Deps) (verify.Deps, error) {
	conn, err := p.openToRead(cfg)
	if err != nil {
		return verify.Deps{}, err
	}
	d := verify.Deps{
		Conn: conn, Windows: cfg.Windows, Reader: p.Reader, Blobs: reread.Blobs{Store: p.blobs(), Ranges: p.Reader},
		Transforms:  func() ([]engine.Transforms, error) { return listTransforms(cfg, deps) },
		KeepOffsets: engineConfig(cfg).Shard.KeepOffsets, Allocator: memory.DefaultAllocator, Logger: deps.Logger, Now: deps.clock(),
	}
	if d.Lister, d.Containers, err = p.lister(ctx, cfg); err != nil {
		return d, err
	}
	d.Hourless = p.files != nil
	d.Ledgers, err = p.ledgersOf(cfg)
	return d, err
}

// lister gives what lists the blobs of the pipeline.
func (p *Pipeline) lister(ctx context.Context, cfg config.Config) (listing.Lister, []listing.Container, error) {
	if p.files == nil {
		return p.store, containers(cfg), nil
	}
	var all []listing.Container
	found, err := p.files.Containers(ctx)
	for _, id := range found {
		all = append(all, listing.Container{Account: id.Account, Container: id.Container})
	}
	return p.files, all, err
}

// ledgersOf gives the ledgers that write for a pipeline: its own, and those of
// commands beside it, in its state folder.
func (p *Pipeline) ledgersOf(cfg config.Config) ([]verify.Ledger, error) {
	live := verify.Ledger{Role: verify.RolePipeline, Place: cfg.LedgerPlace(), Store: ledger.ViewDirectory(cfg.State)}
	if cfg.Ledger.Azure != nil {
		s, err := openContainer(cfg)
		if err != nil {
			return nil, err
		}
		p.container, live.Store = s, s
	}
	all := []verify.Ledger{live}
	add := func(role verify.Role, folder string) {
		all = append(all, verify.Ledger{Role: role, Place: fmt.Sprintf("folder %q", folder), Store: ledger.ViewDirectory(folder)})
	}
	add(verify.RoleQuarantine, filepath.Join(cfg.State, quarantine.Folder))
	add(verify.RoleRepair, filepath.Join(cfg.State, verify.RepairFolder))
	entries, err := os.ReadDir(filepath.Join(cfg.State, backfill.Folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the ledgers of backfills: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			add(verify.RoleBackfill, filepath.Join(cfg.State, backfill.Folder, e.Name()))
		}
	}
	return all, nil
}
