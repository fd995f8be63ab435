package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline/broker"
	"github.com/millrace/millrace/pipeline/secret"
	source "github.com/millrace/millrace/pipeline/source/kafka"
	"github.com/millrace/millrace/sinks/kafka"
)

// What a Kafka sink promises.
const (
	ExactlyOnce = "exactly-once"
	AtLeastOnce = "at-least-once"
)

// KafkaTLS encrypts the connections.
type KafkaTLS struct {
	// Enabled switches TLS on. Default false.
	Enabled bool `yaml:"enabled"`
	// CAFile holds the certificates (PEM) that may sign the brokers'. Default those of
	// the operating system.
	CAFile string `yaml:"ca_file"`
	// CertFile is the client's own certificate (PEM). Default none.
	CertFile string `yaml:"cert_file"`
	// KeyFile is the key of cert_file (PEM). Default none.
	KeyFile string `yaml:"key_file"`
}

// KafkaSASL says how to log in.
type KafkaSASL struct {
	// Mechanism is plain, scram-sha-256, scram-sha-512 or oauthbearer; plain and
	// oauthbearer want TLS. Default: no login.
	Mechanism string `yaml:"mechanism"`
	// User to log in as. Required but for oauthbearer.
	User string `yaml:"user"`
	// Password of the user: {env: NAME} or {file: PATH}. Required but for oauthbearer.
	Password Reference `yaml:"password"`
	// TokenFile holds the token for oauthbearer, and is read at each login. Required
	// with oauthbearer.
	TokenFile string `yaml:"token_file"`
}

// Kafka is where rows land beside ClickHouse, or instead of it.
type Kafka struct {
	// Brokers to ask first, as host:port. Required.
	Brokers []string `yaml:"brokers"`
	// TLS encrypts the connections. Default off.
	TLS KafkaTLS `yaml:"tls"`
	// SASL says how to log in. Default: not at all. For the Kafka endpoint of Event Hubs:
	// {mechanism: plain, user: $ConnectionString, password: {env: NAME}} with TLS, the
	// password being the connection string.
	SASL KafkaSASL `yaml:"sasl"`
	// Delivery is exactly-once, which needs transactions, or at-least-once for brokers
	// that have none, such as the Kafka endpoint of Event Hubs: after a crash rows come
	// again there, to be told by the headers batch_id and rows. Default exactly-once.
	Delivery string `yaml:"delivery"`
	// Topics gives the topic of each table: flows, quarantine, windows_NAME. Tables that
	// are not named are not sent. Default {flows: millrace-flows}.
	Topics map[string]string `yaml:"topics"`
	// ProgressTopic holds what has landed, in the same transactions as the rows. It is
	// compacted and must never be deleted. Default millrace-progress. Unused with
	// at-least-once.
	ProgressTopic string `yaml:"progress_topic"`
	// Format is json, one message a row with the columns as keys, or arrow, IPC streams
	// of at most 900 KiB. Default json.
	Format string `yaml:"format"`
	// Key of messages: mac (rows of a network interface stay in order), shard (the
	// same, with fewer keys) or none. Default mac for json, shard for arrow.
	Key string `yaml:"key"`
	// Compression is none, gzip, snappy, lz4 or zstd. Default zstd.
	Compression string `yaml:"compression"`
	// CreateTopics makes topics that are missing. Default false.
	CreateTopics bool `yaml:"create_topics"`
	// Partitions of topics that are made, 1 to 10,000; the progress topic has one. Default
	// -1: as the brokers do.
	Partitions int32 `yaml:"partitions"`
	// Replication is how many copies the brokers keep of topics that are made, 1 to 100.
	// Default -1: as the brokers do.
	Replication int16 `yaml:"replication"`
	// TransactionTimeout is how long one batch may take to land. Default 2m, at
	// least 1s, at most 15m and the brokers' transaction.max.timeout.ms.
	TransactionTimeout time.Duration `yaml:"transaction_timeout"`
	// AllowNonEmpty lets a new ledger begin where the progress topic knows batches of
	// others. Default false.
	AllowNonEmpty bool `yaml:"allow_non_empty"`
}

// KafkaSource is one topic that announces blobs.
type KafkaSource struct {
	// Brokers to ask first, as host:port. Required.
	Brokers []string `yaml:"brokers"`
	// TLS encrypts the connections. Default off.
	TLS KafkaTLS `yaml:"tls"`
	// SASL says how to log in. Default: not at all. For the Kafka endpoint of Event Hubs:
	// {mechanism: plain, user: $ConnectionString, password: {env: NAME}} with TLS, the
	// password being the connection string.
	SASL KafkaSASL `yaml:"sasl"`
	// Topic whose messages are events of Event Grid or CloudEvents. Required.
	Topic string `yaml:"topic"`
	// Group is the consumer group; sources in one group share the partitions. Default
	// millrace.
	Group string `yaml:"group"`
	// Start says where a group begins that has committed nothing: earliest or latest.
	// Default earliest.
	Start string `yaml:"start"`
}

// setDefault fills in what the file leaves out.
func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// defaultKafka fills in what the sections kafka and kafka_sources leave out.
func (c *Config) defaultKafka() {
	if k := c.Kafka; k != nil {
		d := kafka.DefaultConfig()
		setDefault(&k.Delivery, ExactlyOnce)
		setDefault(&k.ProgressTopic, d.ProgressTopic)
		setDefault(&k.Format, d.Format)
		setDefault(&k.Compression, d.Compression)
		setDefault(&k.Partitions, d.Partitions)
		setDefault(&k.Replication, d.Replication)
		setDefault(&k.TransactionTimeout, d.TransactionTimeout)
		if k.Topics == nil {
			k.Topics = d.Topics
		}
	}
	d := source.DefaultConfig(broker.Config{}, "")
	for i := range c.KafkaSources {
		setDefault(&c.KafkaSources[i].Group, d.Group)
		setDefault(&c.KafkaSources[i].Start, d.Start)
	}
}

// Broker reads the password and gives the connection of the sink.
func (k Kafka) Broker() (broker.Config, error) { return connection(k.Brokers, k.TLS, k.SASL, true) }

// Broker reads the password and gives the connection of the source.
func (k KafkaSource) Broker() (broker.Config, error) {
	return connection(k.Brokers, k.TLS, k.SASL, true)
}

// connection gives a connection; when only the texts are to be checked, with a
// password that stands for the one that is named.
func connection(brokers []string, t KafkaTLS, s KafkaSASL, read bool) (broker.Config, error) {
	password := secret.Secret{}
	switch {
	case !s.Password.Set():
	case read:
		var err error
		if password, err = s.Password.Resolve(); err != nil {
			return broker.Config{}, fmt.Errorf("sasl.password: %w", err)
		}
	default:
		password = secret.New("named")
	}
	return broker.Config{
		Brokers: brokers,
		TLS:     broker.TLS{Enabled: t.Enabled, CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile},
		SASL:    broker.SASL{Mechanism: s.Mechanism, User: s.User, Password: password, TokenFile: s.TokenFile},
	}, nil
}

// Sink gives the sink's configuration over a connection.
func (k Kafka) Sink(b broker.Config) kafka.Config {
	c := kafka.DefaultConfig()
	c.Broker, c.Topics, c.ProgressTopic, c.Format, c.Key = b, k.Topics, k.ProgressTopic, k.Format, k.Key
	c.Compression, c.CreateTopics, c.Partitions, c.Replication = k.Compression, k.CreateTopics, k.Partitions, k.Replication
	c.TransactionTimeout = k.TransactionTimeout
	return c
}

// Source gives the source's configuration over a connection.
func (k KafkaSource) Source(b broker.Config) source.Config {
	c := source.DefaultConfig(b, k.Topic)
	c.Group, c.Start = k.Group, k.Start
	return c
}

// checkKafka reports every fault of the sections kafka and kafka_sources.
func (c Config) checkKafka(check func(ok bool, key, format string, args ...any)) {
	report := func(key string, err error) {
		if err == nil {
			return
		}
		for line := range strings.Lines(err.Error()) {
			line = strings.TrimSpace(line)
			if _, rest, ok := strings.Cut(line, ": "); ok && strings.HasPrefix(line, "kafka") { // "kafka: " or "kafka topic ...: "
				line = rest
			}
			check(false, key, "%s", line)
		}
	}
	if k := c.Kafka; k != nil {
		b, _ := connection(k.Brokers, k.TLS, k.SASL, false) // no secret is read
		report("kafka", k.Sink(b).Validate())
		check(k.Delivery == ExactlyOnce || k.Delivery == AtLeastOnce, "kafka.delivery", "%q: want %s or %s", k.Delivery, ExactlyOnce, AtLeastOnce)
		tables := map[string]bool{"flows": true, "quarantine": true}
		for _, w := range c.Windows {
			tables[w.Table().Name] = true
		}
		for table := range k.Topics {
			check(tables[table], "kafka.topics."+table, "the pipeline has no table of this name")
		}
	}
	for i, s := range c.KafkaSources {
		b, _ := connection(s.Brokers, s.TLS, s.SASL, false)
		report(fmt.Sprintf("kafka_sources[%d]", i), s.Source(b).Validate())
	}
}

// HasClickHouse says whether rows land in ClickHouse.
func (c Config) HasClickHouse() bool { return c.ClickHouse.URL != "" || len(c.ClickHouse.Servers) > 0 }
