package verify

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// changed is a flow row that should be there, or should not: the windows are right
// when they agree with the rows and these.
type changed struct {
	batch  pipeline.BatchID
	time   int64 // ms UTC
	values []string
	sign   int64
}

// maxChanged bounds them. Beyond it windows of the touched hours are uncertain.
const maxChanged = 50_000

// group identifies a group of windows of a shard.
func group(shard pipeline.BatchID, start int64, keys []string) string {
	return fmt.Sprintf("%d\x00%d\x00%s", uint64(shard), start, strings.Join(keys, "\x00"))
}

// delta is what changed rows add to a group's totals, modulo 2^64.
type delta struct {
	shard pipeline.BatchID
	start int64
	keys  []string
	sums  []uint64
}

// deltas adds the changed rows up by the groups of a table.
func (t *windowTable) deltas() map[string]*delta {
	out := map[string]*delta{}
	if !t.exact {
		return out
	}
	sums := append([]string{"rows"}, t.cfg.Sums...)
	for _, c := range t.changed {
		d := delta{shard: shardOf(c.batch), start: c.time / t.size * t.size, sums: make([]uint64, len(sums))}
		for _, name := range t.cfg.GroupBy {
			d.keys = append(d.keys, c.values[schemas.Flows.Index(name)])
		}
		g := group(d.shard, d.start, d.keys)
		if out[g] == nil {
			out[g] = &d
		}
		for i, name := range sums {
			n := uint64(1)
			if i > 0 {
				n, _ = strconv.ParseUint(c.values[schemas.Flows.Index(name)], 10, 64) // it was a number before it was text
			}
			out[g].sums[i] += n * uint64(c.sign)
		}
	}
	return out
}

// report enters the groups that differ and that no finding of rows explains.
func (q *windowQuery) report(ctx context.Context, hour time.Time, groups string, seen map[string]bool) error {
	keys, landed, wanted := []string{"''"}, []string{}, []string{}
	for i, name := range q.keys {
		keys = append(keys, keyText(fmt.Sprintf("k%d", i), name))
	}
	for i := range q.sums() {
		landed, wanted = append(landed, fmt.Sprintf("landed%d", i)), append(wanted, fmt.Sprintf("wanted%d", i))
	}
	deltas := q.deltas()
	sql := fmt.Sprintf("SELECT s, w, [%s] AS keys, [%s], [%s], n, different FROM (%s) WHERE %s ORDER BY w, s, keys LIMIT %d",
		strings.Join(keys, ", "), strings.Join(landed, ", "), strings.Join(wanted, ", "), groups, q.differ(), MaxFindings)
	return q.each(ctx, q.name, sql, func(row ask.Row) error {
		var s, n, different uint64
		var w int64
		var keys []string
		var landed, wanted []uint64
		if err := row.Scan(&s, &w, &keys, &landed, &wanted, &n, &different); err != nil {
			return err
		}
		keys = keys[1:]
		g := group(pipeline.BatchID(s), w, keys)
		seen[g] = true
		if d := deltas[g]; d != nil {
			for i := range wanted {
				wanted[i] += d.sums[i]
			}
		}
		if slices.Equal(landed, wanted) {
			return nil
		}
		f := q.finding(pipeline.BatchID(s), w, keys, landed, wanted)
		switch {
		case n == 0:
			f.Kind = MissingWindow
		case n > different:
			f.Kind, f.Detail = DoubledWindow, fmt.Sprintf("%d rows, %d of them different", n, different)
		}
		f.Uncertain = q.uncertain(pipeline.BatchID(s), hour)
		if f.Uncertain {
			f.Repairable = false
			f.Todo = "rows of this hour are missing or surplus, and this may follow from it: put them right first, or verify with --blobs"
		}
		q.result.add(f)
		return nil
	})
}

// uncertain says that findings of rows may be behind the difference, and that it is
// not known which rows these are.
func (q *windowQuery) uncertain(shard pipeline.BatchID, hour time.Time) bool {
	if q.knowsChanged && q.exact {
		return false
	}
	for d := -2; d <= 1; d++ {
		if q.touched[shard][hour.Add(time.Duration(d)*time.Hour)] {
			return true
		}
	}
	return false
}

// hidden enters windows that agree with rows which are wrong themselves.
func (q *windowQuery) hidden(seen map[string]bool) {
	deltas := q.deltas()
	for _, g := range slices.Sorted(maps.Keys(deltas)) {
		d := deltas[g]
		zero := !slices.ContainsFunc(d.sums, func(n uint64) bool { return n != 0 })
		if mark, known := q.closed[d.shard]; seen[g] || zero || d.start < q.first || d.start >= q.behind || known && d.start+q.size+q.cfg.Lateness.Milliseconds() > mark {
			continue
		}
		f := q.finding(d.shard, d.start, d.keys, make([]uint64, len(d.sums)), d.sums)
		f.Detail = "the window agrees with the rows that are there, and they are not what the bytes say: totals are differences"
		q.result.add(f)
	}
}

func (q *windowQuery) finding(shard pipeline.BatchID, start int64, keys []string, landed, wanted []uint64) Finding {
	id := shard << 36
	w := &Window{Start: time.UnixMilli(start).UTC(), Ledger: id.Ledger(), Shard: id.Shard(), Key: map[string]string{}, Landed: map[string]uint64{}, Wanted: map[string]uint64{}}
	for i, name := range q.keys {
		w.Key[name] = keys[i]
	}
	for i, name := range q.sums() {
		w.Landed[name], w.Wanted[name] = landed[i], wanted[i]
	}
	return Finding{
		Kind: ChangedWindow, Table: q.name, Count: int64(wanted[0]), Window: w, Todo: todoWindow,
		Repairable: q.keys != nil || len(q.cfg.GroupBy) == 0, // totals of an overflow are not
	}
}

// keyText is a key's value as text, addresses as people write them.
func keyText(column, name string) string {
	if i := schemas.Flows.Index(name); i >= 0 && arrow.TypeEqual(schemas.Flows.Columns[i].Arrow, schemas.Address) {
		return fmt.Sprintf(`replaceRegexpOne(toString(%s), '^::ffff:([0-9.]+)$', '\\1')`, column)
	}
	return "toString(" + column + ")"
}

// addressText is the same of 16 bytes.
func addressText(b []byte) string { return netip.AddrFrom16([16]byte(b)).Unmap().String() }
