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
		if !p.seen[replica] || !p.merged && p.batch != batch {
			continue
		}
		for _, r := range p.rows {
			if r.batch == batch {
				counts[p.partition]++
			}
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
		for _, r := range p.rows {
			if p.seen[0] {
				rows = append(rows, r.row)
			}
		}
	}
	slices.Sort(rows)
	return rows
}

// Parts gives the names of all parts, sorted, those without rows too.
func (s *Server) Parts(table string) []string {
	var names []string
	if t := s.tables[table]; t != nil {
		for _, p := range t.parts {
			names = append(names, p.String())
		}
	}
	slices.Sort(names)
	return names
}

// Sync lets a replica catch up with all others.
func (s *Server) Sync(replica int) {
	for _, t := range s.sorted() {
		for _, p := range t.parts {
			p.seen[replica] = true
		}
	}
}
