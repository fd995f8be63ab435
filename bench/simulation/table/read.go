package table

import "slices"

// Count gives the rows of a batch by partition, as a probe of the first replica sees
// them. A server that is down has no answer: nil.
func (s *Server) Count(table string, batch uint64) map[string]int64 {
	return s.CountAt(0, table, batch)
}

// CountAt is Count on one replica.
func (s *Server) CountAt(replica int, table string, batch uint64) map[string]int64 {
	t, err := s.table(table)
	if err != nil {
		return nil
	}
	counts := map[string]int64{}
	for _, p := range t.parts {
		if p.batch == batch && p.seen[replica] {
			counts[p.partition] += int64(len(p.rows))
		}
	}
	return counts
}

// Rows gives all rows of a table, sorted, as the first replica has them.
func (s *Server) Rows(table string) []Row {
	t := s.tables[table]
	if t == nil {
		return nil
	}
	var rows []Row
	for _, p := range t.parts {
		if p.seen[0] {
			rows = append(rows, p.rows...)
		}
	}
	slices.Sort(rows)
	return rows
}

// Parts gives the number of parts of each partition.
func (s *Server) Parts(table string) map[string]int {
	counts := map[string]int{}
	if t := s.tables[table]; t != nil {
		for _, p := range t.parts {
			counts[p.partition]++
		}
	}
	return counts
}

// Sync lets a replica catch up with all others.
func (s *Server) Sync(replica int) {
	for _, t := range s.sorted() {
		for _, p := range t.parts {
			p.seen[replica] = true
		}
	}
}

// DropPartition takes a partition's rows, and its tokens.
func (s *Server) DropPartition(table, partition string) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.parts = slices.DeleteFunc(t.parts, func(p *part) bool { return p.partition == partition })
	t.log.forget(func(k token) bool { return k.partition == partition })
	return nil
}

// Truncate takes all rows.
func (s *Server) Truncate(table string) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	t.parts = nil
	t.log.forget(func(token) bool { return true })
	return nil
}

// Delete takes the rows that the filter names (ALTER DELETE); tokens stay.
func (s *Server) Delete(table string, which func(Row) bool) error {
	t, err := s.table(table)
	if err != nil {
		return err
	}
	for _, p := range t.parts {
		p.rows = slices.DeleteFunc(p.rows, which)
	}
	t.parts = slices.DeleteFunc(t.parts, func(p *part) bool { return len(p.rows) == 0 })
	return nil
}
