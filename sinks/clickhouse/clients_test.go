package clickhouse

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// What the sink landed is read back by the clients that people use, each with its
// own protocol and decoder, and is the same everywhere.
func TestRealClientsReadTheSame(t *testing.T) {
	s := ready(t)
	native, err := ch.Open(&ch.Options{Addr: []string{server(t).TCPAddr}, Auth: ch.Auth{Database: s.first.config.Database, Username: "default"}, Compression: &ch.Compression{Method: ch.CompressionLZ4}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { native.Close() })
	overHTTP, err := s.Conn()
	if err != nil {
		t.Fatal(err)
	}
	clients := map[string]func(t *testing.T, table schemas.Table) [][]string{
		"clickhouse-go, native": func(t *testing.T, table schemas.Table) [][]string { return readDriver(t, native, table) },
		"clickhouse-go, HTTP":   func(t *testing.T, table schemas.Table) [][]string { return readDriver(t, overHTTP, table) },
		"clickhouse-connect":    func(t *testing.T, table schemas.Table) [][]string { return readPython(t, s, table) },
		"curl":                  func(t *testing.T, table schemas.Table) [][]string { return readCurl(t, s, table) },
	}
	for i, table := range sinktest.Tables() {
		batch := pipeline.NewBatchID(1, 2, uint64(i))
		p := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: table, Batch: batch, Seed: uint64(i), Rows: 50})
		defer p.Record.Release()
		if err := s.Land(t.Context(), batch, 1, p); err != nil {
			t.Fatal(err)
		}
		want := sinktest.Lines(p.Record)
		for name, read := range clients {
			t.Run(name+"/"+table.Name, func(t *testing.T) {
				if diff := cmp.Diff(want, lines(table, read(t, table))); diff != "" {
					t.Errorf("(-landed +read):\n%.3000s", diff)
				}
			})
		}
	}
}

// lines writes rows like sinktest.Lines.
func lines(table schemas.Table, rows [][]string) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		fields := make([]string, len(row))
		for j, v := range row {
			if id := table.Columns[j].Arrow.ID(); id == arrow.STRING || id == arrow.DICTIONARY {
				v = strconv.Quote(v)
			}
			fields[j] = table.Columns[j].Name + "=" + v
		}
		out[i] = strings.Join(fields, " ")
	}
	slices.Sort(out)
	return out
}

func readDriver(t *testing.T, conn driver.Conn, table schemas.Table) [][]string {
	rows, err := conn.Query(t.Context(), "SELECT "+table.ColumnNames()+" FROM "+table.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out [][]string
	for rows.Next() {
		values := make([]any, len(table.Columns))
		for i, c := range rows.ColumnTypes() {
			values[i] = reflect.New(c.ScanType()).Interface()
		}
		if err := rows.Scan(values...); err != nil {
			t.Fatal(err)
		}
		row := make([]string, len(values))
		for i, v := range values {
			row[i] = goText(reflect.ValueOf(v).Elem().Interface())
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func goText(v any) string {
	switch v := v.(type) {
	case time.Time:
		return strconv.FormatInt(v.UnixMilli(), 10)
	case net.IP:
		return hex.EncodeToString(v.To16())
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.Map {
		var pairs []string
		for _, k := range r.MapKeys() {
			pairs = append(pairs, fmt.Sprintf("%v:%v", k, r.MapIndex(k)))
		}
		slices.Sort(pairs)
		return "{" + strings.Join(pairs, ",") + "}"
	}
	return fmt.Sprint(v)
}

func readPython(t *testing.T, s *Sink, table schemas.Table) [][]string {
	u := s.first.at.url
	cmd := exec.CommandContext(t.Context(), localtest.Python(t), filepath.Join("testdata", "read_table.py"),
		u.Hostname(), u.Port(), s.first.config.Database, table.Name, table.ColumnNames())
	var errs strings.Builder
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var out [][]string
	d := json.NewDecoder(strings.NewReader(string(text)))
	for d.More() {
		var row []string
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
	return out
}

func readCurl(t *testing.T, s *Sink, table schemas.Table) [][]string {
	sql := "SELECT " + table.ColumnNames() + " FROM " + table.Name + " FORMAT JSONCompactStringsEachRow"
	text, err := exec.CommandContext(t.Context(), "curl", "-sS", "--fail-with-body", "-H", "X-ClickHouse-Database: "+s.first.config.Database,
		s.first.config.URL, "--data-binary", sql).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var out [][]string
	d := json.NewDecoder(strings.NewReader(string(text)))
	for d.More() {
		var row []string
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		for i, c := range table.Columns {
			row[i] = curlText(t, c, row[i])
		}
		out = append(out, row)
	}
	return out
}

// curlText reads what ClickHouse writes as text.
func curlText(t *testing.T, c schemas.Column, v string) string {
	switch {
	case c.ClickHouse == "IPv6":
		a, err := netip.ParseAddr(v)
		if err != nil {
			t.Fatal(err)
		}
		b := a.As16()
		return hex.EncodeToString(b[:])
	case strings.HasPrefix(c.ClickHouse, "DateTime64"):
		at, err := time.Parse("2006-01-02 15:04:05.000", v)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.FormatInt(at.UnixMilli(), 10)
	case strings.HasPrefix(c.ClickHouse, "Map"):
		pairs := strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune("{},", r) })
		slices.Sort(pairs)
		return "{" + strings.Join(pairs, ",") + "}"
	}
	return v
}

// People read addresses as they write them.
func TestReadableAddresses(t *testing.T) {
	s := ready(t)
	if err := s.Setup(t.Context(), []schemas.View{schemas.FlowsReadable}); err != nil {
		t.Fatal(err)
	}
	ask(t, s, "INSERT INTO flows (time, src_ip, dst_ip) VALUES (0, '::ffff:10.0.0.4', '2001:db8::1'), (1, '::ffff:0.0.0.0', '::'), (2, '::1', '1::ffff:1')")
	want := "10.0.0.4\t2001:db8::1\n0.0.0.0\t::\n::1\t1::ffff:1"
	if got := ask(t, s, "SELECT src_ip, dst_ip FROM flows_readable ORDER BY time"); got != want {
		t.Errorf("addresses read\n%s\nwant\n%s", got, want)
	}
	if got := ask(t, s, "SELECT IPv6NumToString(src_ip) FROM flows ORDER BY time LIMIT 1"); got != "::ffff:10.0.0.4" {
		t.Errorf("IPv6NumToString gives %s", got)
	}
}
