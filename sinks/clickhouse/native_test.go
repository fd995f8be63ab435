package clickhouse

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// answeringServer gives the address of a server that reads something and answers each
// connection with these bytes.
func answeringServer(t *testing.T, answer []byte) string {
	t.Helper()
	return "tcp://" + pipelinetest.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1024))
		_, _ = conn.Write(answer)
	})
}

var errLogin = errors.New("transient while it runs, a fault at a start")

// What a server answers to a login: no password, no statement in any error, and
// nothing was sent, so nothing is in doubt.
func TestNativeLoginIsRefused(t *testing.T) {
	exception := func(code proto.Error, text string) []byte {
		var b proto.Buffer
		proto.ServerCodeException.Encode(&b)
		b.PutInt32(int32(code))
		b.PutString("DB::Exception")
		b.PutString("DB::Exception: " + text)
		b.PutString("")
		b.PutBool(false)
		return b.Buf
	}
	for _, c := range []struct {
		name   string
		answer []byte
		class  error // nil: fatal
		text   string
	}{
		{"wrong password", exception(codeAuthenticationFailed, "millrace: Authentication failed"), errLogin, "check user and password"},
		{"unknown database", exception(codeUnknownDatabase, "Database x does not exist"), nil, "start the pipeline again"},
		{"too many connections", exception(codeTooManyQueries, "Too many"), pipeline.ErrTransient, "Too many"},
		{"shutting down", exception(210, "NETWORK_ERROR"), pipeline.ErrTransient, "NETWORK_ERROR"},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), pipeline.ErrTransient, "native port"},
		{"hangs up", nil, pipeline.ErrTransient, "native port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := config(t, answeringServer(t, c.answer))
			conf.User, conf.Password = "millrace", secret.New(canary)
			s := open(t, conf)
			batch := pipeline.NewBatchID(1, 2, 3)
			land := func() error {
				s.first.known = map[string]bool{}
				return s.Land(t.Context(), batch, 1, remake(t, batch))
			}
			ask := func() error { s.first.known = nil; return s.CheckSettings(t.Context()) }
			for name, call := range map[string]func() error{"Land": land, "Check": ask} {
				err := call()
				class := c.class
				if class == errLogin { //nolint:errorlint // a mark of this table
					class = map[string]error{"Land": pipeline.ErrTransient}[name] // at a start it is a fault
				}
				if err == nil || errors.Is(err, pipeline.ErrInDoubt) || class == nil && errors.Is(err, pipeline.ErrTransient) || class != nil && !errors.Is(err, class) {
					t.Errorf("%s: error is %v, want class %v", name, err, class)
				} else if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "INSERT INTO") {
					t.Errorf("%s: the error holds the password or the statement: %v", name, err)
				} else if name == "Land" && !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: error is %v, want one with %q", name, err, c.text)
				}
			}
		})
	}
}

// Answers to people's questions read the same over both wires.
func TestSameTextOverBothWires(t *testing.T) {
	overHTTP := ready(t)
	c := overHTTP.first.config
	c.URL = urlOver(server(t), "tcp")
	native := open(t, c)
	for _, sql := range []string{
		"SELECT 1, -1::Int8, 18446744073709551615, 1.5, true, NULL",
		`SELECT 'a\tb\nc\\d\'e', '', 'ä', toFixedString('ab', 2)`,
		"SELECT toDateTime64('2026-11-23 01:02:03.045', 3, 'UTC'), toDateTime('2026-11-23 01:02:03', 'UTC'), toDate('2026-11-23'), toDateTime64('2026-11-23 01:02:03.045006', 6, 'UTC')",
		"SELECT toIPv6('::ffff:10.0.0.4'), toIPv6('2001:db8::1'), toIPv4('10.0.0.4'), toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')",
		"SELECT ['a','b\\'c'], [1,2], map('k', 1), (1, 'x'), [toDate('2026-11-23')], CAST(NULL AS Nullable(String)), toLowCardinality('x')",
		"SELECT toDecimal64(1.25, 2), CAST('a' AS Enum8('a' = 1))",
		"SELECT number FROM numbers(3)",
		"SELECT number, toString(number) AS s FROM numbers(3) FORMAT TabSeparated;",
		"SELECT 'a\\tb' FORMAT TabSeparatedRaw",
		"SELECT 1::UInt8 AS n, 'x' AS s, CAST(NULL AS Nullable(String)) AS z FORMAT JSONEachRow",
		"SHOW TABLES",
		"EXISTS TABLE flows",
		"CREATE TABLE IF NOT EXISTS flows (x UInt8) ENGINE = Null",
		"SELECT 1 WHERE 0",
	} {
		want, err := overHTTP.Exec(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		got, err := native.Exec(t.Context(), sql)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-HTTP +native):\n%s", sql, err, diff)
		}
	}
	for _, sql := range []string{"SELECT 1 FORMAT Parquet", "SELECT repeat('x', 1000) FROM numbers(2000)"} {
		if text, err := native.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s gave %d bytes", sql, len(text))
		}
	}
}

// Slices of longer arrays, dictionaries with values that no row has, and columns
// over one another's memory land as what they show.
func TestNativeSlicesOfRecords(t *testing.T) {
	s := readyOver(t, "tcp")
	tg := newTarget(t, s, server(t).HTTPURL)
	for i, table := range sinktest.Tables() {
		batch := pipeline.NewBatchID(1, 2, uint64(i))
		whole := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: table, Batch: batch, Seed: 7, Rows: 100})
		defer whole.Record.Release()
		part := whole
		part.Record, part.Rows = whole.Record.NewSlice(31, 78), 47
		defer part.Record.Release()
		if err := s.Land(t.Context(), batch, 1, part); err != nil {
			t.Fatal(err)
		}
		got := tg.Read(t, table)
		if diff := cmp.Diff(sinktest.Lines(part.Record), sinktest.Lines(got...)); diff != "" {
			t.Errorf("%s (-landed +read):\n%.2000s", table.Name, diff)
		}
		for _, r := range got {
			r.Release()
		}
	}
}

func TestNativeRefusesOtherTypes(t *testing.T) {
	c := config(t, "tcp://127.0.0.1:1")
	odd := schemas.Table{Name: "odd", OrderBy: "x", Columns: []schemas.Column{
		{Name: "x", Arrow: arrow.FixedWidthTypes.Boolean, ClickHouse: "Bool"},
		{Name: "at", Arrow: schemas.TimeMS, ClickHouse: "DateTime64(6, 'UTC')"},
		{Name: "list", Arrow: arrow.ListOf(arrow.PrimitiveTypes.Uint8), ClickHouse: "Array(UInt8)"},
		{Name: "good", Arrow: arrow.PrimitiveTypes.Float64, ClickHouse: "Float64"},
	}}
	_, err := New(c, []schemas.Table{odd})
	for _, column := range []string{"x", "at", "list"} {
		if err == nil || !strings.Contains(err.Error(), `column "`+column+`": no native column`) {
			t.Errorf("the error lacks column %q: %v", column, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "good") {
		t.Errorf("a good column is refused: %v", err)
	}
	c.URL = "http://127.0.0.1:1"
	if _, err := New(c, []schemas.Table{odd}); err != nil {
		t.Errorf("over HTTP the server converts: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for url, want := range map[string]address{
		"http://h":                           {host: "h:80"},
		"https://h/x":                        {host: "h:443", secure: true},
		"http://h:8123":                      {host: "h:8123"},
		"tcp://h":                            {host: "h:9000", native: true},
		"clickhouse://h:9001":                {host: "h:9001", native: true},
		"clickhouse://h?secure=true":         {host: "h:9440", native: true, secure: true},
		"tls://[::1]":                        {host: "[::1]:9440", native: true, secure: true},
		"tls://h:1/":                         {host: "h:1", native: true, secure: true},
		"ftp://h":                            {},
		"tcp://":                             {},
		"tcp://h/db":                         {},
		"http://h?user=" + canary:            {},
		"clickhouse://u:" + canary + "@h":    {},
		"clickhouse://h?password=" + canary:  {},
		"clickhouse://h:" + canary + "@x:y:": {},
		"":                                   {},
	} {
		got, err := parseAddress(url)
		got.url = nil
		switch {
		case want.host == "" && err == nil:
			t.Errorf("%q was accepted", url)
		case want.host == "" && strings.Contains(err.Error(), canary):
			t.Errorf("%q: the error repeats a secret: %v", url, err)
		case want.host != "" && (err != nil || got != want):
			t.Errorf("%q is %+v, %v, want %+v", url, got, err, want)
		}
	}
}

// TLS ends in front of the real server, as it does behind a load balancer.
func TestNativeOverTLS(t *testing.T) {
	ch := server(t)
	authority := httptest.NewTLSServer(nil)
	defer authority.Close()
	authority.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: authority.TLS.Certificates, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer client.Close()
				server, err := net.Dial("tcp", ch.TCPAddr)
				if err != nil {
					t.Error(err)
					return
				}
				defer server.Close()
				go func() {
					_, _ = io.Copy(server, client)
					_ = server.Close()
				}()
				_, _ = io.Copy(client, server)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })

	c := config(t, "tls://"+l.Addr().String())
	c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, c)
	if err := s.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	batch := pipeline.NewBatchID(1, 2, 3)
	p := remake(t, batch)
	if err := s.Land(t.Context(), batch, 1, p); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{p.PieceRef}); err != nil || n[0] != p.Rows {
		t.Errorf("probe is %v, %v, want %d", n, err, p.Rows)
	}
	if _, err := s.Exec(t.Context(), "DROP DATABASE "+c.Database); err != nil {
		t.Error(err)
	}
	hangUp(s)

	c.CAFile = ""
	strange := open(t, c)
	strange.first.known = map[string]bool{}
	for name, err := range map[string]error{
		"Land":  strange.Land(t.Context(), batch, 1, p),
		"Setup": strange.Setup(t.Context(), nil),
	} {
		if err == nil || errors.Is(err, pipeline.ErrTransient) || errors.Is(err, pipeline.ErrInDoubt) || !strings.Contains(err.Error(), "ca_file") {
			t.Errorf("%s with an unknown authority: %v, want a fatal error that names ca_file", name, err)
		}
	}
}
