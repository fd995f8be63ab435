package assembly

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/identity"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// Hub is what is known of a configured hub before anybody is asked.
type Hub struct {
	Config    eventhubs.Config
	Positions *eventhubs.FileStore // in the folder of the ledger
	Namespace string

	entry hubEntry
}

// hubEntry is what of a hub's section says how it is read, secrets aside.
type hubEntry struct {
	identity  config.Identity
	transport string
}

// Name tells hubs apart for people.
func (h Hub) Name() string {
	return fmt.Sprintf("%s/%s/%s", h.Namespace, h.Config.Hub, h.Config.ConsumerGroup)
}

// ResolveHub reads the secrets of the i-th hub. Its positions are kept beside the
// ledger: they follow it, and never decide what is read of a blob.
//
// Errors: with the key path.
func ResolveHub(i int, h config.EventHub, state string) (Hub, error) {
	connection, err := h.ConnectionString.Resolve()
	if err != nil {
		return Hub{}, fmt.Errorf("eventhubs[%d].connection_string: %w", i, err)
	}
	cfg := eventhubs.DefaultConfig(connection, h.Hub)
	cfg.ConsumerGroup, cfg.WebSocket = h.ConsumerGroup, h.Transport == config.TransportWebSocket
	namespace := h.Namespace
	if h.Identity != nil {
		host, _, err := net.SplitHostPort(namespace)
		if err != nil {
			host = namespace // without a port
		}
		cfg.Namespace = namespace
		if cfg.Credential, err = identity.New(*h.Identity, host); err != nil {
			return Hub{}, fmt.Errorf("eventhubs[%d].identity: %w", i, err)
		}
	} else {
		c, err := azeventhubs.ParseConnectionString(connection.Reveal())
		if err != nil { // the cause may show the key
			return Hub{}, fmt.Errorf("eventhubs[%d].connection_string: not as Azure gives it, Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…", i)
		}
		namespace = c.FullyQualifiedNamespace
	}
	return Hub{
		Config: cfg, Namespace: namespace, entry: entryOf(h),
		Positions: eventhubs.NewFileStore(filepath.Join(state, "sources", positionsFile(namespace, h)), h.Hub, h.ConsumerGroup),
	}, nil
}

func entryOf(h config.EventHub) hubEntry {
	e := hubEntry{transport: h.Transport}
	if h.Identity != nil {
		e.identity = *h.Identity
	}
	return e
}

// positionsFile names the file by what it speaks of, so that hubs may change their
// places in the configuration, and their credentials.
func positionsFile(namespace string, h config.EventHub) string {
	id := xxh3.HashString(strings.Join([]string{strings.ToLower(namespace), strings.ToLower(h.Hub), strings.ToLower(h.ConsumerGroup)}, "\n"))
	return fmt.Sprintf("eventhub-%016x.json", id)
}

// source makes the source of a hub.
func (h Hub) source(parser func() *announce.Parser, ignored metric.Int64Counter, deps Deps) (*eventhubs.Source, error) {
	return eventhubs.New(h.Config, eventhubs.Deps{
		Parse:       announcements(parser, ignored),
		Checkpoints: h.Positions,
		Meter:       deps.Meter,
		Logger:      deps.Logger,
	})
}

// announcements reads messages, and counts the events that announce nothing.
func announcements(parser func() *announce.Parser, ignored metric.Int64Counter) func(body []byte) []pipeline.Announcement {
	return func(body []byte) []pipeline.Announcement {
		found, counts := parser().Parse(body)
		for reason, n := range counts {
			ignored.Add(context.Background(), int64(n), metric.WithAttributes(attribute.String("reason", string(reason))))
		}
		return found
	}
}
