package evidence

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/schemas"
)

// Key names one row of a table of windows, merged.
type Key struct {
	table window.Config
	start time.Time
	names []string // the group columns
	texts []string // their values
	conds []string // the same as conditions
}

// NewKey makes a key of what a person typed: the table with or without windows_ in
// front, the window's start (RFC 3339), and column=value for every group column.
//
// Errors: everything that is wrong with them, with what is wanted.
func NewKey(windows []window.Config, table, start string, pairs []string) (Key, error) {
	var k Key
	at := slices.IndexFunc(windows, func(w window.Config) bool { return w.Name == strings.TrimPrefix(table, "windows_") })
	if at < 0 {
		var names []string
		for _, w := range windows {
			names = append(names, w.Name)
		}
		return k, fmt.Errorf("--window %q: the configuration has %s", table, strings.Join(names, ", "))
	}
	k.table = windows[at]
	var err error
	if k.start, err = time.Parse(time.RFC3339, start); err != nil {
		return k, fmt.Errorf("--start %q: want the window's start like 2026-01-02T15:04:00Z", start)
	}
	if begins := k.start.Truncate(k.table.Size); !begins.Equal(k.start) {
		return k, fmt.Errorf("--start %s: windows of %v begin at %s", start, k.table.Size, begins.UTC().Format(time.RFC3339))
	}
	given := map[string]string{}
	for _, p := range pairs {
		name, value, ok := strings.Cut(p, "=")
		if _, twice := given[name]; !ok || twice || !slices.Contains(k.table.GroupBy, name) {
			return k, fmt.Errorf("--key %q: want column=value, once for each of %s", p, strings.Join(k.table.GroupBy, ", "))
		}
		given[name] = value
	}
	for _, name := range k.table.GroupBy {
		value, ok := given[name]
		if !ok {
			return k, fmt.Errorf("--key %s=... is missing: %s is grouped by %s", name, k.table.Name, strings.Join(k.table.GroupBy, ", "))
		}
		cond, err := Condition(name, value)
		if err != nil {
			return k, fmt.Errorf("--key %s: %w", name, err)
		}
		k.names, k.texts, k.conds = append(k.names, name), append(k.texts, value), append(k.conds, cond)
	}
	return k, nil
}

// Condition compares a column of flows with a value that a person typed.
func Condition(name, value string) (string, error) {
	switch t := schemas.EnrichedFlows.Columns[schemas.EnrichedFlows.Index(name)].Arrow; {
	case arrow.TypeEqual(t, schemas.Address):
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return "", fmt.Errorf("%q, want an address", value)
		}
		return fmt.Sprintf("%s = toIPv6('%s')", name, netip.AddrFrom16(a.As16())), nil
	case t.ID() == arrow.UINT8, t.ID() == arrow.UINT16, t.ID() == arrow.UINT32:
		n, err := strconv.ParseUint(value, 10, t.(arrow.FixedWidthDataType).BitWidth())
		if err != nil {
			return "", fmt.Errorf("%q, want a number of %d bits", value, t.(arrow.FixedWidthDataType).BitWidth())
		}
		return fmt.Sprintf("%s = %d", name, n), nil
	}
	return name + " = " + schemas.QuoteString(value), nil
}

// Window is what the flow rows say to a row of a table of windows.
type Window struct {
	Outcome     Outcome           `json:"outcome"`
	Table       string            `json:"table"`
	Start       time.Time         `json:"window_start"`
	End         time.Time         `json:"window_end"`
	Key         map[string]string `json:"key"`
	Cause       string            `json:"cause,omitempty"`
	Partial     uint64            `json:"partial_rows"` // of shards, and corrections; they add up
	Landed      map[string]uint64 `json:"landed"`       // rows and sums, added up over the partial rows
	Flows       map[string]uint64 `json:"flows"`        // the same over the flow rows
	Differences []Difference      `json:"differences,omitempty"`
	Hints       []string          `json:"hints,omitempty"`
}

// Window adds up the flow rows behind a window and compares; then it proves at most
// limit of them. head is called first. total is how many flow rows there are.
//
// Errors: as Address.
func (c *Checker) Window(ctx context.Context, k Key, limit int, head func(Window) error, emit func(Finding) error) (total uint64, err error) {
	w := Window{Table: "windows_" + k.table.Name, Start: k.start.UTC(), End: k.start.Add(k.table.Size).UTC(), Key: map[string]string{}}
	for i, name := range k.names {
		w.Key[name] = k.texts[i]
	}
	starts := fmt.Sprintf("window_start = fromUnixTimestamp64Milli(toInt64(%d))", k.start.UnixMilli())
	landed := strings.Join(append([]string{starts, "overflow = 0"}, k.conds...), " AND ")
	if w.Partial, w.Landed, err = c.sums(ctx, k, w.Table, "sum(rows)", landed); err != nil {
		return 0, err
	}
	flows := strings.Join(append([]string{timeBetween("time", k.start.UnixMilli(), w.End.UnixMilli())}, k.conds...), " AND ")
	if _, w.Flows, err = c.sums(ctx, k, "flows", "count()", flows); err != nil {
		return 0, err
	}
	if err := c.judge(ctx, k, &w, starts); err != nil {
		return 0, err
	}
	if err := head(w); err != nil {
		return 0, err
	}
	return c.rows(ctx, flows, "time, "+rowOrder, limit, emit)
}

// sums adds up the counters of the windows over rows of a table.
func (c *Checker) sums(ctx context.Context, k Key, table, rows, where string) (count uint64, sums map[string]uint64, err error) {
	names := append([]string{"rows"}, k.table.Sums...)
	fields := []string{"count()", "toUInt64(" + rows + ")"}
	for _, s := range k.table.Sums {
		fields = append(fields, fmt.Sprintf("sum(%s)", s))
	}
	values := make([]uint64, len(names))
	dest := []any{&count}
	for i := range values {
		dest = append(dest, &values[i])
	}
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(fields, ", "), table, where)
	if err := c.each(ctx, "table "+table, sql, func(row ask.Row) error { return row.Scan(dest...) }); err != nil {
		return 0, nil, err
	}
	sums = map[string]uint64{}
	for i, name := range names {
		sums[name] = values[i]
	}
	return count, sums, nil
}

// judge compares the window's row with the flow rows.
func (c *Checker) judge(ctx context.Context, k Key, w *Window, starts string) error {
	for _, name := range append([]string{"rows"}, k.table.Sums...) {
		if w.Landed[name] != w.Flows[name] {
			w.Differences = append(w.Differences, Difference{name, strconv.FormatUint(w.Landed[name], 10), strconv.FormatUint(w.Flows[name], 10)})
		}
	}
	switch {
	case w.Partial == 0 && w.Flows["rows"] == 0:
		w.Outcome, w.Cause = Unknown, "neither the table nor flows has a row with this key in this window"
		return c.groups(ctx, k, w, starts)
	case len(w.Differences) == 0:
		w.Outcome = Verified
		return nil
	}
	w.Outcome, w.Cause = Differs, "the flow rows do not add up to the window's row"
	var overflow uint64
	sql := fmt.Sprintf("SELECT toUInt64(sum(rows)) FROM %s WHERE %s AND overflow = 1", w.Table, starts)
	if err := c.each(ctx, "table "+w.Table, sql, func(row ask.Row) error { return row.Scan(&overflow) }); err != nil {
		return err
	}
	switch {
	case overflow > 0:
		w.Hints = append(w.Hints, fmt.Sprintf("%d rows of this window are in its overflow row, which has no key: the table was full (max_groups)", overflow))
	case w.Partial == 0:
		w.Hints = append(w.Hints, "the table has no row for it yet: a window is written when the watermark passes its end")
	default:
		w.Hints = append(w.Hints, "rows that come after a window's end add correction rows to it: try again when the pipeline has caught up")
	}
	return nil
}

// groups names some of the window's keys.
func (c *Checker) groups(ctx context.Context, k Key, w *Window, starts string) error {
	if len(k.names) == 0 {
		return nil
	}
	var fields []string
	for _, name := range k.names {
		fields = append(fields, fmt.Sprintf("'%s=' || replaceRegexpOne(toString(%[1]s), '^::ffff:([0-9.]+)$', '\\\\1')", name))
	}
	sql := fmt.Sprintf("SELECT DISTINCT concatWithSeparator(' ', '', %s) FROM %s WHERE %s AND overflow = 0 LIMIT 3", strings.Join(fields, ", "), w.Table, starts)
	return c.each(ctx, "table "+w.Table, sql, func(row ask.Row) error {
		var text string
		err := row.Scan(&text)
		w.Hints = append(w.Hints, "the window has"+text)
		return err
	})
}
