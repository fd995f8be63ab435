package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/millrace/millrace/pipeline/broker"
	"github.com/millrace/millrace/schemas"
)

// Formats of messages.
const (
	FormatJSON  = "json"  // one message a row, one JSON object a message
	FormatArrow = "arrow" // one Arrow IPC stream a message, with one record batch
)

// Keys of messages.
const (
	KeyMAC   = "mac"   // the network interface; that of the shard in tables without one
	KeyShard = "shard" // ledger and shard: all rows of a network interface have the same
	KeyNone  = "none"
)

// MaxArrowMessage bounds one Arrow message: with its key and headers it fits in the
// million bytes that brokers take by default.
const MaxArrowMessage = 900 << 10

// minMessageBytes is what a topic must take: a batch of the client's.
const minMessageBytes = 1_000_012

// maxBuffered bounds the bytes of a shard that wait to be sent.
const maxBuffered = 32 << 20

// Config says where rows go and how.
type Config struct {
	Broker broker.Config
	// Topics gives the topic of each table; tables without one are not sent.
	Topics map[string]string
	// ProgressTopic holds what has landed. It is compacted, belongs to this program and
	// must never be deleted while its ledgers live. Pipelines may share it when they
	// share their ClickHouse, or have none.
	ProgressTopic string
	// Format is json or arrow.
	Format string
	// Key of messages: mac, shard or none; "" is mac for json and shard for arrow.
	Key string
	// Compression of batches of messages: none, gzip, snappy, lz4 or zstd.
	Compression string
	// CreateTopics makes topics that are missing, with Partitions (the progress topic
	// has one) and Replication copies; -1 leaves either to the broker's defaults.
	CreateTopics bool
	Partitions   int32
	Replication  int16
	// TransactionTimeout is how long one batch may take to land; the broker ends the
	// transaction after it. 1 s to 15 min, which is most that brokers allow by default.
	TransactionTimeout time.Duration
	// RequestTimeout bounds a question to the brokers. 1 s to 10 min.
	RequestTimeout time.Duration
}

// DefaultConfig sends flows as JSON.
func DefaultConfig() Config {
	return Config{
		Topics: map[string]string{schemas.Flows.Name: "millrace-flows"}, ProgressTopic: "millrace-progress",
		Format: FormatJSON, Compression: "zstd", Partitions: -1, Replication: -1,
		TransactionTimeout: 2 * time.Minute, RequestTimeout: 30 * time.Second,
	}
}

// topicName is what Kafka allows.
var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// Validate reports every fault at once.
func (c Config) Validate() error {
	faults := []error{c.Broker.Validate()}
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(len(c.Topics) > 0, "topics: missing: name at least one, such as {%s: millrace-flows}", schemas.Flows.Name)
	for table, topic := range c.Topics {
		check(goodTopic(topic), "topics.%s: %q: want 1 to 249 letters, digits, dots, dashes or underscores", table, topic)
		check(topic != c.ProgressTopic, "topics.%s: %q is the progress topic: give it one of its own", table, topic)
	}
	check(goodTopic(c.ProgressTopic), "progress_topic: %q: want 1 to 249 letters, digits, dots, dashes or underscores", c.ProgressTopic)
	check(c.Format == FormatJSON || c.Format == FormatArrow, "format: %q: want %s or %s", c.Format, FormatJSON, FormatArrow)
	check(slices.Contains([]string{"", KeyMAC, KeyShard, KeyNone}, c.Key), "key: %q: want %s, %s or %s", c.Key, KeyMAC, KeyShard, KeyNone)
	_, known := codecs[c.Compression]
	check(known, "compression: %q: want none, gzip, snappy, lz4 or zstd", c.Compression)
	check(c.Partitions == -1 || c.Partitions >= 1 && c.Partitions <= 10_000, "partitions: %d: want 1 to 10,000, or -1 for the broker's default", c.Partitions)
	check(c.Replication == -1 || c.Replication >= 1 && c.Replication <= 100, "replication: %d: want 1 to 100, or -1 for the broker's default", c.Replication)
	between := func(name string, v, lo, hi time.Duration) {
		check(v >= lo && v <= hi, "%s: %v: want %v to %v", name, v, lo, hi)
	}
	between("transaction_timeout", c.TransactionTimeout, time.Second, 15*time.Minute)
	between("request_timeout", c.RequestTimeout, time.Second, 10*time.Minute)
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("kafka: %s", strings.ReplaceAll(err.Error(), "\n", "\nkafka: "))
	}
	return nil
}

func goodTopic(name string) bool { return topicName.MatchString(name) && name != "." && name != ".." }

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// key gives the kind of key that is in force.
func (c Config) key() string {
	switch {
	case c.Key != "":
		return c.Key
	case c.Format == FormatArrow:
		return KeyShard
	}
	return KeyMAC
}

// Deps are what a sink needs from others. All are optional.
type Deps struct {
	Meter  metric.Meter
	Logger *slog.Logger
}

func (d Deps) withDefaults() Deps {
	if d.Meter == nil {
		d.Meter = noop.Meter{}
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return d
}
