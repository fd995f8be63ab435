package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Sink lands pieces in one ClickHouse server, or in the servers of a cluster, each
// piece in one of them. It is safe for concurrent use.
type Sink struct {
	config Config
	login  *login
	nodes  []*node // by name, so that the order of the list means nothing
	first  *node   // the first of the list: questions go there
}

var (
	_ pipeline.Sink    = (*Sink)(nil)
	_ pipeline.Planner = (*Sink)(nil)
)

// New gives a sink for the tables; the tables batches, ledgers, fence and forgotten
// are its own and added. It connects to nothing.
//
// Errors: every fault of the configuration and of the tables at once.
func New(c Config, tables []schemas.Table) (*Sink, error) {
	faults := []error{c.Validate()}
	var all []schemas.Table
	for _, t := range append(append([]schemas.Table{}, tables...), schemas.Batches, schemas.Ledgers, schemas.Fence, schemas.Forgotten) {
		if slices.ContainsFunc(all, func(o schemas.Table) bool { return o.Name == t.Name }) {
			continue
		}
		faults = append(faults, t.Validate())
		if slices.ContainsFunc(c.urls(), isNative) {
			faults = append(faults, checkNative(t))
		}
		all = append(all, t)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	who, err := newLogin(c.User, c.Password)
	if err != nil {
		return nil, err
	}
	s := &Sink{config: c, login: who}
	for i, url := range c.urls() {
		n, err := newNode(c, url, s.login, all)
		if err != nil {
			return nil, err
		}
		n.place = i
		s.nodes = append(s.nodes, n)
	}
	s.first = s.nodes[0]
	slices.SortFunc(s.nodes, func(a, b *node) int { return strings.Compare(a.server, b.server) })
	return s, nil
}

// Close drops idle connections. Calls that still run are not disturbed.
func (s *Sink) Close() error {
	var faults []error
	for _, n := range s.nodes {
		faults = append(faults, n.wire.close())
	}
	return errors.Join(faults...)
}

// Conn gives clickhouse-go's connection pool on the sink's database, for reading:
// Query, QueryRow and Select with server-side parameters. It belongs to the sink.
// Never use it to insert rows into exact tables: its deadlines end INSERTs. In a
// cluster it is the first server of the list, whose Distributed tables show all. Over
// native TCP Renew ends it: then ask for it again.
func (s *Sink) Conn() (driver.Conn, error) { return s.first.wire.reads() }

// Exec runs one statement on the sink's database and gives the answer's text
// (TabSeparated unless the statement says FORMAT). It is for people's commands and
// tests, not for rows.
func (s *Sink) Exec(ctx context.Context, sql string) (string, error) {
	text, err := s.first.execRaw(ctx, s.config.Database, sql)
	if err != nil {
		return "", fmt.Errorf("clickhouse: exec: %w", err)
	}
	return text, nil
}
