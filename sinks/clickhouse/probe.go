package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// probe counts the rows of pieces that were planned for the server; see Sink.Probe.
//
// One question for each table, answered from the primary key: the time range and
// the MACs of the pieces narrow it down to a few granules.
func (s *node) probe(ctx context.Context, batch pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	wrap := func(err error) error { return fmt.Errorf("probe batch %v: %w", batch, err) }
	byTable := map[string][]int{}
	for i, p := range pieces {
		byTable[p.Table] = append(byTable[p.Table], i)
	}
	counts := make([]int64, len(pieces))
	for _, name := range s.order {
		places := byTable[name]
		delete(byTable, name)
		if len(places) == 0 {
			continue
		}
		asked := pick(pieces, places)
		found, err := s.probeTable(ctx, s.tables[name], batch, asked)
		if err == nil {
			err = s.countForgotten(ctx, name, asked, found)
		}
		if err != nil {
			return nil, wrap(fmt.Errorf("table %q: %w", name, err))
		}
		for i, place := range places {
			counts[place] = found[i]
		}
	}
	for name := range byTable {
		return nil, wrap(fmt.Errorf("table %q is unknown to the sink", name))
	}
	return counts, nil
}

func pick(pieces []pipeline.PieceRef, places []int) []pipeline.PieceRef {
	out := make([]pipeline.PieceRef, len(places))
	for i, p := range places {
		out[i] = pieces[p]
	}
	return out
}

// probeTable counts the pieces of one table with one question.
func (s *node) probeTable(ctx context.Context, t schemas.Table, batch pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	if err := distinct(t, pieces); err != nil {
		return nil, err
	}
	text, err := s.exec(ctx, s.config.Database, s.probeSQL(t, batch, pieces)+" FORMAT TabSeparated", "max_query_size=67108864")
	if err != nil {
		return nil, classifyRead(err)
	}
	fields := strings.Fields(text)
	if len(fields) != len(pieces) {
		return nil, fmt.Errorf("unexpected answer %q", shorten(text))
	}
	counts := make([]int64, len(pieces))
	for i, f := range fields {
		if counts[i], err = strconv.ParseInt(f, 10, 64); err != nil {
			return nil, fmt.Errorf("unexpected answer %q", shorten(text))
		}
	}
	return counts, nil
}

// probeSQL counts each piece's rows. The outer condition repeats what the counts
// ask for, so that the primary key and the partition key see it.
func (s *node) probeSQL(t schemas.Table, batch pipeline.BatchID, pieces []pipeline.PieceRef) string {
	counts := make([]string, len(pieces))
	either := make([]string, len(pieces))
	for i, p := range pieces {
		either[i] = "(" + pieceWhere(t, p) + ")"
		counts[i] = "countIf" + either[i]
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE batch_id = %d AND (%s)",
		strings.Join(counts, ", "), s.name(t.Name), uint64(batch), strings.Join(either, " OR "))
}

// pieceWhere is the condition that a piece's rows meet within their batch.
func pieceWhere(t schemas.Table, p pipeline.PieceRef) string {
	var conds []string
	if t.TimeColumn != "" {
		conds = append(conds, fmt.Sprintf("%[1]s >= fromUnixTimestamp64Milli(toInt64(%[2]d)) AND %[1]s <= fromUnixTimestamp64Milli(toInt64(%[3]d))",
			schemas.QuoteName(t.TimeColumn), p.MinTime, p.MaxTime))
	}
	if t.MACColumn != "" && len(p.MACs) > 0 {
		quoted := make([]string, len(p.MACs))
		for i, m := range p.MACs {
			quoted[i] = schemas.QuoteString(m)
		}
		conds = append(conds, schemas.QuoteName(t.MACColumn)+" IN ("+strings.Join(quoted, ", ")+")")
	}
	if len(conds) == 0 {
		return "1"
	}
	return strings.Join(conds, " AND ")
}

// distinct refuses pieces of one table that a count could not tell apart.
func distinct(t schemas.Table, pieces []pipeline.PieceRef) error {
	for i, a := range pieces {
		for j, b := range pieces[:i] {
			if a.Rows > 0 && b.Rows > 0 && overlap(t, a, b) {
				return fmt.Errorf("BUG: pieces %d and %d cover the same times and MACs", j, i)
			}
		}
	}
	return nil
}

func overlap(t schemas.Table, a, b pipeline.PieceRef) bool {
	if t.TimeColumn != "" && (a.MaxTime < b.MinTime || b.MaxTime < a.MinTime) {
		return false
	}
	if t.MACColumn == "" || len(a.MACs) == 0 || len(b.MACs) == 0 {
		return true
	}
	return slices.ContainsFunc(a.MACs, func(m string) bool { return slices.Contains(b.MACs, m) })
}
