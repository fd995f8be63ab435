package verify

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/pipeline"
)

// judgeSums compares the sums of a blob, then of its stretches, then the rows of those
// that differ.
func (c *comparison) judgeSums(ctx context.Context, sums []sum) error {
	var total sum
	for _, s := range sums {
		total.add(s)
	}
	if total == c.sums[c.place] || len(c.stretches) == 0 {
		return nil
	}
	have, err := c.stretchSums(ctx)
	if err != nil {
		return err
	}
	for i, x := range c.stretches {
		if have[x.offset] == sums[i] {
			continue
		}
		text, err := c.Blobs.Range(ctx, c.source.id, x.offset, x.length)
		if err != nil {
			return c.unreadable(ctx, x, err)
		}
		if err := c.examine(ctx, i, text); err != nil {
			return err
		}
	}
	return nil
}

// stretchSums adds the table's rows up by the stretch that they lie in.
func (c *comparison) stretchSums(ctx context.Context) (map[int64]sum, error) {
	units := make([]unit, len(c.stretches))
	for i, x := range c.stretches {
		units[i] = x.unit
	}
	out := map[int64]sum{}
	sql := fmt.Sprintf("SELECT %s AS u, count(), sum(%s) FROM flows WHERE %s AND %s AND record_offset < %d AND %s AND %s GROUP BY u",
		unitSQL(units), hashSQL, c.slice.flows(), c.place.where(), endOf(c.stretches), c.books.settled(), c.gone.alive("flows", "time"))
	err := c.each(ctx, "flows", sql, func(row ask.Row) error {
		var at, n, h uint64
		err := row.Scan(&at, &n, &h)
		out[int64(at)] = sum{int64(n), h}
		return err
	})
	return out, err
}

// tupleAt is the place of a tuple in its blob.
type tupleAt struct {
	offset  int64 // of the record
	ordinal uint32
}

// wanted is a row as the bytes say it.
type wanted struct {
	row    int // of the record
	hash   uint64
	values []string // of a row that is not as wanted
	time   int64
}

// held is a row as the table has it.
type held struct {
	at     tupleAt
	batch  pipeline.BatchID
	hash   uint64
	time   int64
	part   string
	nth    uint64 // row of the part
	values []string
}

// bounds of the rows that are held against stretch i: the first and last stretch take
// those outside of all.
func (c *comparison) bounds(i int) (from, to int64) {
	x := c.stretches[i]
	if from, to = x.offset, x.end(); i == 0 {
		from = 0
	}
	return from, to
}

// examine compares the rows of one stretch one by one.
func (c *comparison) examine(ctx context.Context, i int, text []byte) error {
	x := c.stretches[i]
	rec, _ := c.decoded(x, text)
	if rec != nil {
		defer rec.Release()
	}
	want := map[tupleAt]*wanted{}
	c.want(x, rec, want)
	from, to := c.bounds(i)
	have, err := c.held(ctx, fmt.Sprintf("%s AND %s AND record_offset >= %d AND record_offset < %d AND %s AND %s",
		c.slice.flows(), c.place.where(), from, to, c.books.settled(), c.gone.alive("flows", "time")))
	if err != nil {
		return err
	}
	if have, err = c.elsewhen(ctx, x, want, have, from, to); err != nil {
		return err
	}
	e := &examination{comparison: c, x: x, text: text, rec: rec, want: want, unknown: map[pipeline.BatchID][]held{}}
	for at, list := range have {
		e.judge(at, list)
	}
	return e.finish(ctx, have)
}

// want lists what the bytes say, without what is expired.
func (c *comparison) want(x stretch, rec arrow.Record, into map[tupleAt]*wanted) {
	if rec == nil {
		return
	}
	h := newRowHasher(rec)
	for row := range int(rec.NumRows()) {
		if ms := int64(h.times[row]); c.gone.at("flows", ms) == nil {
			into[tupleAt{int64(h.offsets[row]), h.ordinal[row]}] = &wanted{row: row, hash: h.hash(row), time: ms}
		}
	}
}

// held reads rows of the table by address.
func (c *comparison) held(ctx context.Context, where string) (map[tupleAt][]held, error) {
	out := map[tupleAt][]held{}
	sql := fmt.Sprintf("SELECT batch_id, record_offset, ordinal, %s, toUnixTimestamp64Milli(time), _part, _part_offset FROM flows WHERE %s", hashSQL, where)
	err := c.each(ctx, "flows", sql, func(row ask.Row) error {
		var r held
		var batch, offset uint64
		err := row.Scan(&batch, &offset, &r.at.ordinal, &r.hash, &r.time, &r.part, &r.nth)
		r.batch, r.at.offset = pipeline.BatchID(batch), int64(offset)
		out[r.at] = append(out[r.at], r)
		return err
	})
	return out, err
}

// elsewhen adds rows of the stretch whose time was altered so far that they are not
// where they belong: they are looked for by their commit, when rows are missing.
func (c *comparison) elsewhen(ctx context.Context, x stretch, want map[tupleAt]*wanted, have map[tupleAt][]held, from, to int64) (map[tupleAt][]held, error) {
	if x.hole || len(have) >= len(want) {
		return have, nil
	}
	all, err := c.held(ctx, fmt.Sprintf("batch_id = %d AND %s AND record_offset >= %d AND record_offset < %d AND NOT (%s)", uint64(x.batch), c.place.where(), from, to, timeBetween("time", c.slice.lowest, c.slice.highest)))
	for at, rows := range all {
		have[at] = append(have[at], rows...)
	}
	return have, err
}

// examination is what the rows of one stretch come to.
type examination struct {
	*comparison
	x    stretch
	text []byte
	rec  arrow.Record
	want map[tupleAt]*wanted

	surplus, altered, foreign []held
	unknown                   map[pipeline.BatchID][]held // good rows of commits without a range
	missing                   []tupleAt
	moved                     []move
}

// move is a row that stands under another address, or another commit, than it should.
type move struct {
	row held
	to  tupleAt
}

// allowed says that a commit may have rows at an address: it read the stretch, or a
// part of it once more.
func (e *examination) allowed(r held) bool {
	if !e.x.hole && r.batch == e.x.batch {
		return true
	}
	return slices.ContainsFunc(e.legit[r.batch], func(u unit) bool { return r.at.offset >= u.offset && r.at.offset < u.end() })
}

// judge sorts the rows of one address: one good row stays.
func (e *examination) judge(at tupleAt, rows []held) {
	w := e.want[at]
	if w == nil {
		e.foreign = append(e.foreign, rows...)
		return
	}
	// The best row first: right, of a commit that may have it.
	rank := func(r held) int {
		n := 0
		if r.hash != w.hash {
			n = 2
		}
		if !e.allowed(r) {
			n++
		}
		return n
	}
	slices.SortStableFunc(rows, func(a, b held) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.batch, b.batch), cmp.Compare(a.part, b.part), cmp.Compare(a.nth, b.nth))
	})
	switch best := rows[0]; {
	case best.hash != w.hash:
		e.altered = append(e.altered, best)
	case !e.allowed(best) && e.x.hole:
		e.unknown[best.batch] = append(e.unknown[best.batch], best)
	case !e.allowed(best):
		e.foreign = append(e.foreign, rows...) // of another commit than the one that read it
		return
	}
	e.surplus = append(e.surplus, rows[1:]...)
}

// finish finds what is missing, and enters all findings of the stretch.
func (e *examination) finish(ctx context.Context, have map[tupleAt][]held) error {
	var absent []tupleAt
	foreign := map[tupleAt]bool{}
	for _, r := range e.foreign {
		foreign[r.at] = true
	}
	for at := range e.want {
		if len(have[at]) == 0 || foreign[at] {
			absent = append(absent, at)
		}
	}
	slices.SortFunc(absent, compareTuples)
	var err error
	if e.missing, err = e.reallyMissing(ctx, absent); err != nil {
		return err
	}
	if err := e.values(ctx); err != nil {
		return err
	}
	e.pairs()
	e.enterAll()
	return nil
}

func compareTuples(a, b tupleAt) int {
	return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.ordinal, b.ordinal))
}

// reallyMissing leaves out what is in quarantine, having been refused before a newer
// decoder, and what filters left out.
func (e *examination) reallyMissing(ctx context.Context, absent []tupleAt) ([]tupleAt, error) {
	if len(absent) == 0 {
		return nil, nil
	}
	whole, tuples, ranges := map[int64]bool{}, map[tupleAt]bool{}, []unit{}
	sql := fmt.Sprintf("SELECT toString(scope), record_offset, ordinal, length FROM quarantine WHERE %s AND %s AND record_offset < %d AND record_offset + length > %d",
		timeBetween("time", e.slice.lowest, e.slice.highest), e.place.where(), e.x.end(), e.x.offset)
	err := e.each(ctx, "quarantine", sql, func(row ask.Row) error {
		var scope string
		var offset, length uint64
		var ordinal uint32
		err := row.Scan(&scope, &offset, &ordinal, &length)
		switch scope {
		case "tuple":
			tuples[tupleAt{int64(offset), ordinal}] = true
		case "record":
			whole[int64(offset)] = true
		default:
			ranges = append(ranges, unit{offset: int64(offset), length: int64(length)})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(absent, func(at tupleAt) bool {
		return tuples[at] || whole[at.offset] || slices.ContainsFunc(ranges, func(u unit) bool { return at.offset >= u.offset && at.offset < u.end() })
	})
	if e.x.filtered == 0 || len(left) == 0 {
		return left, nil
	}
	if int64(len(left)) <= e.x.filtered {
		return nil, nil
	}
	kept, err := e.filtered(e.x, e.rec)
	if err != nil || kept == nil {
		e.notes = append(e.notes, fmt.Sprintf("blob %q, bytes %d to %d: %d rows are not there, and filters left out %d: which ones is not known any more", e.place.blob, e.x.offset, e.x.end()-1, len(left), e.x.filtered))
		return left, err
	}
	return slices.DeleteFunc(left, func(at tupleAt) bool { return !kept[e.want[at].row] }), nil
}

// values reads the values of rows that are not as they should be, for the windows that
// they are part of.
func (e *examination) values(ctx context.Context) error {
	bad := map[tupleAt]bool{}
	for _, list := range [][]held{e.surplus, e.altered, e.foreign} {
		for _, r := range list {
			bad[r.at] = true
		}
	}
	type where struct {
		part string
		nth  uint64
	}
	found := map[where][]string{}
	for some := range slices.Chunk(slices.SortedFunc(maps.Keys(bad), compareTuples), 1000) {
		in := make([]byte, 0, 32*len(some))
		for i, at := range some {
			if i > 0 {
				in = append(in, ',')
			}
			in = fmt.Appendf(in, "(%d,%d)", at.offset, at.ordinal)
		}
		sql := fmt.Sprintf("SELECT _part, _part_offset, %s FROM flows WHERE %s AND (record_offset, ordinal) IN (%s)", valuesSQL, e.place.where(), bytes.TrimSpace(in))
		err := e.each(ctx, "flows", sql, func(row ask.Row) error {
			var w where
			var values []string
			err := row.Scan(&w.part, &w.nth, &values)
			found[w] = values
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, list := range [][]held{e.surplus, e.altered, e.foreign} {
		for i := range list {
			list[i].values = found[where{list[i].part, list[i].nth}]
		}
	}
	for _, at := range e.missing {
		e.want[at].values = valuesOf(e.rec, e.want[at].row)
	}
	for _, r := range e.altered {
		e.want[r.at].values = valuesOf(e.rec, e.want[r.at].row)
	}
	return nil
}

// pairs takes foreign rows together with the missing ones that they were.
func (e *examination) pairs() {
	byValues := map[string][]tupleAt{}
	for _, at := range e.missing {
		k := valueKey(e.want[at].values)
		byValues[k] = append(byValues[k], at)
	}
	taken := map[tupleAt]bool{}
	e.foreign = slices.DeleteFunc(e.foreign, func(r held) bool {
		list := byValues[valueKey(r.values)]
		if len(list) == 0 {
			return false
		}
		at := list[0]
		if slices.Contains(list, r.at) {
			at = r.at
		}
		byValues[valueKey(r.values)] = slices.DeleteFunc(list, func(o tupleAt) bool { return o == at })
		taken[at] = true
		e.moved = append(e.moved, move{r, at})
		return true
	})
	e.missing = slices.DeleteFunc(e.missing, func(at tupleAt) bool { return taken[at] })
}

// valueKey is what a row says, without its address.
func valueKey(values []string) string {
	if values == nil {
		return ""
	}
	return strings.Join(values[:generationAt], "\x00")
}
