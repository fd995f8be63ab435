package assembly

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
)

type nothing struct{}

func (nothing) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	<-ctx.Done()
	return nil
}

func eventHub(h config.EventHub, state string, parser *announce.Parser, ignored metric.Int64Counter, deps Deps) (pipeline.Source, error) {
	return nothing{}, nil
}
