package table

import (
	"fmt"
	"maps"
	"slices"
)

// TokenLog says what a kill inside an INSERT leaves of a deduplication token
// against the part that it stands for, in a table without replication.
type TokenLog int

// Orders of token and part.
const (
	// None keeps no tokens: servers older than 2021, and tables with a window of 0.
	None TokenLog = iota
	// TokenFirst writes the token, then the part. A kill between the two leaves a
	// token without its part: the retry is a silent no-op, the rows are lost.
	TokenFirst
	// PartFirst writes the part, then the token. A kill between the two makes the
	// retry a duplicate.
	PartFirst
	// Torn is TokenFirst with a kill in the middle of the token's record: neither is
	// there, and the records that follow are appended to the torn one, so that the
	// next restart forgets them.
	Torn
)

// Options say which server it is.
type Options struct {
	Tokens TokenLog
	// Window is how many tokens a table remembers, in blocks of one partition
	// (non_replicated_deduplication_window); 0 remembers none.
	Window int
	// Replicas are copies of every table; up to 1 means no replication. INSERTs go to
	// a replica, the others see them after Sync. Tokens are shared and survive.
	Replicas int
	// TokenLifeMS ends a token of a replicated table by age as well, in the caller's
	// milliseconds (see Now); 0 never does.
	TokenLifeMS int64
	// NoFsync leaves an acknowledged part in the page cache until Flush.
	NoFsync bool
}

// Row is the canonical text of a row; two rows are the same when their texts are.
type Row = string

// Server is one ClickHouse server, or the replicas of one table set.
type Server struct {
	options Options
	down    bool
	now     int64
	tables  map[string]*contents
	runs    []*run
	faults  []fault
}

// New gives a running server without tables.
func New(o Options) *Server {
	o.Replicas = max(o.Replicas, 1)
	s := &Server{options: o, tables: map[string]*contents{}}
	s.tables[fenceTable] = &contents{name: fenceTable}
	return s
}

// Create makes a table with the server's window, unless it is there.
func (s *Server) Create(table string) { s.CreateWindow(table, s.options.Window) }

// CreateWindow makes a table with a window of its own, unless it is there.
func (s *Server) CreateWindow(table string, window int) {
	if s.options.Tokens == None {
		window = 0
	}
	if s.tables[table] == nil {
		s.tables[table] = &contents{name: table, log: tokenLog{window: window, shared: s.replicated()}}
	}
}

// Now sets the server's time, in milliseconds; it never goes back.
func (s *Server) Now(ms int64) { s.now = max(s.now, ms) }

func (s *Server) replicated() bool { return s.options.Replicas > 1 }

// Up says whether the server answers.
func (s *Server) Up() bool { return !s.down }

func (s *Server) table(name string) (*contents, error) {
	if s.down {
		return nil, ErrDown
	}
	t := s.tables[name]
	if t == nil {
		return nil, fmt.Errorf("%w: table %q", ErrUnknownTable, name)
	}
	return t, nil
}

// sorted gives the tables in the order of their names.
func (s *Server) sorted() []*contents {
	var all []*contents
	for _, name := range slices.Sorted(maps.Keys(s.tables)) {
		all = append(all, s.tables[name])
	}
	return all
}
