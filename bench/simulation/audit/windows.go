package audit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// columns gives the values that windows group by, as text.
var columns = map[string]func(Tuple) string{
	"mac":      func(t Tuple) string { return t.MAC },
	"src_ip":   func(t Tuple) string { return t.Src },
	"dst_ip":   func(t Tuple) string { return t.Dst },
	"src_port": func(t Tuple) string { return strconv.Itoa(t.SrcPort) },
	"dst_port": func(t Tuple) string { return strconv.Itoa(t.DstPort) },
	"protocol": func(t Tuple) string { return strconv.Itoa(t.Protocol) },
	"action": func(t Tuple) string {
		if t.Allowed {
			return "allowed"
		}
		return "denied"
	},
}

// Columns lists what Window.GroupBy may name, sorted.
func Columns() []string { return slices.Sorted(maps.Keys(columns)) }

// group is one group of one window, all shards and batches together.
type group struct {
	table string
	start int64
	key   string // values with a zero byte between them
}

func (g group) String() string {
	at := time.UnixMilli(g.start).UTC().Format(time.RFC3339)
	return fmt.Sprintf("%s, window of %s, group %q", g.table, at, strings.Split(g.key, "\x00"))
}

// partial is one row of a group.
type partial struct {
	group
	batch uint64
	late  bool
}

type totals struct {
	written              int // rows of the table that add up here
	rows, packets, bytes uint64
}

func (s totals) String() string {
	return fmt.Sprintf("%d rows, %d packets, %d bytes", s.rows, s.packets, s.bytes)
}

// windows counts every window again out of the tuples that were committed, places the
// counts as the recorded watermarks demand, and compares.
//
// A tuple is late when the watermark before its batch had passed the end of its window
// and the allowed lateness: it belongs to a correction row of its own batch. All
// others belong to one row of the batch whose watermark passes that end first.
func (a *auditor) windows() {
	want := a.counted()
	got := map[partial]totals{}
	for _, r := range a.book.Windows {
		p := partial{group{r.Table, r.StartMS, strings.Join(r.Key, "\x00")}, r.BatchID, r.Late}
		s := got[p]
		got[p] = totals{s.written + 1, s.rows + r.Rows, s.packets + r.Packets, s.bytes + r.Bytes}
	}
	wrong := map[group]bool{}
	merged, have := merge(want), merge(got)
	for _, g := range sortedGroups(merged, have) {
		if w, h := merged[g], have[g]; w.rows != h.rows || w.packets != h.packets || w.bytes != h.bytes {
			wrong[g] = true
			a.find(&a.verdict.Windows, "window: %s: %s, the tuples give %s", g, h, w)
		}
	}
	a.placed(want, got, wrong)
}

// placed compares row by row, where the sums are right.
func (a *auditor) placed(want, got map[partial]totals, wrong map[group]bool) {
	for _, p := range sortedPartials(want, got) {
		if wrong[p.group] {
			continue
		}
		switch w, h := want[p], got[p]; {
		case h.written > 1:
			a.find(&a.verdict.Windows, "window: %s: batch %d wrote %d rows, late %t: want one", p.group, p.batch, h.written, p.late)
		case w.rows != h.rows || w.packets != h.packets || w.bytes != h.bytes:
			a.find(&a.verdict.Windows, "window: %s: batch %d, late %t: %s, the watermarks give %s", p.group, p.batch, p.late, h, w)
		}
	}
}

func merge(rows map[partial]totals) map[group]totals {
	merged := map[group]totals{}
	for p, s := range rows {
		m := merged[p.group]
		merged[p.group] = totals{m.written + s.written, m.rows + s.rows, m.packets + s.packets, m.bytes + s.bytes}
	}
	return merged
}

// counted gives the rows that must be there.
func (a *auditor) counted() map[partial]totals {
	want := map[partial]totals{}
	for _, w := range a.book.WindowDefs {
		values := make([]func(Tuple) string, len(w.GroupBy))
		for i, name := range w.GroupBy {
			if values[i] = columns[name]; values[i] == nil {
				panic(fmt.Sprintf("BUG: the auditor knows no column %q", name))
			}
		}
		for i, t := range a.book.Written {
			s := a.unitOf[i]
			if s == nil {
				continue
			}
			key := make([]string, len(values))
			for j, value := range values {
				key[j] = value(t)
			}
			start := t.TimeMS - t.TimeMS%w.SizeMS
			p := partial{group: group{w.Table, start, strings.Join(key, "\x00")}}
			var closed bool
			if p.batch, p.late, closed = a.closing(s, start+w.SizeMS+w.LatenessMS); closed {
				m := want[p]
				want[p] = totals{1, m.rows + 1, m.packets + t.Packets, m.bytes + t.Bytes}
			} else if a.book.EndOfInput && a.book.Drained {
				a.find(&a.verdict.Windows, "window: %s: open at the end of the input, with %s", p.group, t)
			}
		}
	}
	return want
}

// closing gives the batch that writes the row for tuples of a unit in a window that
// is open until the watermark reaches end; false when that is still to come.
func (a *auditor) closing(s *span, end int64) (batch uint64, late, closed bool) {
	if end <= s.prior {
		return s.batch.ID, true, true
	}
	chain := a.chains[s.batch.Shard]
	i, _ := slices.BinarySearchFunc(chain, s.batch.Seq, func(b Batch, seq uint64) int { return cmp.Compare(b.Seq, seq) })
	for _, b := range chain[i:] {
		if b.WatermarkMS >= end {
			return b.ID, false, true
		}
	}
	return 0, false, false
}

func sortedGroups(maps ...map[group]totals) []group {
	var all []group
	for _, m := range maps {
		for g := range m {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, compareGroups)
	return slices.Compact(all)
}

func sortedPartials(maps ...map[partial]totals) []partial {
	var all []partial
	for _, m := range maps {
		for p := range m {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(x, y partial) int {
		return cmp.Or(compareGroups(x.group, y.group), cmp.Compare(x.batch, y.batch), cmp.Compare(order(x.late), order(y.late)))
	})
	return slices.Compact(all)
}

func compareGroups(x, y group) int {
	return cmp.Or(cmp.Compare(x.table, y.table), cmp.Compare(x.start, y.start), cmp.Compare(x.key, y.key))
}

func order(late bool) int {
	if late {
		return 1
	}
	return 0
}
