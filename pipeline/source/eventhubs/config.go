package eventhubs

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/secret"
)

// Bounds of Config.
const (
	maxPrefetch       = 5000 // of the client
	maxUnacknowledged = 1_000_000
)

// Config of a Source. DefaultConfig gives the defaults.
type Config struct {
	// ConnectionString of the namespace or of the hub, with a key that may listen.
	// It is never printed. Either it or Credential is set.
	ConnectionString secret.Secret
	// Credential gives tokens of an identity that may receive from the hub; they go to
	// Namespace only, over TLS.
	Credential azcore.TokenCredential
	// Namespace is the full name of the namespace, with Credential only.
	Namespace string
	// WebSocket speaks through port 443, and through the proxy that the environment
	// names, instead of port 5671.
	WebSocket bool
	// Hub names the event hub. It may be empty when the connection string has an
	// EntityPath, and must be the same otherwise.
	Hub string
	// ConsumerGroup defaults to $Default. Two sources in one group each get everything.
	ConsumerGroup string
	// OwnerLevel, when set, makes the source the only reader of the group: it evicts
	// readers with the same or a lower level, and those with a higher one evict it.
	OwnerLevel *int64
	// Prefetch is how many messages per partition the client holds that were not
	// looked at yet. Default 300, 1 to 5,000. A message has up to 1 MiB; those of
	// Event Grid have 1 to 2 KiB.
	Prefetch int
	// MaxUnacknowledged is how many messages per partition may wait for
	// acknowledgement. At the limit the partition is not read. Default 10,000.
	MaxUnacknowledged int
	// CheckpointInterval is the least time between two writes of checkpoints. Default
	// 1 s.
	CheckpointInterval time.Duration
	// LagInterval is how often each partition is asked where it ends, which is one
	// small request. Default 15 s, at least 10 ms.
	LagInterval time.Duration
	// RetryMin and RetryMax bound the wait before a broken link is made anew; it
	// doubles from one to the other. Defaults 200 ms and 5 s.
	RetryMin, RetryMax time.Duration
	// OwnershipWait is how long the source stays away from a partition that another
	// reader took. Default 30 s.
	OwnershipWait time.Duration
}

// DefaultConfig gives the defaults for a hub.
func DefaultConfig(connection secret.Secret, hub string) Config {
	return Config{
		ConnectionString: connection, Hub: hub, ConsumerGroup: azeventhubs.DefaultConsumerGroup,
		Prefetch: 300, MaxUnacknowledged: 10_000, CheckpointInterval: time.Second, LagInterval: 15 * time.Second,
		RetryMin: 200 * time.Millisecond, RetryMax: 5 * time.Second, OwnershipWait: 30 * time.Second,
	}
}

// Validate reports every fault at once. It never prints the connection string.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("event hub %q: "+format, append([]any{c.Hub}, args...)...))
		}
	}
	if _, err := c.entity(); err != nil {
		faults = append(faults, err)
	}
	check(c.Credential == nil || c.ConnectionString.IsZero(), "a connection string and an identity, want one of them")
	check(c.ConsumerGroup != "", "no consumer group")
	check(c.OwnerLevel == nil || *c.OwnerLevel >= 0, "owner level below 0")
	check(c.Prefetch >= 1 && c.Prefetch <= maxPrefetch, "prefetch of %d messages, want 1 to %d", c.Prefetch, maxPrefetch)
	check(c.MaxUnacknowledged >= 1 && c.MaxUnacknowledged <= maxUnacknowledged, "%d unacknowledged messages, want 1 to %d", c.MaxUnacknowledged, maxUnacknowledged)
	check(c.CheckpointInterval >= 10*time.Millisecond, "checkpoint interval of %s, want at least 10ms", c.CheckpointInterval)
	check(c.LagInterval >= 10*time.Millisecond, "lag interval of %s, want at least 10ms", c.LagInterval)
	check(c.RetryMin > 0 && c.RetryMax >= c.RetryMin, "retry from %s to %s, want a rising range above 0", c.RetryMin, c.RetryMax)
	check(c.OwnershipWait > 0, "ownership wait of %s, want more than 0", c.OwnershipWait)
	return errors.Join(faults...)
}

// entity gives the hub's name. The errors of the client's parser are not passed
// on: they may quote the connection string.
func (c Config) entity() (string, error) {
	if c.Credential != nil {
		if c.Hub == "" || c.Namespace == "" {
			return "", fmt.Errorf("event hub %q: an identity needs the names of namespace and hub", c.Hub)
		}
		return c.Hub, nil
	}
	if c.ConnectionString.IsZero() {
		return "", fmt.Errorf("event hub %q: no connection string and no identity", c.Hub)
	}
	p, err := azeventhubs.ParseConnectionString(c.ConnectionString.Reveal())
	if err != nil || p.FullyQualifiedNamespace == "" || p.SharedAccessKey == nil && p.SharedAccessSignature == nil {
		return "", fmt.Errorf("event hub %q: the connection string is not of the form Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…", c.Hub)
	}
	switch {
	case p.EntityPath == nil || *p.EntityPath == "":
		if c.Hub == "" {
			return "", errors.New("event hub: neither the configuration nor the connection string names the hub")
		}
		return c.Hub, nil
	case c.Hub != "" && c.Hub != *p.EntityPath:
		return "", fmt.Errorf("event hub %q: the connection string is for the hub %q", c.Hub, *p.EntityPath)
	}
	return *p.EntityPath, nil
}

// namespace gives the namespace's name, of a valid configuration.
func (c Config) namespace() string {
	if c.Credential != nil {
		return c.Namespace
	}
	p, err := azeventhubs.ParseConnectionString(c.ConnectionString.Reveal())
	if err != nil {
		return ""
	}
	return p.FullyQualifiedNamespace
}

// Deps are what a Source needs from others.
type Deps struct {
	// Parse reads one message body and gives the announcements in it. It counts what
	// it leaves out by itself. Called from several goroutines.
	Parse func(body []byte) []pipeline.Announcement
	// Checkpoints keeps positions over restarts.
	Checkpoints CheckpointStore
	// OnGap hears of messages that were never read; it must not block. Optional: each
	// gap is logged and counted as well.
	OnGap  func(Gap)
	Meter  metric.Meter // optional
	Logger *slog.Logger // optional
	// Now is the clock of back-off. Default time.Now.
	Now func() time.Time
}

func (d Deps) withDefaults() Deps {
	if d.Meter == nil {
		d.Meter = noop.Meter{}
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.OnGap == nil {
		d.OnGap = func(Gap) {}
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return d
}

// Gap tells of messages of a partition that were not read, so that announcements
// may be missing until the sweeper finds their blobs.
type Gap struct {
	Partition string
	Reason    GapReason
	// After is the sequence number of the last message before the gap, and Missing
	// how many messages are known to be missing; -1 when nobody knows.
	After, Missing int64
}

// GapReason says why messages were not read.
type GapReason string

// Reasons of gaps.
const (
	// GapExpired: the hub's retention passed before they were read.
	GapExpired GapReason = "expired"
	// GapRecreated: the hub was deleted and made anew; the old position means nothing.
	GapRecreated GapReason = "recreated"
)
