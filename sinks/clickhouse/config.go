package clickhouse

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
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
	at, err := parseAddress(c.URL)
	if err != nil {
		fault("%w", err)
	}
	if err := schemas.CheckIdentifier("database", c.Database); err != nil {
		fault("%w", err)
	}
	if strings.ContainsAny(c.User, "\r\n\x00") || strings.ContainsAny(c.Password.Reveal(), "\r\n\x00") {
		fault("user or password holds a line break")
	}
	if c.CAFile != "" && at.url != nil && !at.secure {
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
