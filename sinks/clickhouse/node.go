package clickhouse

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/schemas"
)

// node is one server with what the sink has there.
type node struct {
	*client
	// server is what pieces record; "" for the only server of a sink that is no
	// cluster.
	server string
	place  int // in Config.Servers
	tables map[string]schemas.Table
	order  []string // names of tables as given
	nonce  string   // of this process: makes its query ids its own
	serial atomic.Uint64

	mu    sync.Mutex
	known map[string]bool // optional settings that the server has; nil before it was asked
}

// newNode connects to nothing. The configuration is valid.
func newNode(c Config, url string, who *login, tables []schemas.Table) (*node, error) {
	cl, err := newClient(c, url, who)
	if err != nil {
		return nil, err
	}
	n := &node{client: cl, tables: make(map[string]schemas.Table, len(tables))}
	if len(c.Servers) > 0 {
		n.server = cl.at.host
	}
	for _, t := range tables {
		n.tables[t.Name] = t
		n.order = append(n.order, t.Name)
	}
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("clickhouse: make query id: %w", err)
	}
	n.nonce = hex.EncodeToString(b[:])
	return n, nil
}

// table finds a table by its name.
func (s *node) table(name string) (schemas.Table, error) {
	t, ok := s.tables[name]
	if !ok {
		return t, fmt.Errorf("table %q is unknown to the sink", name)
	}
	return t, nil
}

// localSuffix tells the table that holds a server's rows from the Distributed table
// that shows those of all servers under the name people know.
const localSuffix = "_local"

// whole are the tables that every server has to itself: the fence, which each
// INSERT reads where it runs, the register of ledgers and the list of what was
// forgotten, of which each server has a copy. The rows of all others lie spread over
// the servers of a cluster.
var whole = []string{schemas.Fence.Name, schemas.Ledgers.Name, schemas.Forgotten.Name}

// spread says whether the table's rows lie on several servers.
func (s *node) spread(table string) bool {
	return s.server != "" && !slices.Contains(whole, table)
}

// local gives the table as this server holds its rows.
func (s *node) local(table string) schemas.Table {
	t := s.tables[table]
	if s.spread(table) {
		t.Name += localSuffix
	}
	return t
}

// knownAs gives the name that a local table goes by.
func (s *node) knownAs(local string) string {
	if s.server == "" {
		return local
	}
	return strings.TrimSuffix(local, localSuffix)
}

// name gives the quoted full name of the table that holds this server's rows.
func (s *node) name(table string) string {
	return s.quoted(s.local(table).Name)
}

// quoted gives the quoted full name of what the database holds.
func (s *node) quoted(name string) string {
	return schemas.QuoteName(s.config.Database) + "." + schemas.QuoteName(name)
}

// says puts the server's name before an error of a cluster.
func (s *node) says(err error) error {
	if err == nil || s.server == "" {
		return err
	}
	return fmt.Errorf("server %q: %w", s.server, err)
}
