// Package broker says how Kafka's brokers are reached: addresses, TLS and SASL, for
// everything that speaks Kafka. It works with Apache Kafka and with what speaks its
// protocol, as the Kafka endpoint of Azure Event Hubs does.
//
// It connects nothing and owns no goroutine: it makes options for a client.
package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace/millrace/pipeline/secret"
)

// Mechanisms of SASL.
const (
	Plain       = "plain"
	ScramSHA256 = "scram-sha-256"
	ScramSHA512 = "scram-sha-512"
	OAuthBearer = "oauthbearer"
)

// Config says where the brokers are and who we are to them.
type Config struct {
	// Brokers to ask first, as host:port; the others are learned from them.
	Brokers []string
	TLS     TLS
	SASL    SASL
}

// TLS of the connections. Versions before 1.2 are refused.
type TLS struct {
	Enabled bool
	// CAFile holds the certificates (PEM) that may sign the brokers'. Empty: those of
	// the operating system.
	CAFile string
	// CertFile and KeyFile are the client's own certificate and key (PEM), both or none.
	CertFile, KeyFile string
}

// SASL says how to log in. The zero value does not.
type SASL struct {
	// Mechanism is plain, scram-sha-256, scram-sha-512 or oauthbearer; "" for none.
	// For the Kafka endpoint of Event Hubs: plain, with the user $ConnectionString and
	// the connection string as the password.
	Mechanism string
	User      string
	Password  secret.Secret
	// TokenFile holds the token for oauthbearer; it is read at each login, so that
	// another program may renew it.
	TokenFile string
}

const (
	// dialTimeout bounds connecting, TLS included.
	dialTimeout = 10 * time.Second
	// metadataAge is the least time between two questions for topics and leaders. The
	// client's own 5 s would be what a new topic, or a broker that went away, costs.
	metadataAge = 250 * time.Millisecond
)

// Validate reports every fault at once. It never prints the password.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(c.Brokers) == 0 {
		fault("brokers: missing: name at least one as host:port")
	}
	for i, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			fault("brokers[%d]: %q: want host:port, such as kafka-1:9092", i, b)
		}
	}
	if t := c.TLS; !t.Enabled && (t.CAFile != "" || t.CertFile != "" || t.KeyFile != "") {
		fault("tls: files are named, but enabled is false")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls: want both cert_file and key_file, or none")
	}
	switch s := c.SASL; s.Mechanism {
	case "":
		if s.User != "" || !s.Password.IsZero() || s.TokenFile != "" {
			fault("sasl.mechanism: missing: want %s, %s, %s or %s", Plain, ScramSHA256, ScramSHA512, OAuthBearer)
		}
	case Plain, ScramSHA256, ScramSHA512:
		if s.User == "" || s.Password.IsZero() {
			fault("sasl: %s wants user and password", s.Mechanism)
		}
	case OAuthBearer:
		if s.TokenFile == "" {
			fault("sasl: oauthbearer wants token_file")
		}
	default:
		fault("sasl.mechanism: %q: want %s, %s, %s or %s", s.Mechanism, Plain, ScramSHA256, ScramSHA512, OAuthBearer)
	}
	if m := c.SASL.Mechanism; !c.TLS.Enabled && (m == Plain || m == OAuthBearer) {
		fault("sasl: %s without TLS sends the secret in clear text: set tls.enabled, or use scram", m)
	}
	return errors.Join(faults...)
}

// Options gives what a client needs to connect and to log in. Warnings of the
// client go to log.
//
// Errors: faults of Validate; a file that cannot be read.
func (c Config) Options(log *slog.Logger) ([]kgo.Opt, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID("millrace"), kgo.DialTimeout(dialTimeout), kgo.MetadataMinAge(metadataAge),
		kgo.WithLogger(logger{log}), kgo.WithDecompressor(inflater{}),
	}
	if c.TLS.Enabled {
		conf, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if m := c.SASL.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

// Advice says what to do when the brokers refuse us, or we them, whatever is asked:
// no further try mends that. It is "" for every other error.
func Advice(err error) string {
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &verification):
		return "check the brokers' names, or set tls.ca_file to the authority that signed their certificates"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "check user and password"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "the brokers do not offer the mechanism of sasl: choose another"
	}
	return ""
}

func (t TLS) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls: read ca_file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: ca_file %q holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: read cert_file %q and key_file %q: %w", t.CertFile, t.KeyFile, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func (s SASL) mechanism() sasl.Mechanism {
	switch s.Mechanism {
	case Plain:
		return plain.Auth{User: s.User, Pass: s.Password.Reveal()}.AsMechanism()
	case ScramSHA256:
		return scram.Auth{User: s.User, Pass: s.Password.Reveal()}.AsSha256Mechanism()
	case ScramSHA512:
		return scram.Auth{User: s.User, Pass: s.Password.Reveal()}.AsSha512Mechanism()
	case OAuthBearer:
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := os.ReadFile(s.TokenFile)
			if err != nil {
				return oauth.Auth{}, fmt.Errorf("sasl: read token_file: %w", err)
			}
			return oauth.Auth{Token: strings.TrimSpace(string(token))}, nil
		})
	}
	return nil
}

// logger hands the client's warnings to slog.
type logger struct{ log *slog.Logger }

func (logger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l logger) Log(level kgo.LogLevel, msg string, pairs ...any) {
	severity := slog.LevelWarn
	if level > kgo.LogLevelWarn {
		severity = slog.LevelDebug
	}
	//nolint:sloglint // the client's own message and pairs
	l.log.Log(context.Background(), severity, "kafka client: "+msg, pairs...)
}
