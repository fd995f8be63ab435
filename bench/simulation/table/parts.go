package table

import (
	"cmp"
	"fmt"
	"slices"
)

// contents is what a table holds.
type contents struct {
	name  string
	parts []*part // active ones, in the order of their commits
	log   tokenLog
	// numbers counts blocks and mutations. A start sets it to the highest one that is
	// still in use, so that numbers return.
	numbers, mutated int64
	gone             int64 // the highest number of parts that were removed
	limit            int   // of parts in a partition, where INSERTs are refused; 0 none
}

// part is one block of one partition: it is there or not, never a half.
type part struct {
	partition   string
	first, last int64 // block numbers
	level       int
	mutation    int64
	batch       uint64 // of all rows, unless it was merged: spares probes the reading
	merged      bool
	rows        []stored
	synced      bool   // the platter has it
	seen        []bool // by replica
}

// stored is a row of a part.
type stored struct {
	batch uint64
	row   Row
}

// String is what the server calls the part.
func (p *part) String() string {
	name := fmt.Sprintf("%s_%d_%d_%d", p.partition, p.first, p.last, p.level)
	if p.mutation > 0 {
		name += fmt.Sprintf("_%d", p.mutation)
	}
	return name
}

func (t *contents) number() int64 {
	t.numbers++
	return t.numbers
}

// restart counts on from the highest number that is there.
func (t *contents) restart() {
	t.numbers = t.mutated
	for _, p := range t.parts {
		t.numbers = max(t.numbers, p.last, p.mutation)
	}
}

// Remnants lets a table count on from the numbers of removed parts too, as a start
// does that finds their folders: the server removes those when it likes. It says
// whether that makes a difference. Nobody sees it but in the names of parts, and in
// which tokens go with them.
func (s *Server) Remnants(table string) bool {
	t := s.tables[table]
	if t == nil || t.gone <= t.numbers {
		return false
	}
	t.numbers = t.gone
	return true
}

// drop takes parts, and the tokens of their blocks, in the order of partitions and
// blocks: a torn token log shows it.
func (t *contents) drop(which func(*part) bool) {
	ordered := slices.SortedFunc(slices.Values(t.parts), func(a, b *part) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.first, b.first))
	})
	for _, p := range ordered {
		if which(p) {
			t.gone = max(t.gone, p.last, p.mutation)
			t.log.drop(func(k token) bool { return k.partition == p.partition && k.block >= p.first && k.block <= p.last })
		}
	}
	t.parts = slices.DeleteFunc(t.parts, which)
}

// DropPartition takes a partition's rows and their tokens, and cleans the table. A
// token whose part never came about stays, unless its block's number has been given
// away again.
func (s *Server) DropPartition(table, partition string) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	inside := func(p *part) bool { return p.partition == partition }
	t.drop(inside)
	if s.replicated() { // Keeper forgets all blocks of the partition.
		t.log.drop(func(k token) bool { return k.partition == partition })
	}
	return s.Clean(table)
}

// Truncate takes all rows and their tokens, and the memory of mutations.
func (s *Server) Truncate(table string) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.drop(func(*part) bool { return true })
	t.mutated = 0
	return nil
}

// Drop takes the whole table.
func (s *Server) Drop(table string) error {
	if _, err := s.table(table); err != nil {
		return err
	}
	delete(s.tables, table)
	return nil
}

// Delete takes the rows that the filter names (ALTER DELETE); tokens stay. A part
// that lost all its rows stays too, until Clean.
func (s *Server) Delete(table string, which func(Row) bool) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.mutated = t.number()
	for _, p := range t.parts {
		p.rows = slices.DeleteFunc(slices.Clone(p.rows), func(r stored) bool { return which(r.row) })
		p.mutation = t.mutated
	}
	return nil
}

// Clean removes parts without rows, as the server does in the background minutes
// later; with them go the tokens of their blocks.
func (s *Server) Clean(table string) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.drop(func(p *part) bool { return len(p.rows) == 0 })
	return nil
}

// CleanSome is Clean in the middle of its work: it removes only those of the parts
// without rows for which gone says so, by their names.
func (s *Server) CleanSome(table string, gone func(name string) bool) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.drop(func(p *part) bool { return len(p.rows) == 0 && gone(p.String()) })
	return nil
}

// Merge makes one part of all of a partition (OPTIMIZE FINAL).
func (s *Server) Merge(table, partition string) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	var merged *part
	var left []*part
	for _, p := range t.parts {
		switch {
		case p.partition != partition:
			left = append(left, p)
		case merged == nil:
			merged = p.clone()
		default:
			merged.first, merged.last = min(merged.first, p.first), max(merged.last, p.last)
			merged.level, merged.mutation = max(merged.level, p.level), max(merged.mutation, p.mutation)
			merged.rows = append(merged.rows, p.rows...)
			merged.synced = merged.synced && p.synced
		}
	}
	if merged != nil {
		merged.level++
		merged.merged = true
		t.parts = append(left, merged)
	}
	return nil
}

// Limit refuses INSERTs while a partition has that many parts
// (parts_to_throw_insert); 0 ends it.
func (s *Server) Limit(table string, parts int) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.limit = parts
	return nil
}

// Window changes the window of tokens while the server runs.
func (s *Server) Window(table string, window int) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.log.resize(window)
	return nil
}

// Reattach closes a table and opens it again (DETACH TABLE, ATTACH TABLE), which
// reads its files again as a start does.
func (s *Server) Reattach(table string) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.log.load()
	t.restart()
	return nil
}
