package broker

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
)

// A password, of whatever mechanism, goes to no broker that is not good.
func TestTLSIsVerified(t *testing.T) {
	const canary = "CANARY-of-kafka"
	trusted, err := pipelinetest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	ca, token := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "token")
	for name, data := range map[string][]byte{ca: trusted.PEM, token: []byte(canary)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, mechanism := range []string{Plain, ScramSHA256, OAuthBearer} {
		login := SASL{Mechanism: mechanism, User: "someone", Password: secret.New(canary)}
		if mechanism == OAuthBearer {
			login = SASL{Mechanism: mechanism, TokenFile: token}
		}
		t.Run(mechanism, func(t *testing.T) {
			pipelinetest.TLSLaws(t, trusted, func(t *testing.T, address string) error {
				var log bytes.Buffer
				options, err := Config{Brokers: []string{address}, TLS: TLS{Enabled: true, CAFile: ca}, SASL: login}.Options(slog.New(slog.NewTextHandler(&log, nil)))
				if err != nil {
					t.Fatal(err)
				}
				client, err := kgo.NewClient(append(options, kgo.RequestRetries(1), kgo.RetryTimeout(time.Second))...)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				err = client.Ping(ctx)
				client.Close()
				if err != nil && strings.Contains(err.Error()+log.String(), canary) {
					t.Errorf("it is told: %v, %s", err, log.String())
				}
				return err
			})
		})
	}
}
