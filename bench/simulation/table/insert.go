package table

import "fmt"

// Part is the rows of one block that go to one partition.
type Part struct {
	Partition string
	Rows      []Row
}

// Insert is one INSERT statement.
type Insert struct {
	Query string // its id; needed for Begin only
	Table string
	Batch uint64
	// Partition and Rows are the one part of the one block of an INSERT as the sink
	// writes it.
	Partition string
	Rows      []Row
	// Blocks stand in their place when the INSERT has several blocks, or one over
	// several partitions, in the order in which their partitions first appear.
	Blocks [][]Part
	// Token deduplicates, if the table has a window; without it Content does so by
	// the rows of each block.
	Token   string
	Content bool
	// Ledger, Shard and Epoch are the fence's, which is looked at when Epoch > 0.
	Ledger uint16
	Shard  int
	Epoch  uint64
	// Single refuses blocks over several partitions, as every fenced INSERT does.
	Single bool
	// Replica that the INSERT is sent to.
	Replica int
}

// Point is a place inside an INSERT at which the server can die.
type Point int

// Points, in the order in which the INSERT passes them. Those between token and part
// come once for every part.
const (
	BeforeToken Point = iota
	BetweenTokenAndPart
	AfterPart
	BeforeAnswer
)

// full says whether a partition has too many parts, for INSERTs into any.
func (t *contents) full() bool {
	counts := map[string]int{}
	for _, p := range t.parts {
		counts[p.partition]++
		if t.limit > 0 && counts[p.partition] >= t.limit {
			return true
		}
	}
	return false
}

// run is an INSERT that has read the fence and not yet written.
type run struct {
	in Insert
}

// Insert runs a statement to its end. Each block of each partition is atomic; after
// an error other than ErrLost and ErrMemory nothing was written.
func (s *Server) Insert(in Insert) error {
	f := s.nextFault()
	if err := s.check(in, f); err != nil {
		return err
	}
	if f.doubt && !f.written {
		return f.err
	}
	s.commit(in)
	return f.err
}

// Begin starts a statement that reads the fence now and writes at End. Meanwhile
// Running lists it.
func (s *Server) Begin(in Insert) error {
	for _, r := range s.runs {
		if r.in.Query == in.Query {
			return fmt.Errorf("%w: %q", ErrQueryRuns, in.Query)
		}
	}
	f := s.nextFault()
	if err := s.check(in, f); err != nil {
		return err
	}
	if f.doubt && !f.written {
		return f.err
	}
	s.runs = append(s.runs, &run{in})
	return nil
}

// End writes what a statement began with Begin has to write and ends it.
//
// Errors: ErrDown when the server died since; its statements died with it.
func (s *Server) End(query string) error {
	in, ok := s.take(query)
	if !ok {
		return ErrDown
	}
	if _, err := s.table(in.Table); err != nil {
		return err
	}
	s.commit(in)
	return nil
}

// Cancel ends a running statement that has written nothing, as the server does when
// it sees that its client is gone.
func (s *Server) Cancel(query string) { s.take(query) }

func (s *Server) take(query string) (Insert, bool) {
	for i, r := range s.runs {
		if r.in.Query == query {
			s.runs = append(s.runs[:i:i], s.runs[i+1:]...)
			return r.in, true
		}
	}
	return Insert{}, false
}

// check is what happens before anything is written.
func (s *Server) check(in Insert, f fault) error {
	t, err := s.table(in.Table)
	if err != nil {
		return err
	}
	if f.err != nil && !f.doubt {
		return f.err
	}
	if in.Epoch > 0 && s.epoch(in.Ledger, in.Shard) > in.Epoch {
		return ErrFenced
	}
	if t.full() {
		return ErrTooManyParts
	}
	for _, block := range in.blocks() {
		if (in.Epoch > 0 || in.Single) && len(block) > 1 {
			return ErrManyPartitions
		}
	}
	return nil
}

func (in Insert) blocks() [][]Part {
	if in.Blocks != nil || len(in.Rows) == 0 {
		return in.Blocks
	}
	return [][]Part{{{in.Partition, in.Rows}}}
}

// step is one part that an INSERT writes, with its token's id.
type step struct {
	Part
	id string // "" without deduplication
}

// steps are the parts of an INSERT in the order in which they are committed. A token
// names a block by its number in the INSERT.
func (in Insert) steps() []step {
	var all []step
	for number, block := range in.blocks() {
		for _, p := range block {
			id := ""
			switch {
			case in.Token != "":
				id = fmt.Sprintf("%s\x00%d\x00%s", in.Token, number, p.Partition)
			case in.Content:
				id = fmt.Sprintf("\x00%d\x00%s\x00%q", number, p.Partition, block)
			}
			all = append(all, step{p, id})
		}
	}
	return all
}

// commit writes all parts.
func (s *Server) commit(in Insert) {
	t := s.tables[in.Table]
	for _, p := range in.steps() {
		s.write(t, in, p)
	}
}

// write writes one part with its token. A block that is known is skipped; its number
// is used up all the same.
func (s *Server) write(t *contents, in Insert, p step) {
	block := t.number()
	if !t.log.knows(p.id, s.now, s.life()) {
		t.log.add(s.token(p, block))
		s.add(t, in, p, block)
	}
}

func (s *Server) token(p step, block int64) token { return token{p.id, p.Partition, block, s.now} }

// add makes a part.
func (s *Server) add(t *contents, in Insert, p step, block int64) {
	made := &part{
		partition: p.Partition, first: block, last: block, batch: in.Batch, synced: !s.options.NoFsync,
		rows: make([]stored, len(p.Rows)), seen: make([]bool, s.options.Replicas),
	}
	for i, row := range p.Rows {
		made.rows[i] = stored{in.Batch, row}
	}
	made.seen[in.Replica%len(made.seen)] = true
	t.parts = append(t.parts, made)
}

// Writes gives the numbers of the parts, counted over all blocks, that an INSERT
// would write now: those whose tokens are not known. None when it would fail.
func (s *Server) Writes(in Insert) []int {
	c := s.Clone()
	c.faults = nil
	if c.check(in, fault{}) != nil {
		return nil
	}
	var numbers []int
	t := c.tables[in.Table]
	for i, p := range in.steps() {
		before := len(t.parts)
		if c.write(t, in, p); len(t.parts) > before {
			numbers = append(numbers, i)
		}
	}
	return numbers
}
