package kafka

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
)

// Messages are read over TLS with an authority of one's own, and a password. Who has a
// wrong one of either is told at once.
func TestLogin(t *testing.T) {
	addr := shared.Broker(t).SecureAddr
	for _, login := range shared.Logins(t) {
		t.Run(login.Name, func(t *testing.T) {
			w := newTopic(t, 1)
			w.Send(t, "1")
			cfg := w.cfg
			cfg.Broker = broker.Config{
				Brokers: []string{addr}, TLS: broker.TLS{Enabled: true, CAFile: login.CAFile},
				SASL: broker.SASL{Mechanism: login.Mechanism, User: login.User, Password: secret.New(login.Password)},
			}
			var log bytes.Buffer
			s, err := New(cfg, Deps{Parse: parse, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			read := ""
			refused := s.Run(ctx, func(_ context.Context, d pipeline.Delivery) error {
				read = pipelinetest.Path(d)
				d.Ack()
				cancel()
				return nil
			})
			login.Check(t, refused, log.String())
			if login.Advice == "" && read != "1" {
				t.Errorf("read %q, want the message", read)
			}
		})
	}
}
