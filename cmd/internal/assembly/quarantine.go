package assembly

import (
	"context"
	"errors"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/quarantine"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/schemas"
)

// OpenQuarantine opens the blobs and the target of a pipeline for the commands that
// look at its quarantine. The pipeline may run meanwhile. What it gives has no
// engine; Close it.
func OpenQuarantine(cfg config.Config, deps Deps) (*Pipeline, quarantine.Deps, error) {
	p := &Pipeline{}
	conn, err := p.openToRead(cfg)
	if err == nil {
		err = p.openKafka(cfg, deps)
	}
	if err != nil {
		p.Close()
		return nil, quarantine.Deps{}, err
	}
	return p, quarantine.Deps{
		Table: quarantine.NewTable(conn), Blobs: reread.Blobs{Store: p.blobs(), Ranges: p.Reader}, Allocator: memory.DefaultAllocator,
		State: cfg.State, Sinks: p.sinks(), Checkpoints: p.checkpoints(), Config: engineConfig(cfg),
		Register: func(ctx context.Context, name string, shards int) (uint16, error) {
			// The rows of the live pipeline are why there is something to replay.
			return p.register(ctx, name, shards, true, true)
		},
		Transforms: func() ([]engine.Transforms, error) { return listTransforms(cfg, deps) },
		Operators: func() ([]pipeline.Operator, error) {
			op, err := window.New(cfg.Windows, memory.DefaultAllocator)
			return []pipeline.Operator{op}, err
		},
		Meter: deps.Meter, Tracer: deps.Tracer, Logger: deps.Logger,
	}, nil
}

// listTransforms reads their files once.
func listTransforms(cfg config.Config, deps Deps) ([]engine.Transforms, error) {
	t, err := openTransforms(cfg, deps)
	if err != nil {
		return nil, err
	}
	return t.list(), nil
}

// openToRead opens the blobs and the target for commands that ask questions.
func (p *Pipeline) openToRead(cfg config.Config) (driver.Conn, error) {
	if err := p.openStore(cfg); err != nil {
		return nil, err
	}
	if !cfg.HasClickHouse() {
		return nil, errors.New("clickhouse.url: missing: the command reads ClickHouse")
	}
	var err error
	if p.Sink, err = OpenSink(cfg); err != nil {
		return nil, err
	}
	return p.Sink.Conn()
}

// Prepare brings the targets up to date and checks them, as a start of the
// pipeline does.
func (p *Pipeline) Prepare(ctx context.Context, cfg config.Config, deps Deps) error {
	var views []schemas.View
	for _, w := range cfg.Windows {
		views = append(views, w.View())
	}
	if p.Sink != nil {
		// A server that is there may go away again before it has answered everything.
		err := patiently(ctx, deps.Logger, "target", func() error {
			if err := p.Sink.Setup(ctx, views); err != nil {
				return err
			}
			return p.Sink.CheckSettings(ctx)
		})
		if err != nil {
			return err
		}
	}
	return p.prepareKafka(ctx, deps)
}
