package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// lasting is a server on a folder that is started again whenever it has ended, as
// a supervisor does: because a test killed it, or because ClickHouse's local mode
// ended itself over a client that hung up in the middle of a request
// (ClickHouse/ClickHouse#115666, fixed after 26.7).
type lasting struct {
	t        testing.TB
	wire     string
	options  servers.ClickHouseOptions
	database string
	mu       sync.Mutex
	ch       *servers.ClickHouse
	starts   int
	sinks    map[string]*Sink // by URL
}

func startLasting(t testing.TB, wire string) *lasting {
	t.Helper()
	l := &lasting{t: t, wire: wire, sinks: map[string]*Sink{}, options: servers.ClickHouseOptions{
		Bin: pipelinetest.RequirePart(t, localtest.EnvClickHouse), Lib: pipelinetest.RequirePart(t, localtest.EnvLibrary),
		Dir: t.TempDir(), MemoryLimit: 4 << 30,
	}}
	l.database = config(t, "http://127.0.0.1:1").Database
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ch != nil {
			l.ch.Kill()
		}
	})
	l.patiently(func(s *Sink) error { return s.Setup(t.Context(), nil) })
	return l
}

// sink gives a sink on the server, which is started if it does not run.
func (l *lasting) sink() *Sink {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ch != nil {
		select {
		case <-l.ch.Done():
			l.ch = nil
		default:
		}
	}
	if l.ch == nil {
		ctx, cancel := context.WithTimeout(l.t.Context(), 60*time.Second)
		defer cancel()
		ch, err := servers.StartClickHouse(ctx, l.options)
		if err != nil {
			l.t.Fatal(err)
		}
		l.ch = ch
		l.starts++
	}
	url := urlOver(l.ch, l.wire)
	s, ok := l.sinks[url]
	if !ok {
		c := config(l.t, url)
		c.Database = l.database
		s = open(l.t, c)
		l.sinks[url] = s
	}
	return s
}

// patiently does it until it is done, over deaths of the server.
func (l *lasting) patiently(do func(s *Sink) error) { patiently(l.t, l, do) }

func patiently(t testing.TB, l interface{ sink() *Sink }, do func(s *Sink) error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = do(l.sink()); err == nil {
			return
		}
		if !errors.Is(err, pipeline.ErrTransient) {
			t.Fatal(err)
		}
	}
	t.Fatal(fmt.Errorf("still after 30 s: %w", err))
}

// fence and probe are the sink's, done patiently.
func (l *lasting) fence(ledger uint16, shard int, epoch uint64) {
	l.t.Helper()
	l.patiently(func(s *Sink) error { return s.Fence(l.t.Context(), ledger, shard, epoch) })
}

func (l *lasting) probe(batch pipeline.BatchID, pieces ...pipeline.PieceRef) []int64 {
	l.t.Helper()
	var rows []int64
	l.patiently(func(s *Sink) (err error) {
		rows, err = s.Probe(l.t.Context(), batch, pieces)
		return err
	})
	return rows
}
