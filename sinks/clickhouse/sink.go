package clickhouse

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Sink lands pieces in one ClickHouse server. It is safe for concurrent use.
type Sink struct {
	client *client
	tables map[string]schemas.Table
	order  []string // names of tables as given
	nonce  string   // of this process: makes its query ids its own
	serial atomic.Uint64

	mu    sync.Mutex
	known map[string]bool // optional settings that the server has; nil before it was asked
}

var _ pipeline.Sink = (*Sink)(nil)

// New gives a sink for the tables; the tables batches, ledgers and fence are its
// own and added. It connects to nothing.
//
// Errors: every fault of the configuration and of the tables at once.
func New(c Config, tables []schemas.Table) (*Sink, error) {
	s := &Sink{tables: map[string]schemas.Table{}}
	faults := []error{c.Validate()}
	if faults[0] == nil {
		var err error
		s.client, err = newClient(c, c.URL)
		faults = append(faults, err)
	}
	for _, t := range append(append([]schemas.Table{}, tables...), schemas.Batches, schemas.Ledgers, schemas.Fence) {
		if _, twice := s.tables[t.Name]; twice {
			continue
		}
		faults = append(faults, t.Validate())
		if s.client != nil && s.client.at.native {
			faults = append(faults, checkNative(t))
		}
		s.tables[t.Name] = t
		s.order = append(s.order, t.Name)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("clickhouse: make query id: %w", err)
	}
	s.nonce = hex.EncodeToString(b[:])
	return s, nil
}

// Close drops idle connections. Calls that still run are not disturbed.
func (s *Sink) Close() error { return s.client.wire.close() }

// Conn gives clickhouse-go's connection pool on the sink's database, for reading:
// Query, QueryRow and Select with server-side parameters. It belongs to the sink.
// Never use it to insert rows into exact tables: its deadlines end INSERTs.
func (s *Sink) Conn() (driver.Conn, error) { return s.client.wire.reads() }

// Exec runs one statement on the sink's database and gives the answer's text
// (TabSeparated unless the statement says FORMAT). It is for people's commands and
// tests, not for rows.
func (s *Sink) Exec(ctx context.Context, sql string) (string, error) {
	text, err := s.client.execRaw(ctx, s.client.config.Database, sql)
	if err != nil {
		return "", fmt.Errorf("clickhouse: exec: %w", err)
	}
	return text, nil
}

// table finds a table by its name.
func (s *Sink) table(name string) (schemas.Table, error) {
	t, ok := s.tables[name]
	if !ok {
		return t, fmt.Errorf("table %q is unknown to the sink", name)
	}
	return t, nil
}

// name gives the quoted full name of a table.
func (s *Sink) name(table string) string {
	return schemas.QuoteName(s.client.config.Database) + "." + schemas.QuoteName(table)
}
