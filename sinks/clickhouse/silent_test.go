package clickhouse

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// A server that never answers holds nobody: every call but the INSERT of a piece,
// which has its watchdog, ends by itself.
func TestSilentServerHoldsNobody(t *testing.T) {
	for _, scheme := range []string{"http", "tcp"} {
		c := config(t, scheme+"://"+pipelinetest.Serve(t, func(net.Conn) {}))
		c.QueryTimeout, c.DialTimeout = time.Second, time.Second
		s := open(t, c)
		batch := pipeline.NewBatchID(1, 2, 3)
		piece := remake(t, batch)
		var group sync.WaitGroup
		for name, call := range map[string]func() error{
			"Exec":          func() error { _, err := s.Exec(t.Context(), "SELECT 1"); return err },
			"Setup":         func() error { return s.Setup(t.Context(), nil) },
			"CheckSettings": func() error { return s.CheckSettings(t.Context()) },
			"Examine":       func() error { return s.Examine(t.Context()) },
			"Fence":         func() error { return s.Fence(t.Context(), 1, 2, 3) },
			"Probe": func() error {
				_, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{piece.PieceRef})
				return err
			},
		} {
			group.Go(func() {
				begin := time.Now()
				if err := call(); err == nil {
					t.Errorf("%s over %s succeeded", name, scheme)
				}
				if took := time.Since(begin); took > 30*time.Second {
					t.Errorf("%s over %s took %v", name, scheme, took)
				}
			})
		}
		group.Wait()
	}
}
