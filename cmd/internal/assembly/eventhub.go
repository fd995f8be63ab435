package assembly

import (
	"context"
	"fmt"
	"path/filepath"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// eventHub makes the source of one hub. Its positions are kept beside the ledger:
// they follow it, and never decide what is read of a blob.
func eventHub(i int, h config.EventHub, state string, parser *announce.Parser, ignored metric.Int64Counter, deps Deps) (*eventhubs.Source, error) {
	connection, err := h.ConnectionString.Resolve()
	if err != nil {
		return nil, fmt.Errorf("eventhubs[%d].connection_string: %w", i, err)
	}
	cfg := eventhubs.DefaultConfig(connection, h.Hub)
	cfg.ConsumerGroup = h.ConsumerGroup
	positions := filepath.Join(state, "sources", fmt.Sprintf("eventhub-%d.json", i))
	return eventhubs.New(cfg, eventhubs.Deps{
		Parse: func(body []byte) []pipeline.Announcement {
			found, counts := parser.Parse(body)
			for reason, n := range counts {
				ignored.Add(context.Background(), int64(n), metric.WithAttributes(attribute.String("reason", string(reason))))
			}
			return found
		},
		Checkpoints: eventhubs.NewFileStore(positions, h.Hub, h.ConsumerGroup),
		Meter:       deps.Meter,
		Logger:      deps.Logger,
	})
}
