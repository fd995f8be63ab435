package clickhouse

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// shared is the one server of this package's tests; each test has a database.
var shared struct {
	once sync.Once
	ch   *servers.ClickHouse
	dir  string
	err  error
	next atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.ch != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		if err := shared.ch.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		cancel()
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server gives the shared server, started at the first call.
func server(t testing.TB) *servers.ClickHouse {
	t.Helper()
	bin := pipelinetest.RequirePart(t, localtest.EnvClickHouse)
	lib := pipelinetest.RequirePart(t, localtest.EnvLibrary)
	shared.once.Do(func() {
		//nolint:usetesting // the server is shared by all tests and outlives this one
		if shared.dir, shared.err = os.MkdirTemp("", "millrace-clickhouse-test-"); shared.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		shared.ch, shared.err = servers.StartClickHouse(ctx, servers.ClickHouseOptions{Bin: bin, Lib: lib, Dir: shared.dir, MemoryLimit: 4 << 30})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.ch
}

// config gives a configuration for the server with a database of its own.
func config(t testing.TB, url string) Config {
	t.Helper()
	c := DefaultConfig()
	c.URL = url
	c.Database = fmt.Sprintf("test_%d", shared.next.Add(1))
	c.QueryTimeout = 30 * time.Second
	return c
}

// open gives a sink that is closed with the test.
func open(t testing.TB, c Config, tables ...schemas.Table) *Sink {
	t.Helper()
	if len(tables) == 0 {
		tables = sinktest.Tables()
	}
	s, err := New(c, tables)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// eachWire runs a test over HTTP and over native TCP.
func eachWire(t *testing.T, f func(t *testing.T, wire string)) {
	for _, wire := range []string{"http", "tcp"} {
		t.Run(wire, func(t *testing.T) { f(t, wire) })
	}
}

// urlOver gives the server's address over a wire.
func urlOver(ch *servers.ClickHouse, wire string) string {
	if wire == "tcp" {
		return "tcp://" + ch.TCPAddr
	}
	return ch.HTTPURL
}

// ready gives a sink on a new database with its tables, dropped with the test.
func ready(t testing.TB, tables ...schemas.Table) *Sink { return readyOver(t, "http", tables...) }

func readyOver(t testing.TB, wire string, tables ...schemas.Table) *Sink {
	t.Helper()
	c := config(t, urlOver(server(t), wire))
	s := open(t, c, tables...)
	if err := s.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.first.exec(context.Background(), "", "DROP DATABASE "+c.Database+" SYNC"); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask gives the trimmed answer of a question.
func ask(t testing.TB, s *Sink, sql string) string {
	t.Helper()
	text, err := s.Exec(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

// target shows a sink to the conformance suite. It reads back over HTTP.
type target struct {
	*Sink
	http *Sink
}

func newTarget(t testing.TB, s *Sink, httpURL string) target {
	c := s.first.config
	c.URL = httpURL
	return target{s, open(t, c)}
}

func (g target) Open(t testing.TB) pipeline.Sink { return open(t, g.first.config) }

func (g target) Parts(t testing.TB, table schemas.Table) []int64 {
	t.Helper()
	text := ask(t, g.Sink, "SELECT rows FROM system.parts WHERE active AND database = currentDatabase() AND table = '"+table.Name+"' ORDER BY rows")
	var out []int64
	for _, f := range strings.Fields(text) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Read asks for Arrow, by another way than clickhouse-go's.
func (g target) Read(t testing.TB, table schemas.Table) []arrow.Record {
	t.Helper()
	body, err := g.http.first.wire.(*httpWire).fetch(t.Context(), "SELECT "+table.ColumnNames()+" FROM "+g.first.name(table.Name)+" FORMAT ArrowStream")
	if err != nil {
		t.Fatal(err)
	}
	r, err := ipc.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	var out []arrow.Record
	for r.Next() {
		rec := r.Record()
		rec.Retain()
		out = append(out, rec)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return out
}

// fetch reads an answer of any length.
func (c *httpWire) fetch(ctx context.Context, sql string) ([]byte, error) {
	req, err := c.request(ctx, nil, strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", resp.Status, b.String())
	}
	return b.Bytes(), err
}
