package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/bench/simulation/table"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// Tables of a script: one as the sink makes its own, and one with a window of tokens.
const (
	plain    = "plain"
	windowed = "windowed"
)

// tables gives the two, with merges in the background off: the script merges.
func tables(window int) []schemas.Table {
	t := schemas.Table{
		Name: plain,
		Columns: []schemas.Column{
			{Name: "time", Arrow: schemas.TimeMS, ClickHouse: "DateTime64(3, 'UTC')"},
			{Name: "batch_id", Arrow: arrow.PrimitiveTypes.Uint64, ClickHouse: "UInt64"},
			{Name: "v", Arrow: arrow.PrimitiveTypes.Uint64, ClickHouse: "UInt64"},
			{Name: "pad", Arrow: arrow.BinaryTypes.String, ClickHouse: "String"},
			{Name: "tail", Arrow: arrow.BinaryTypes.String, ClickHouse: "String"},
		},
		PartitionBy: "toYYYYMMDD(time)", OrderBy: "v", TimeColumn: "time",
		Settings: []string{"max_bytes_to_merge_at_max_space_in_pool=1", "max_bytes_to_merge_at_min_space_in_pool=1"},
	}
	w := t
	w.Name = windowed
	w.Settings = append(slices.Clone(t.Settings), fmt.Sprintf("non_replicated_deduplication_window=%d", window))
	return []schemas.Table{t, w}
}

// database is a script's own, on the shared server.
type database struct {
	engine *engine
	name   string
	tables []schemas.Table
	live   []string // tables that are there now
	// sink lands, fences and probes, over HTTP or native TCP; http is for everything
	// else.
	sink, http *clickhouse.Sink
	native     bool                // over native TCP
	known      *servers.ClickHouse // that the sinks know
}

func openDatabase(ctx context.Context, e *engine, name string, window int, native bool) (*database, error) {
	d := &database{engine: e, name: name, tables: tables(window), live: []string{plain, windowed}, native: native}
	if err := d.connect(); err != nil {
		return nil, err
	}
	return d, d.http.Setup(ctx, nil)
}

// connect makes the sinks.
func (d *database) connect() (err error) {
	d.known = d.engine.ch
	if d.http, err = d.open(d.known.HTTPURL); err != nil {
		return err
	}
	d.sink = d.http
	if d.native {
		d.sink, err = d.open("tcp://" + d.known.TCPAddr)
	}
	return err
}

// follow makes new sinks when the server has come back elsewhere.
func (d *database) follow() error {
	if d.known.HTTPURL == d.engine.ch.HTTPURL && d.known.TCPAddr == d.engine.ch.TCPAddr {
		return nil
	}
	return errors.Join(d.close(), d.connect())
}

// overHTTP gives the database with HTTP for everything.
func (d *database) overHTTP() *database {
	c := *d
	c.sink = c.http
	return &c
}

// close drops idle connections.
func (d *database) close() error { return errors.Join(d.sink.Close(), d.http.Close()) }

// open gives a sink on the database at an address.
func (d *database) open(url string) (*clickhouse.Sink, error) {
	c := clickhouse.DefaultConfig()
	c.URL, c.Database = url, d.name
	c.QueryTimeout = time.Minute
	return clickhouse.New(c, d.tables)
}

// drop removes the database.
func (d *database) drop(ctx context.Context) error {
	_, err := d.http.Exec(ctx, "DROP DATABASE IF EXISTS "+schemas.QuoteName(d.name)+" SYNC")
	return errors.Join(err, d.close())
}

// look gives what the server shows of the tables, in lines as view makes them.
func (d *database) look(ctx context.Context) ([]string, error) {
	var asks, names []string
	for _, t := range d.live {
		asks = append(asks, fmt.Sprintf("SELECT concat('row %s ', toString(toYYYYMMDD(time)), '/', toString(batch_id), '/', toString(v), '/', toString(length(pad))) FROM %[1]s", t))
		names = append(names, schemas.QuoteString(t))
	}
	asks = append(asks, fmt.Sprintf("SELECT concat('part ', table, ' ', name) FROM system.parts WHERE database = %s AND active AND table IN (%s)",
		schemas.QuoteString(d.name), strings.Join(append(names, "''"), ", ")))
	text, err := d.http.Exec(ctx, strings.Join(asks, " UNION ALL "))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if text == "" {
		lines = nil
	}
	slices.Sort(lines)
	return lines, nil
}

// view gives what the model shows of the tables.
func (d *database) view(m *table.Server) []string {
	var lines []string
	for _, t := range d.live {
		for _, row := range m.Rows(t) {
			lines = append(lines, "row "+t+" "+row)
		}
		for _, name := range m.Parts(t) {
			lines = append(lines, "part "+t+" "+name)
		}
	}
	slices.Sort(lines)
	return lines
}

// probe asks the sink for a batch's rows in all partitions of a table.
func (d *database) probe(ctx context.Context, table string, batch pipeline.BatchID) (map[string]int64, error) {
	refs := make([]pipeline.PieceRef, days)
	for day := range refs {
		refs[day] = ref(table, day, 1)
	}
	found, err := d.sink.Probe(ctx, batch, refs)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for day, n := range found {
		if n > 0 {
			counts[partition(day)] = n
		}
	}
	return counts, nil
}

// tokenFile gives the path of the last file of a table's token log; "" when none.
func (d *database) tokenFile(table string) string {
	files, _ := filepath.Glob(filepath.Join(d.engine.options.Dir, "data", "data", d.name, table, "deduplication_logs", "deduplication_log_*.txt"))
	last, highest := "", -1
	for _, f := range files {
		var n int
		if _, err := fmt.Sscanf(filepath.Base(f), "deduplication_log_%d.txt", &n); err == nil && n > highest {
			last, highest = f, n
		}
	}
	if last == "" {
		return ""
	}
	real, err := filepath.EvalSymlinks(last)
	if err != nil {
		return ""
	}
	return real
}

// tear cuts bytes from the last record of a table's token log.
func (d *database) tear(table string, bytes int64) error {
	path := d.tokenFile(table)
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		return err
	}
	return os.Truncate(path, info.Size()-bytes)
}

// classOf says what an error of the server is, as the sink does.
func classOf(err error) table.Class {
	var server *clickhouse.ServerError
	var dial *net.OpError
	switch {
	case err == nil:
		return table.Landed
	case errors.Is(err, pipeline.ErrFenced):
		return table.Fenced
	case errors.Is(err, pipeline.ErrTransient):
		return table.Transient
	case errors.Is(err, pipeline.ErrInDoubt):
		return table.InDoubt
	case errors.As(err, &server) && server.Code == 252 && !strings.Contains(server.Text, "partitions for single INSERT"):
		return table.Transient
	case errors.As(err, &server):
		return table.Fatal
	case errors.As(err, &dial) && dial.Op == "dial":
		return table.Transient
	case strings.HasPrefix(err.Error(), "clickhouse: exec: "):
		return table.InDoubt
	}
	return table.Fatal
}
