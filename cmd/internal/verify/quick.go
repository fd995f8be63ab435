package verify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// What to do, by kind.
const (
	todoRepair   = "millrace verify --repair with this period lands it again out of the blob"
	todoRemove   = "millrace verify --repair with this period removes it"
	todoBatches  = "millrace verify --repair with this period enters the range in the table batches again"
	todoBackfill = "millrace backfill lands it, once the live pipeline reads the hour no more"
	todoWindow   = "millrace verify --repair with this period makes the window's rows again"
	todoLook     = "look at it with millrace evidence; nothing can be landed again, as the bytes are not there any more"
)

// expected is what the units of a cell say.
type expected struct{ rows, quarantined, first, end int64 }

// judge compares counts of commits, and enters what differs under its place.
func (v *verifier) judge(ctx context.Context, s *slice) error {
	want := map[cell]expected{}
	for p, units := range s.units {
		for _, u := range units {
			c := cell{u.batch, p}
			e, ok := want[c]
			if !ok {
				e.first = u.offset
			}
			want[c] = expected{e.rows + u.rows, e.quarantined + u.quarantined, min(e.first, u.offset), max(e.end, u.end())}
		}
	}
	v.count(s)
	cells := map[cell]bool{}
	for c := range want {
		cells[c] = true
	}
	for c := range s.rows {
		cells[c] = true
	}
	for _, c := range slices.SortedFunc(maps.Keys(cells), compareCells) {
		e, known := want[c]
		var err error
		switch got := s.rows[c]; {
		case s.others[c]:
		case !known:
			err = v.judgeUnknown(ctx, s, c, got)
		case got != e.rows:
			err = v.judgeCounts(ctx, s, c, e, got)
		}
		if err != nil {
			return err
		}
	}
	v.judgeEntries(s, want)
	v.judgeRanges(s)
	return v.judgeAddresses(ctx, s)
}

func compareCells(a, b cell) int {
	return cmp.Or(cmp.Compare(a.blob, b.blob), cmp.Compare(a.generation, b.generation), cmp.Compare(a.batch, b.batch))
}

// count adds what the slice has to the result.
func (v *verifier) count(s *slice) {
	for _, units := range s.units {
		for _, u := range units {
			v.batches[u.batch] = true
			v.result.Filtered += u.filtered
		}
		v.result.Ranges += int64(len(units))
	}
	v.result.Blobs += int64(len(s.generations))
	for _, n := range s.rows {
		v.result.Rows += n
	}
	for _, n := range s.entries {
		v.result.Quarantined += n
	}
}

// judgeUnknown judges rows of a commit that nobody knows in this blob.
func (v *verifier) judgeUnknown(ctx context.Context, s *slice, c cell, got int64) error {
	f := Finding{Kind: UnknownCommit, Table: "flows", Blob: c.blob, Generation: c.generation, Batch: uint64(c.batch), Count: got, Repairable: true, Todo: todoBatches}
	switch v.books.standing(c.batch) {
	case pending:
		v.result.Pending.Rows += got
		return nil
	case stranger:
		f.Kind, f.Todo = ForeignRows, todoRemove
		f.Detail = fmt.Sprintf("ledger %d is not registered in the target", c.batch.Ledger())
	case settled:
		f.Detail = "its rows are there, and its byte range stands neither in the table batches nor in the ledger"
	}
	sql := fmt.Sprintf("SELECT min(record_offset), max(record_offset) FROM flows WHERE %s AND %s", c.where(), s.flows())
	err := v.each(ctx, "flows", sql, func(row ask.Row) error {
		var first, last uint64
		err := row.Scan(&first, &last)
		f.Offset, f.Length = int64(first), int64(last-first)
		return err
	})
	s.enter(c.place, f)
	return err
}

// where is the condition that a row is of the cell.
func (c cell) where() string {
	return fmt.Sprintf("batch_id = %d AND %s", uint64(c.batch), c.place.where())
}

func (p place) where() string {
	return fmt.Sprintf("blob = %s AND generation = %d", schemas.QuoteString(p.blob), p.generation)
}

func (s *slice) enter(p place, f Finding) {
	s.found[p] = append(s.found[p], f)
	if f.Table == "flows" {
		s.touched[shardOf(pipeline.BatchID(f.Batch))] = true
	}
}

// judgeCounts says of which byte ranges a commit has rows too few or too many.
func (v *verifier) judgeCounts(ctx context.Context, s *slice, c cell, e expected, got int64) error {
	if some, all := v.gone.within("flows", s.lowest, s.highest); some != nil && (got < e.rows || all) {
		v.result.expire(Expired{Why: some.why, Table: "flows", Rows: e.rows - got, Blobs: 1, Example: c.blob, Detail: some.detail})
		return nil
	}
	if v.drilled >= maxDrills || got == 0 {
		f := Finding{Kind: MissingRows, Table: "flows", Blob: c.blob, Generation: c.generation, Batch: uint64(c.batch), Offset: e.first, Length: e.end - e.first, Count: e.rows - got, Repairable: true, Todo: todoRepair}
		switch {
		case got == 0:
			f.Detail = "the table has no row of this commit in this blob"
		case got > e.rows:
			f.Kind, f.Count, f.Todo = SurplusRows, got-e.rows, todoRemove
		}
		s.enter(c.place, f)
		return nil
	}
	v.drilled++
	return v.drill(ctx, s, c)
}

// maxDrills bounds the questions about single byte ranges on the quick level; beyond
// it a finding names all that the commit read of the blob.
const maxDrills = 500

// drill counts the rows of each byte range of a cell.
func (v *verifier) drill(ctx context.Context, s *slice, c cell) error {
	var units []unit
	for _, u := range s.units[c.place] {
		if u.batch == c.batch {
			units = append(units, u)
		}
	}
	slices.SortFunc(units, func(a, b unit) int { return cmp.Compare(a.offset, b.offset) })
	type tally struct{ rows, addresses int64 }
	tallies := map[uint64]tally{}
	sql := fmt.Sprintf("SELECT %s AS u, count(), uniqExact(record_offset, ordinal) FROM flows WHERE %s GROUP BY u", unitSQL(units), c.where())
	err := v.each(ctx, "flows", sql, func(row ask.Row) error {
		var at, rows, addresses uint64
		err := row.Scan(&at, &rows, &addresses)
		tallies[at] = tally{int64(rows), int64(addresses)}
		return err
	})
	for _, u := range units {
		t := tallies[uint64(u.offset)]
		f := Finding{Table: "flows", Blob: c.blob, Generation: c.generation, Batch: uint64(c.batch), Offset: u.offset, Length: u.length, Repairable: true}
		if f.Count = u.rows - t.addresses; f.Count > 0 {
			f.Kind, f.Todo = MissingRows, todoRepair
			s.enter(c.place, f)
		}
		if f.Count = max(t.addresses-u.rows, 0) + t.rows - t.addresses; f.Count > 0 {
			f.Kind, f.Todo = SurplusRows, todoRemove
			f.Detail = fmt.Sprintf("%d of them under an address that another row has", t.rows-t.addresses)
			s.enter(c.place, f)
		}
	}
	return err
}

// unitSQL gives the offset of the unit that a row is of.
func unitSQL(units []unit) string {
	offsets := make([]string, len(units))
	for i, u := range units {
		offsets[i] = fmt.Sprint(u.offset)
	}
	return "roundDown(record_offset, CAST([" + strings.Join(offsets, ",") + "] AS Array(UInt64)))"
}

// judgeEntries compares the entries of the quarantine with what the commits counted.
func (v *verifier) judgeEntries(s *slice, want map[cell]expected) {
	all := map[cell]bool{}
	for c := range want {
		all[c] = true
	}
	for c := range s.entries {
		all[c] = true
	}
	for _, c := range slices.SortedFunc(maps.Keys(all), compareCells) {
		e, got := want[c], s.entries[c]
		f := Finding{Table: "quarantine", Blob: c.blob, Generation: c.generation, Batch: uint64(c.batch), Offset: e.first, Length: e.end - e.first, Repairable: true}
		_, known := want[c]
		switch {
		case got == e.quarantined, s.others[c], !known && (v.books.standing(c.batch) == pending || s.rows[c] > 0):
			continue
		case got < e.quarantined:
			if some, _ := v.gone.within("quarantine", s.lowest, s.highest); some != nil {
				v.result.expire(Expired{Why: some.why, Table: "quarantine", Rows: e.quarantined - got, Blobs: 1, Example: c.blob, Detail: some.detail})
				continue
			}
			f.Kind, f.Count, f.Todo = MissingQuarantine, e.quarantined-got, todoRepair
		default:
			f.Kind, f.Count, f.Todo = SurplusQuarantine, got-e.quarantined, todoRemove
		}
		s.enter(c.place, f)
	}
}

// judgeRanges looks for holes between the commits of a blob, and for bytes that two
// have.
func (v *verifier) judgeRanges(s *slice) {
	for _, p := range slices.SortedFunc(maps.Keys(s.units), comparePlaces) {
		stretches, _, overlaps := cover(s.units[p], func(u unit) bool { return v.books.replays(u.batch) })
		for _, x := range stretches {
			if x.hole {
				s.enter(p, v.gap(p, x))
			}
		}
		for _, u := range overlaps {
			s.enter(p, overlap(p, u))
		}
	}
}

func (v *verifier) gap(p place, x stretch) Finding {
	return Finding{
		Kind: Gap, Table: "batches", Blob: p.blob, Generation: p.generation, Offset: x.offset, Length: x.length, Count: x.length, Repairable: true,
		Detail: "no commit has these bytes, and commits have those before and behind them", Todo: todoRepair,
	}
}

func overlap(p place, u unit) Finding {
	return Finding{
		Kind: Overlap, Table: "batches", Blob: p.blob, Generation: p.generation, Offset: u.offset, Length: u.length, Batch: uint64(u.batch), Count: u.length,
		Detail: "another commit has some of these bytes, too: two pipelines read the blob", Todo: "find out which ledger is a copy of the other, and stop it; surplus rows are found on their own",
	}
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.blob, b.blob), cmp.Compare(a.generation, b.generation))
}

// judgeAddresses looks for addresses that several rows have, where counts do not
// tell: in two commits, or beside a row that is missing.
func (v *verifier) judgeAddresses(ctx context.Context, s *slice) error {
	sql := fmt.Sprintf(`SELECT name, generation, batch, count(), toUInt64(sum(n - 1)), groupArray(%d)((o, ordinal)) FROM (
		SELECT toString(blob) AS name, generation, record_offset AS o, ordinal, max(batch_id) AS batch, count() AS n FROM flows WHERE %s
		GROUP BY blob, generation, record_offset, ordinal HAVING n > 1
	) GROUP BY name, generation, batch ORDER BY name, generation, batch`, maxAddresses, s.flows())
	return v.each(ctx, "flows", sql, func(row ask.Row) error {
		var p place
		var batch, addresses, surplus uint64
		var at [][]any
		if err := row.Scan(&p.blob, &p.generation, &batch, &addresses, &surplus, &at); err != nil {
			return err
		}
		if slices.ContainsFunc(s.found[p], func(f Finding) bool { return f.Kind == SurplusRows && f.Batch == batch }) || v.books.standing(pipeline.BatchID(batch)) != settled {
			return nil
		}
		f := Finding{Kind: SurplusRows, Table: "flows", Blob: p.blob, Generation: p.generation, Batch: batch, Count: int64(surplus), Repairable: true, Todo: todoRemove}
		f.Detail = fmt.Sprintf("%d addresses have several rows", addresses)
		for i, t := range at {
			offset, ordinal := int64(t[0].(uint64)), int64(t[1].(uint32))
			if i == 0 {
				f.Offset = offset
			}
			f.Addresses = append(f.Addresses, p.address(offset, ordinal))
		}
		s.enter(p, f)
		return nil
	})
}

// address names a row for people. A blob's name that is none is given as it is.
func (p place) address(offset, ordinal int64) string {
	id, err := pipeline.ParseBlobID(p.blob)
	if err != nil {
		return fmt.Sprintf("%q@%d:%d:%d", p.blob, p.generation, offset, ordinal)
	}
	return reread.Address{Blob: id, Generation: p.generation, Offset: offset, Ordinal: ordinal}.String()
}
