package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// plan is what a repair does to the tables, as far as it is not windows: those are
// made again when the rows are right.
type plan struct {
	remove  []removal
	strange []strange
	foreign []cell // rows of flows that go by commit and blob
	land    []landing
	entries []entryLanding
	batches []batchRow
}

// removal is one row that goes.
type removal struct {
	table, part string
	nth         uint64
}

// strange are all rows of a batch of an unregistered ledger in a table.
type strange struct {
	table string
	batch pipeline.BatchID
}

// landing are rows of a stretch that land again.
type landing struct {
	blob   pipeline.BlobID
	place  place
	x      stretch
	tuples []tupleAt // sorted
}

// entryLanding are entries of the quarantine that land again.
type entryLanding struct {
	blob    pipeline.BlobID
	place   place
	x       stretch
	rejects []pipeline.Reject
}

// batchRow is a row of the table batches.
type batchRow struct {
	blob       pipeline.BlobID
	generation uint32
	unit       unit
}

func (p *plan) merge(o plan) {
	p.remove, p.land = append(p.remove, o.remove...), append(p.land, o.land...)
	p.entries, p.batches = append(p.entries, o.entries...), append(p.batches, o.batches...)
}

// Step is one thing that a repair does, for people.
type Step struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
	// Statement is what the target is told, where that is a statement.
	Statement string `json:"statement,omitempty"`
	// Text says the same of rows that land.
	Text string `json:"text,omitempty"`
}

// steps lists the plan in the order in which it is carried out.
func (p *plan) steps() []Step {
	var out []Step
	for _, d := range p.deletions() {
		out = append(out, Step{Table: d.table, Rows: d.rows, Statement: d.sql})
	}
	for _, l := range p.land {
		out = append(out, Step{Table: schemas.Flows.Name, Rows: int64(len(l.tuples)), Text: fmt.Sprintf("land %d rows of %s again, from %s%s",
			len(l.tuples), rangeText(l.x.offset, l.x.length), l.place.address(l.tuples[0].offset, int64(l.tuples[0].ordinal)), underBatch(l.x.batch))})
	}
	for _, e := range p.entries {
		out = append(out, Step{Table: schemas.Quarantine.Name, Rows: int64(len(e.rejects)), Text: fmt.Sprintf("enter %d refused pieces of %s of blob %q again%s",
			len(e.rejects), rangeText(e.x.offset, e.x.length), reread.Printable(e.place.blob), underBatch(e.x.batch))})
	}
	for _, b := range p.batches {
		out = append(out, Step{Table: schemas.Batches.Name, Rows: 1, Text: fmt.Sprintf("enter %s of blob %q again%s", rangeText(b.unit.offset, b.unit.length), b.blob, underBatch(b.unit.batch))})
	}
	return out
}

func underBatch(id pipeline.BatchID) string {
	if id == 0 {
		return ", under a commit of the repair's own"
	}
	return fmt.Sprintf(", under commit %v", id)
}

// deletion is one statement that removes rows.
type deletion struct {
	table, sql string
	rows       int64
}

// maxRemovals bounds the rows that one statement names; further ones go in the next
// round.
const maxRemovals = 200_000

// deletions names rows by the part that they are in and their place in it. A mutation
// renames every part of its partition, so there is one for each table and day, and
// those that name no part come behind. When a merge has moved rows meanwhile, a
// statement leaves them, and the next look finds them in their new part.
func (p *plan) deletions() []deletion {
	rows := slices.Clone(p.remove)
	slices.SortFunc(rows, func(a, b removal) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.day(), b.day()), cmp.Compare(a.part, b.part), cmp.Compare(a.nth, b.nth))
	})
	var out []deletion
	for i := 0; i < len(rows); {
		n := 1
		for i+n < len(rows) && n < maxRemovals && rows[i+n].table == rows[i].table && rows[i+n].day() == rows[i].day() {
			n++
		}
		out = append(out, removalsOf(rows[i:i+n]))
		first := rows[i]
		for i += n; i < len(rows) && rows[i].table == first.table && rows[i].day() == first.day(); {
			i++ // left to the next round
		}
	}
	for _, s := range p.strange {
		out = append(out, deletion{s.table, fmt.Sprintf("ALTER TABLE %s DELETE WHERE batch_id = %d SETTINGS mutations_sync = 2", schemas.QuoteName(s.table), uint64(s.batch)), 0})
	}
	for _, c := range p.foreign {
		out = append(out, deletion{schemas.Flows.Name, fmt.Sprintf("ALTER TABLE %s DELETE WHERE %s SETTINGS mutations_sync = 2", schemas.QuoteName(schemas.Flows.Name), c.where()), 0})
	}
	return out
}

// day is the partition that the row's part is of.
func (r removal) day() string {
	day, _, _ := strings.Cut(r.part, "_")
	return day
}

// removalsOf removes rows of one table and day, which are sorted.
func removalsOf(rows []removal) deletion {
	var conds []string
	for i := 0; i < len(rows); {
		var places []string
		part := rows[i].part
		for ; i < len(rows) && rows[i].part == part; i++ {
			places = append(places, fmt.Sprint(rows[i].nth))
		}
		conds = append(conds, fmt.Sprintf("_part = %s AND _part_offset IN (%s)", schemas.QuoteString(part), strings.Join(places, ",")))
	}
	return deletion{rows[0].table, fmt.Sprintf("ALTER TABLE %s DELETE IN PARTITION %s WHERE %s SETTINGS mutations_sync = 2, max_query_size = 67108864",
		schemas.QuoteName(rows[0].table), schemas.QuoteString(rows[0].day()), strings.Join(conds, " OR ")), int64(len(rows))}
}
