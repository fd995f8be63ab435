package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/millrace/millrace/pipeline"
)

// enterAll makes findings and repairs of what an examination found.
func (e *examination) enterAll() {
	e.enterRows(e.surplus, SurplusRows, todoRemove, "another row of the same address is as the bytes say")
	e.enterRows(e.foreign, ForeignRows, todoRemove, "the bytes have no such row")
	e.enterRows(e.altered, AlteredRows, todoRepair, "columns are not what the bytes say: see millrace evidence ADDRESS")
	var lands []tupleAt
	for _, r := range e.altered {
		lands = append(lands, r.at)
		e.change(e.x.batch, e.want[r.at].values, e.want[r.at].time, 1)
	}
	for _, m := range e.moved {
		f := e.base(AlteredRows, m.row.batch, 1)
		f.Todo = todoRepair
		f.Addresses = []string{e.place.address(m.row.at.offset, int64(m.row.at.ordinal))}
		f.Detail = fmt.Sprintf("its address was altered: the bytes have this row at %s", e.place.address(m.to.offset, int64(m.to.ordinal)))
		if m.row.at == m.to {
			f.Detail = fmt.Sprintf("its batch_id is not that of the commit that read the bytes, %v", e.x.batch)
		}
		e.found = append(e.found, f)
		e.remove(m.row)
		lands = append(lands, m.to)
		e.change(m.row.batch, m.row.values, m.row.time, -1)
		e.change(e.x.batch, e.want[m.to].values, e.want[m.to].time, 1)
	}
	e.enterUnknown()
	e.enterMissing()
	lands = append(lands, e.missing...)
	if len(lands) > 0 {
		slices.SortFunc(lands, compareTuples)
		e.plan.land = append(e.plan.land, landing{e.source.id, e.place, e.x, lands})
	}
}

// base is a finding of the stretch.
func (e *examination) base(kind Kind, batch pipeline.BatchID, n int) Finding {
	return Finding{
		Kind: kind, Table: "flows", Blob: e.place.blob, Generation: e.place.generation, Offset: e.x.offset, Length: e.x.length,
		Batch: uint64(batch), Count: int64(n), Repairable: true,
	}
}

// enterRows enters rows that are to go, by commit.
func (e *examination) enterRows(rows []held, kind Kind, todo, detail string) {
	byBatch := map[pipeline.BatchID][]held{}
	for _, r := range rows {
		byBatch[r.batch] = append(byBatch[r.batch], r)
		e.remove(r)
		e.change(r.batch, r.values, r.time, -1)
	}
	for _, id := range slices.Sorted(maps.Keys(byBatch)) {
		list := byBatch[id]
		slices.SortFunc(list, func(a, b held) int { return compareTuples(a.at, b.at) })
		f := e.base(kind, id, len(list))
		f.Todo, f.Detail = todo, detail
		for _, r := range list[:min(len(list), maxAddresses)] {
			f.Addresses = append(f.Addresses, e.place.address(r.at.offset, int64(r.at.ordinal)))
		}
		e.found = append(e.found, f)
	}
}

func (e *examination) enterMissing() {
	if e.x.hole {
		f := e.gap(e.place, e.x)
		if len(e.unknown) > 0 && len(e.missing) == 0 {
			return // the rows are there, and say which commit it was
		}
		f.Detail += fmt.Sprintf("; %d rows of theirs are not in the table", len(e.missing))
		e.found = append(e.found, f)
		return
	}
	if len(e.missing) == 0 {
		return
	}
	f := e.base(MissingRows, e.x.batch, len(e.missing))
	f.Todo = todoRepair
	for i, at := range e.missing {
		if i < maxAddresses {
			f.Addresses = append(f.Addresses, e.place.address(at.offset, int64(at.ordinal)))
		}
		e.change(e.x.batch, e.want[at].values, e.want[at].time, 1)
	}
	e.found = append(e.found, f)
}

// enterUnknown enters good rows in a hole: their commits read it, and the table
// batches has forgotten them.
func (e *examination) enterUnknown() {
	for _, u := range e.split() {
		f := e.base(UnknownCommit, u.batch, int(u.rows))
		f.Offset, f.Length, f.Todo = u.offset, u.length, todoBatches
		f.Detail = "the rows are there, and their byte range stands neither in the table batches nor in the ledger"
		e.found = append(e.found, f)
		e.plan.batches = append(e.plan.batches, batchRow{e.source.id, e.place.generation, u})
	}
}

// split parts a hole among the commits whose rows lie in it: each begins where the
// one before it ends, and a range ends with a record.
func (e *examination) split() []unit {
	var units []unit
	for id, rows := range e.unknown {
		first := slices.MinFunc(rows, func(a, b held) int { return compareTuples(a.at, b.at) })
		units = append(units, unit{batch: id, offset: first.at.offset, rows: int64(len(rows))})
	}
	slices.SortFunc(units, func(a, b unit) int { return cmp.Compare(a.offset, b.offset) })
	for i := range units {
		from, to := e.x.offset, e.x.end()
		if i > 0 {
			from = units[i-1].end()
		}
		if i+1 < len(units) {
			to = e.x.offset + int64(len(bytes.TrimRight(e.text[:units[i+1].offset-e.x.offset], ", \t\r\n")))
		}
		units[i].offset, units[i].length = from, to-from
		units[i].hash = pipeline.Hash(e.text[from-e.x.offset : to-e.x.offset])
		units[i].quarantined = e.slice.entries[cell{units[i].batch, e.place}]
		for _, u := range e.slice.units[e.place] {
			if u.batch == units[i].batch {
				units[i].quarantined -= u.quarantined
			}
		}
		units[i].quarantined = max(units[i].quarantined, 0)
	}
	return units
}

// change notes a row that windows have, or lack.
func (e *examination) change(batch pipeline.BatchID, values []string, ms int64, sign int64) {
	if values == nil || len(e.rows) >= maxChanged {
		e.overflow = true
		return
	}
	e.rows = append(e.rows, changed{batch, ms, values, sign})
}

func (e *examination) remove(r held) {
	e.plan.remove = append(e.plan.remove, removal{"flows", r.part, r.nth})
}
