package assembly

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/secret"
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
	positions, err := positionsFile(connection, h)
	if err != nil {
		return nil, fmt.Errorf("eventhubs[%d].connection_string: %w", i, err)
	}
	return eventhubs.New(cfg, eventhubs.Deps{
		Parse: func(body []byte) []pipeline.Announcement {
			found, counts := parser.Parse(body)
			for reason, n := range counts {
				ignored.Add(context.Background(), int64(n), metric.WithAttributes(attribute.String("reason", string(reason))))
			}
			return found
		},
		Checkpoints: eventhubs.NewFileStore(filepath.Join(state, "sources", positions), h.Hub, h.ConsumerGroup),
		Meter:       deps.Meter,
		Logger:      deps.Logger,
	})
}

// positionsFile names the file by what it speaks of, so that hubs may change their
// places in the configuration.
func positionsFile(connection secret.Secret, h config.EventHub) (string, error) {
	c, err := azeventhubs.ParseConnectionString(connection.Reveal())
	if err != nil {
		return "", errors.New("not as Azure gives it, Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…") // the cause may show the key
	}
	id := xxh3.HashString(strings.Join([]string{strings.ToLower(c.FullyQualifiedNamespace), strings.ToLower(h.Hub), strings.ToLower(h.ConsumerGroup)}, "\n"))
	return fmt.Sprintf("eventhub-%016x.json", id), nil
}
