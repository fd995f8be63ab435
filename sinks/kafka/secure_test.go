package kafka

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// Rows land over TLS with an authority of one's own, and a password. Who has a wrong
// one of either is told so.
func TestLogin(t *testing.T) {
	k := shared.Broker(t)
	for _, login := range shared.Logins(t) {
		t.Run(login.Name, func(t *testing.T) {
			cfg := config(t, k.SecureAddr)
			cfg.Broker.TLS = broker.TLS{Enabled: true, CAFile: login.CAFile}
			cfg.Broker.SASL = broker.SASL{Mechanism: login.Mechanism, User: login.User, Password: secret.New(login.Password)}
			var log bytes.Buffer
			s, err := New(cfg, sinktest.Tables(), Deps{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			if err != nil {
				t.Fatal(err)
			}
			refused := s.Setup(t.Context())
			if refused == nil {
				id := pipeline.NewBatchID(1, 0, 1)
				landAs(t, s, id, sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: id, Seed: 1, Rows: 50}))
				if n := len(rows(consume(t, k.Addr, cfg.Topics[schemas.Flows.Name]))); n != 50 {
					t.Errorf("%d rows, want 50", n)
				}
			}
			_ = s.Close() // nobody logs after it
			login.Check(t, refused, log.String())
		})
	}
}
