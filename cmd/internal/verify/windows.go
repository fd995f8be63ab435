package verify

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// windowTable compares one table of windows with the flow rows.
type windowTable struct {
	*verifier
	cfg    window.Config
	name   string
	size   int64 // ms
	closed map[pipeline.BatchID]int64
	// begins is the first window that the table has: it was configured then.
	begins int64
	// exact says that the key can be told from the bytes alone, without enrichment.
	exact bool
}

// windows compares every table of windows over the period.
func (v *verifier) windows(ctx context.Context) error {
	for _, cfg := range v.Windows {
		t := &windowTable{verifier: v, cfg: cfg, name: cfg.Table().Name, size: cfg.Size.Milliseconds(), exact: true}
		if !v.tables[t.name] {
			v.result.note(fmt.Sprintf("table %s is not there yet: the pipeline has not run since it was configured", t.name))
			continue
		}
		for _, name := range cfg.GroupBy {
			t.exact = t.exact && schemas.Flows.Index(name) >= 0
		}
		if err := t.start(ctx); err != nil {
			return err
		}
		if t.begins == 0 {
			v.result.note(fmt.Sprintf("table %s has no row yet: it is not compared", t.name))
			continue
		}
		for hour := v.result.From; hour.Before(v.result.To); hour = hour.Add(time.Hour) {
			if err := t.hour(ctx, hour); err != nil {
				return err
			}
		}
	}
	return nil
}

// start finds where the table begins, and how far each shard has closed windows. Of a
// ledger that is not here the newest window that it wrote tells it.
func (t *windowTable) start(ctx context.Context) error {
	t.closed = map[pipeline.BatchID]int64{}
	err := t.each(ctx, t.name, "SELECT toUnixTimestamp64Milli(min(window_start)) FROM "+t.name, func(row ask.Row) error { return row.Scan(&t.begins) })
	if err != nil {
		return err
	}
	for id, a := range t.books.accounts {
		for i, s := range a.shards {
			t.closed[shardOf(pipeline.NewBatchID(id, i, 0))] = int64(s.watermark)
		}
	}
	late := t.cfg.Lateness.Milliseconds()
	for s := range t.books.last {
		t.closed[s] = 0
	}
	sql := fmt.Sprintf("SELECT bitShiftRight(batch_id, 36) AS s, toUnixTimestamp64Milli(max(window_end)) FROM %s GROUP BY s", t.name)
	return t.each(ctx, t.name, sql, func(row ask.Row) error {
		var s uint64
		var end int64
		err := row.Scan(&s, &end)
		if _, elsewhere := t.books.last[pipeline.BatchID(s)]; elsewhere {
			t.closed[pipeline.BatchID(s)] = end + late
		}
		return err
	})
}

// open gives the condition that a window, which begins at the column w, is closed in
// the shard of the column s.
func (t *windowTable) open() string {
	var keys, marks []string
	for _, s := range slices.Sorted(maps.Keys(t.closed)) {
		keys, marks = append(keys, fmt.Sprint(uint64(s))), append(marks, fmt.Sprint(t.closed[s]))
	}
	if len(keys) == 0 {
		return "1"
	}
	return fmt.Sprintf("w + %d <= transform(s, CAST([%s] AS Array(UInt64)), CAST([%s] AS Array(Int64)), toInt64(%d))",
		t.size+t.cfg.Lateness.Milliseconds(), strings.Join(keys, ","), strings.Join(marks, ","), int64(math.MaxInt64))
}

// settled is the condition that a row is of a commit that was done, and of a
// registered ledger.
func (b *books) settled() string {
	conds := []string{"1"}
	var registered []string
	for _, id := range slices.Sorted(maps.Keys(b.accounts)) {
		a := b.accounts[id]
		if a.registered {
			registered = append(registered, fmt.Sprint(id))
		}
		for i, s := range a.shards {
			conds = append(conds, fmt.Sprintf("NOT (batch_id > %d AND batch_id <= %d)", uint64(pipeline.NewBatchID(id, i, s.done)), uint64(pipeline.NewBatchID(id, i, pipeline.MaxSeq))))
		}
	}
	for _, s := range slices.Sorted(maps.Keys(b.last)) {
		conds = append(conds, fmt.Sprintf("NOT (batch_id > %d AND batch_id <= %d)", uint64(s)<<36|b.last[s], uint64(s)<<36|pipeline.MaxSeq))
	}
	if len(registered) == 0 {
		return "0"
	}
	return fmt.Sprintf("bitShiftRight(batch_id, 48) IN (%s) AND %s", strings.Join(registered, ","), strings.Join(conds, " AND "))
}

// hour compares the windows that begin in an hour.
func (t *windowTable) hour(ctx context.Context, hour time.Time) error {
	first := (hour.UnixMilli() + t.size - 1) / t.size * t.size
	behind := hour.Add(time.Hour).UnixMilli()
	if first < t.begins {
		first = t.begins
	}
	last := (behind - 1) / t.size * t.size // begins before the hour's end
	if last < first {
		return nil
	}
	if some, all := t.gone.within(t.name, first, last+t.size); all {
		return t.expireWindows(some)
	}
	if err := t.strangers(ctx, first, behind); err != nil {
		return err
	}
	full, err := t.overflowed(ctx, first, behind)
	if err != nil {
		return err
	}
	q := windowQuery{windowTable: t, first: first, behind: behind, end: last + t.size}
	if len(full) > 0 {
		q.only = "(s, w) IN (" + strings.Join(full, ",") + ")"
		if err := q.run(ctx, hour); err != nil {
			return err
		}
		q.only = "NOT " + q.only
	}
	q.keys = t.cfg.GroupBy
	return q.run(ctx, hour)
}

func (t *windowTable) expireWindows(some *gone) error {
	t.result.expire(Expired{Why: some.why, Table: t.name, Detail: some.detail})
	return nil
}

// strangers finds rows of ledgers that nobody registered.
func (t *windowTable) strangers(ctx context.Context, first, behind int64) error {
	var registered []string
	for id, a := range t.books.accounts {
		if a.registered {
			registered = append(registered, fmt.Sprint(id))
		}
	}
	if len(registered) == 0 {
		registered = []string{"0"}
	}
	sql := fmt.Sprintf("SELECT batch_id, count() FROM %s WHERE %s AND bitShiftRight(batch_id, 48) NOT IN (%s) GROUP BY batch_id ORDER BY batch_id", t.name, timeBetween("window_start", first, behind), strings.Join(registered, ","))
	return t.each(ctx, t.name, sql, func(row ask.Row) error {
		var batch, n uint64
		err := row.Scan(&batch, &n)
		if t.repairs != nil {
			t.repairs.strange = append(t.repairs.strange, strange{t.name, pipeline.BatchID(batch)})
		}
		t.result.add(Finding{
			Kind: ForeignRows, Table: t.name, Batch: batch, Count: int64(n), Repairable: true, Todo: todoRemove,
			Detail: fmt.Sprintf("ledger %d is not registered in the target", pipeline.BatchID(batch).Ledger()),
		})
		return err
	})
}

// overflowed gives the windows of shards that had no room for all keys: of them
// totals alone can be compared.
func (t *windowTable) overflowed(ctx context.Context, first, behind int64) ([]string, error) {
	var full []string
	sql := fmt.Sprintf("SELECT DISTINCT bitShiftRight(batch_id, 36) AS s, toUnixTimestamp64Milli(window_start) AS w FROM %s WHERE overflow = 1 AND %s", t.name, timeBetween("window_start", first, behind))
	err := t.each(ctx, t.name, sql, func(row ask.Row) error {
		var s uint64
		var w int64
		err := row.Scan(&s, &w)
		full = append(full, fmt.Sprintf("(%d, %d)", s, w))
		return err
	})
	return full, err
}

// windowQuery compares windows of some hour by some columns.
type windowQuery struct {
	*windowTable
	first, behind, end int64 // of windows: first <= start < behind, and all end before end
	keys               []string
	only               string // further condition on s and w
}

// sums are the counters that are compared, rows first.
func (q *windowQuery) sums() []string { return append([]string{"rows"}, q.cfg.Sums...) }

// groups is the query over both tables: one row for each shard, window and key.
func (q *windowQuery) groups() string {
	by := []string{"s", "w"}
	for i := range q.keys {
		by = append(by, fmt.Sprintf("k%d", i))
	}
	var totals, values []string
	for i := range q.sums() {
		totals, values = append(totals, fmt.Sprintf("sum(l%d) AS landed%[1]d, sum(f%[1]d) AS wanted%[1]d", i)), append(values, fmt.Sprintf("l%d", i))
	}
	return fmt.Sprintf("SELECT %s, %s, countIf(mine = 1) AS n, uniqExactIf((b, c, %s), mine = 1) AS different FROM (%s UNION ALL %s) GROUP BY %[1]s",
		strings.Join(by, ", "), strings.Join(totals, ", "), strings.Join(values, ", "), q.side(true), q.side(false))
}

// side gives the rows of the table of windows, or flow rows as if each were a row
// of its window.
func (q *windowQuery) side(mine bool) string {
	table, start, times := "flows", fmt.Sprintf("intDiv(toUnixTimestamp64Milli(time), %d) * %[1]d", q.size), timeBetween("time", q.first, q.end)
	batch, correction, flag := "toUInt64(0)", "toUInt8(0)", 0
	if mine {
		table, start, times = q.name, "toUnixTimestamp64Milli(window_start)", timeBetween("window_start", q.first, q.behind)
		batch, correction, flag = "batch_id", "correction", 1
	}
	columns := []string{"bitShiftRight(batch_id, 36) AS s", start + " AS w"}
	for i, k := range q.keys {
		columns = append(columns, fmt.Sprintf("%s AS k%d", k, i))
	}
	for i, name := range q.sums() {
		if i == 0 && !mine {
			name = "toUInt64(1)"
		}
		if mine {
			columns = append(columns, fmt.Sprintf("%s AS l%d, toUInt64(0) AS f%[2]d", name, i))
		} else {
			columns = append(columns, fmt.Sprintf("toUInt64(0) AS l%d, %s AS f%[1]d", i, name))
		}
	}
	at := "fromUnixTimestamp64Milli(w, 'UTC')"
	conds := []string{times, q.books.settled(), q.open(), q.gone.alive("flows", at), q.gone.alive(q.name, at)}
	if q.only != "" {
		conds = append(conds, q.only)
	}
	return fmt.Sprintf("SELECT %s, %s AS b, %s AS c, toUInt8(%d) AS mine FROM %s WHERE %s", strings.Join(columns, ", "), batch, correction, flag, table, strings.Join(conds, " AND "))
}

// differ is the condition that a group's totals differ.
func (q *windowQuery) differ() string {
	var conds []string
	for i := range q.sums() {
		conds = append(conds, fmt.Sprintf("landed%d != wanted%[1]d", i))
	}
	return strings.Join(conds, " OR ")
}

// run compares, and names the groups that differ.
func (q *windowQuery) run(ctx context.Context, hour time.Time) error {
	groups := q.groups()
	var all, bad uint64
	sql := fmt.Sprintf("SELECT count(), countIf(%s) FROM (%s)", q.differ(), groups)
	if err := q.each(ctx, q.name, sql, func(row ask.Row) error { return row.Scan(&all, &bad) }); err != nil {
		return err
	}
	q.result.Windows += int64(all)
	seen := map[string]bool{}
	if bad > 0 {
		if err := q.report(ctx, hour, groups, seen); err != nil {
			return err
		}
	}
	if q.keys != nil || len(q.cfg.GroupBy) == 0 {
		q.hidden(seen)
	}
	return nil
}
