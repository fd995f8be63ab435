package clickhouse

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/schemas"
)

// Config says which ClickHouse, and how patient to be with it.
type Config struct {
	// URL of the server. HTTP: http://host:8123 or https://host:8443, with a path when
	// a proxy wants one. Native TCP, for servers that offer nothing else:
	// tcp://host:9000, or tls://host:9440; clickhouse://host:9000 means the same, with
	// ?secure=true for TLS. No user, no password.
	URL string `yaml:"url"`
	// Servers makes the target a cluster and stands in URL's place: the addresses of
	// servers that hold local tables, one of each shard. Every batch lands in one of
	// them. At most 64.
	Servers []string `yaml:"servers"`
	// Cluster is the name by which the servers know each other (remote_servers). The
	// Distributed tables over the local ones are made with it. Empty: they are there
	// already. Only with Servers.
	Cluster string `yaml:"cluster"`
	// Database that holds the tables. It is created (ENGINE = Atomic) when missing.
	Database string `yaml:"database"`
	// User and Password are sent as headers or in the handshake, never in a URL. Empty user: "default".
	User     string        `yaml:"user"`
	Password secret.Secret `yaml:"password"`
	// CAFile holds the certificates (PEM) that may sign the server's. Empty: those of
	// the operating system. Only for https.
	CAFile string `yaml:"ca_file"`
	// DialTimeout bounds connecting, TLS included. 100 ms to 5 min.
	DialTimeout time.Duration `yaml:"dial_timeout"`
	// QueryTimeout bounds a question and a statement of set-up; never an INSERT of
	// rows. 1 s to 1 h.
	QueryTimeout time.Duration `yaml:"query_timeout"`
	// WatchInterval is how often the server is asked whether a running INSERT still
	// runs. One that the server no longer knows, three times in a row, is in doubt.
	// 10 ms to 10 min.
	WatchInterval time.Duration `yaml:"watch_interval"`
	// LostAfter is how long the server may not answer that question before the INSERT
	// is in doubt. At least WatchInterval, at most 24 h.
	LostAfter time.Duration `yaml:"lost_after"`
}

// DefaultConfig gives the settings for a ClickHouse on this machine.
func DefaultConfig() Config {
	return Config{
		URL:           "http://127.0.0.1:8123",
		Database:      "millrace",
		User:          "default",
		DialTimeout:   10 * time.Second,
		QueryTimeout:  2 * time.Minute,
		WatchInterval: 10 * time.Second,
		LostAfter:     5 * time.Minute,
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("clickhouse: "+format, args...)) }
	plain := false
	hosts := map[string]bool{}
	for _, url := range c.urls() {
		at, err := parseAddress(url)
		if err != nil {
			fault("%w", err)
		} else if hosts[at.host] {
			fault("servers lists %s twice", at.host)
		}
		hosts[at.host] = true
		plain = plain || at.url != nil && !at.secure
	}
	if len(c.Servers) > maxServers {
		fault("servers lists %d, want at most %d", len(c.Servers), maxServers)
	}
	switch {
	case c.Cluster != "" && len(c.Servers) == 0:
		fault("cluster is set, but servers is not")
	case c.Cluster != "" && !clusterName.MatchString(c.Cluster):
		fault("cluster %q: want 1 to 64 letters, digits and any of _ . - { }", c.Cluster)
	}
	if err := schemas.CheckIdentifier("database", c.Database); err != nil {
		fault("%w", err)
	}
	if _, err := newLogin(c.User, c.Password); err != nil {
		fault("%w", err)
	}
	if c.CAFile != "" && plain {
		fault("ca_file is set, but url is without TLS: want https:// or tls://")
	}
	between := func(name string, v, lo, hi time.Duration) {
		if v < lo || v > hi {
			fault("%s is %v, want %v to %v", name, v, lo, hi)
		}
	}
	between("dial_timeout", c.DialTimeout, 100*time.Millisecond, 5*time.Minute)
	between("query_timeout", c.QueryTimeout, time.Second, time.Hour)
	between("watch_interval", c.WatchInterval, 10*time.Millisecond, 10*time.Minute)
	between("lost_after", c.LostAfter, c.WatchInterval, 24*time.Hour)
	return errors.Join(faults...)
}

const maxServers = 64

// clusterName is what a cluster may be called; braces are ClickHouse's macros.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9_.{}-]{1,64}$`)

// urls are those of all servers, as listed.
func (c Config) urls() []string {
	if len(c.Servers) > 0 {
		return c.Servers
	}
	return []string{c.URL}
}

// tlsConfig gives nil for a server without TLS.
func (c Config) tlsConfig(at address) (*tls.Config, error) {
	if !at.secure {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: at.url.Hostname()}
	if c.CAFile == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: read ca_file: %w", err)
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("clickhouse: ca_file %q holds no certificate", c.CAFile)
	}
	return conf, nil
}
