package table

import (
	"fmt"
	"strconv"
	"strings"
)

// fenceTable holds the epochs of shard owners.
const fenceTable = "fence"

// epoch gives the highest epoch that the server knows of a shard; 0 when none.
func (s *Server) epoch(ledger uint16, shard int) uint64 {
	var highest uint64
	prefix := fenceKey(ledger, shard)
	for _, p := range s.tables[fenceTable].parts {
		for _, row := range p.rows {
			if text, ours := strings.CutPrefix(row.row, prefix); ours {
				n, _ := strconv.ParseUint(text, 10, 64) // Written by Fence.
				highest = max(highest, n)
			}
		}
	}
	return highest
}

func fenceKey(ledger uint16, shard int) string { return fmt.Sprintf("%d/%d/", ledger, shard) }

// Fence makes every INSERT of an older epoch impossible that has not read the fence
// yet. Those that have are in Running: the caller waits until they are gone.
//
// Errors: ErrFenced when a later epoch is there; ErrDown.
func (s *Server) Fence(ledger uint16, shard int, epoch uint64) error {
	if s.down {
		return ErrDown
	}
	there := s.epoch(ledger, shard)
	if there > epoch {
		return fmt.Errorf("%w: epoch %d is there", ErrFenced, there)
	}
	if there < epoch {
		row := fenceKey(ledger, shard) + strconv.FormatUint(epoch, 10)
		s.write(s.tables[fenceTable], Insert{}, step{Part: Part{Rows: []Row{row}}})
	}
	return nil
}

// Running gives the ids of the INSERTs of the shard with a lower epoch that run, in
// the order in which they began.
func (s *Server) Running(ledger uint16, shard int, epoch uint64) []string {
	var ids []string
	for _, r := range s.runs {
		if r.in.Ledger == ledger && r.in.Shard == shard && r.in.Epoch > 0 && r.in.Epoch < epoch {
			ids = append(ids, r.in.Query)
		}
	}
	return ids
}

// Runs says whether the INSERT of that id runs.
func (s *Server) Runs(query string) bool {
	for _, r := range s.runs {
		if r.in.Query == query {
			return true
		}
	}
	return false
}
