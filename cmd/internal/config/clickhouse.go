package config

import (
	"fmt"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// ClickHouse is where rows land: one server, or the servers of a cluster.
type ClickHouse struct {
	// URL of the server: http://host:8123 or https://host:8443; native TCP is
	// tcp://host:9000 or tls://host:9440 (clickhouse://host:9000, with ?secure=true for
	// TLS, means the same). Without user and password. Required, unless servers is set.
	URL string `yaml:"url"`
	// Servers are the addresses of a cluster's servers, one of each of its shards,
	// spelled like url and in its place. Each batch lands in the local tables
	// (flows_local …) of one of them; the Distributed tables over those have the plain
	// names. At most 64, and no more than shards. Default none.
	Servers []string `yaml:"servers"`
	// Cluster is the name by which the servers know each other (remote_servers), for
	// the Distributed tables. Default "": they are not made, and have to be there.
	Cluster string `yaml:"cluster"`
	// Database that holds the tables; it is made if it is not there. Default millrace.
	Database string `yaml:"database"`
	// User who writes and reads. Default default.
	User string `yaml:"user"`
	// Password names the user's password. Default none.
	Password Reference `yaml:"password" reload:"live"`
	// CAFile holds the certificates (PEM) that may sign the servers'. Only with TLS.
	// Default those of the operating system.
	CAFile string `yaml:"ca_file"`
	// AllowNonEmpty lets a new ledger begin on tables that hold rows of others. Default
	// false.
	AllowNonEmpty bool `yaml:"allow_non_empty"`
	// MaxExcerpts bounds the excerpts of refused input in the table quarantine, on the
	// disk of each server, in MiB. Past it those of the oldest days are cleared; their
	// addresses, reasons and counts stay, and can be replayed. Default 1024, 64 to
	// 1048576.
	MaxExcerpts int64 `yaml:"max_excerpt_mib"`
}

// Target gives what the sink is opened with.
//
// Errors: the password cannot be read.
func (c ClickHouse) Target() (clickhouse.Config, error) {
	password, err := c.Password.Resolve()
	if err != nil {
		return clickhouse.Config{}, fmt.Errorf("clickhouse.password: %w", err)
	}
	t := clickhouse.DefaultConfig()
	t.URL, t.Servers, t.Cluster, t.CAFile = c.URL, c.Servers, c.Cluster, c.CAFile
	t.Database, t.User, t.Password = c.Database, c.User, password
	return t, nil
}

// check reports the faults that have a key of their own, for a ledger of so many
// shards. The sink reports the others.
func (c ClickHouse) check(check func(ok bool, key, format string, args ...any), shards int) {
	check(c.Database != "", "clickhouse.database", "missing")
	if c.Database != "" {
		err := schemas.CheckIdentifier("name", c.Database)
		check(err == nil, "clickhouse.database", "%v", err)
	}
	check(c.MaxExcerpts >= 64 && c.MaxExcerpts <= 1<<20, "clickhouse.max_excerpt_mib", "%d: want 64 to 1048576", c.MaxExcerpts)
	check(c.URL == "" || len(c.Servers) == 0, "clickhouse.servers", "url is set too: keep one of them")
	if len(c.Servers) == 0 {
		err := clickhouse.CheckURL(c.URL)
		check(err == nil, "clickhouse.url", "%v", err)
		check(c.Cluster == "", "clickhouse.cluster", "servers is not set: list one server of each of the cluster's shards")
	}
	for i, url := range c.Servers {
		err := clickhouse.CheckURL(url)
		check(err == nil, fmt.Sprintf("clickhouse.servers[%d]", i), "%v", err)
	}
	check(len(c.Servers) <= shards, "clickhouse.servers", "%d servers for %d shards: some would stay empty; set shards to %d or a multiple of it", len(c.Servers), shards, len(c.Servers))
}
