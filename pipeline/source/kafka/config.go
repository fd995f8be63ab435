// Package kafka is a source of announcements: it reads the messages of a topic of
// Kafka, or of an event hub through its Kafka endpoint, as a member of a consumer
// group.
//
// In flow messages; out flow deliveries, one per message that holds an announcement. A
// message is acknowledged when everything behind its announcements is durable. The
// offset that is committed for a partition is behind the longest run of acknowledged
// messages, so a restart, or another member of the group, reads again at most what was
// not acknowledged, and skips nothing. Announcements are hints: reading one twice costs
// a look at a blob, and one that expired unread is found by the sweeper.
//
// When a partition is taken away, what is acknowledged of it is committed, and what
// was read and not handed on is dropped: the next member reads it.
//
// Run owns all goroutines: one that commits, and those of the Kafka client. Memory is
// bounded by Config.MaxUnacknowledged messages per partition and what the client
// fetches ahead.
package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
)

// Start positions of a group that has committed nothing.
const (
	StartEarliest = "earliest"
	StartLatest   = "latest"
)

const maxUnacknowledged = 1_000_000

// Config of a Source.
type Config struct {
	Broker broker.Config
	Topic  string
	// Group is the consumer group: sources in one group share the partitions.
	Group string
	// Start says where a group begins that has committed nothing: earliest or latest.
	Start string
	// MaxUnacknowledged is how many messages per partition may wait for
	// acknowledgement. At the limit the topic is not read. Default 10,000.
	MaxUnacknowledged int
	// CommitInterval is the least time between two commits. Default 1 s.
	CommitInterval time.Duration
	// RequestTimeout bounds a question to the brokers. Default 30 s.
	RequestTimeout time.Duration
}

// DefaultConfig gives the defaults for a topic.
func DefaultConfig(b broker.Config, topic string) Config {
	return Config{
		Broker: b, Topic: topic, Group: "millrace", Start: StartEarliest,
		MaxUnacknowledged: 10_000, CommitInterval: time.Second, RequestTimeout: 30 * time.Second,
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	faults := []error{c.Broker.Validate()}
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(c.Topic != "", "topic: missing")
	check(c.Group != "", "group: missing")
	check(c.Start == StartEarliest || c.Start == StartLatest, "start: %q: want %s or %s", c.Start, StartEarliest, StartLatest)
	check(c.MaxUnacknowledged >= 1 && c.MaxUnacknowledged <= maxUnacknowledged, "%d unacknowledged messages, want 1 to %d", c.MaxUnacknowledged, maxUnacknowledged)
	check(c.CommitInterval >= 10*time.Millisecond, "commit interval of %v, want at least 10ms", c.CommitInterval)
	check(c.RequestTimeout >= time.Second, "request timeout of %v, want at least 1s", c.RequestTimeout)
	if err := errors.Join(faults...); err != nil {
		name := fmt.Sprintf("kafka topic %q: ", c.Topic)
		return errors.New(name + strings.ReplaceAll(err.Error(), "\n", "\n"+name))
	}
	return nil
}

// Deps are what a Source needs from others.
type Deps struct {
	// Parse reads one message and gives the announcements in it. It counts what it
	// leaves out by itself.
	Parse func(body []byte) []pipeline.Announcement
	// OnGap hears of messages that were never read; it must not block. Optional: each
	// gap is logged and counted as well.
	OnGap  func(Gap)
	Meter  metric.Meter // optional
	Logger *slog.Logger // optional
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
	return d
}

// Gap tells of messages of a partition that were not read, so that announcements may
// be missing until the sweeper finds their blobs.
type Gap struct {
	Partition int32
	Reason    GapReason
	// From is the offset of the first message that was not read, and Missing how many
	// offsets are known to be missing; -1 when nobody knows.
	From, Missing int64
}

// GapReason says why messages were not read.
type GapReason string

// Reasons of gaps.
const (
	// GapExpired: the topic's retention passed before they were read.
	GapExpired GapReason = "expired"
	// GapRecreated: the topic was deleted and made anew; the old offset means nothing.
	GapRecreated GapReason = "recreated"
	// GapTooLarge: a batch of messages inflates to far more than announcements do, and
	// was passed over.
	GapTooLarge GapReason = "too_large"
)
