package verify

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/schemas"
)

// gone is a run of times whose rows of a table are expired: from <= t < to, ms UTC.
type gone struct {
	from, to int64
	why      Why
	detail   string
}

// expiries are those of each table.
type expiries map[string][]gone

// at gives what a row's time is expired by, or nil.
func (e expiries) at(table string, ms int64) *gone {
	for i := range e[table] {
		if g := &e[table][i]; ms >= g.from && ms < g.to {
			return g
		}
	}
	return nil
}

// within gives what some of the times lo <= t < hi are expired by, and whether all
// of them are.
func (e expiries) within(table string, lo, hi int64) (some *gone, all bool) {
	at := lo
	for _, g := range e[table] { // sorted by from
		if g.from < hi && g.to > lo {
			if some == nil {
				some = &g
			}
			if g.from <= at {
				at = max(at, g.to)
			}
		}
	}
	return some, some != nil && at >= hi
}

// alive is the condition that a row of the table is not expired.
func (e expiries) alive(table, column string) string {
	conds := []string{"1"}
	for _, g := range e[table] {
		conds = append(conds, "NOT ("+timeBetween(column, g.from, g.to)+")")
	}
	return strings.Join(conds, " AND ")
}

// timeBetween is the condition that lowest <= column < highest, both in ms UTC.
func timeBetween(column string, lowest, highest int64) string {
	return fmt.Sprintf("%[1]s >= fromUnixTimestamp64Milli(toInt64(%[2]d), 'UTC') AND %[1]s < fromUnixTimestamp64Milli(toInt64(%[3]d), 'UTC')", column, lowest, highest)
}

// readExpiries finds what the tables keep no longer, and what people have deleted.
func (v *verifier) readExpiries(ctx context.Context) error {
	v.gone = expiries{}
	if err := v.readTTLs(ctx); err != nil {
		return err
	}
	if !v.tables[schemas.Forgotten.Name] {
		return nil
	}
	forgotten, err := Forgotten(ctx, v.Conn)
	if err != nil {
		return err
	}
	for _, f := range forgotten {
		v.gone[f.Table] = append(v.gone[f.Table], gone{
			f.From.UnixMilli(), f.To.UnixMilli(), ByPeople,
			fmt.Sprintf("deleted by %s, told of on %s: %s", f.Who, f.Created.UTC().Format(time.DateOnly), f.Why),
		})
	}
	for _, list := range v.gone {
		slices.SortFunc(list, func(a, b gone) int { return int(a.from/1000 - b.from/1000) })
	}
	return nil
}

var ttlForm = regexp.MustCompile(`(?s) TTL (.*?)(?: SETTINGS .*)?$`)

// readTTLs asks how far back each table keeps rows.
func (v *verifier) readTTLs(ctx context.Context) error {
	found := map[string]string{}
	err := v.each(ctx, "system.tables", "SELECT name, engine_full FROM system.tables WHERE database = currentDatabase() AND position(engine_full, ' TTL ') > 0", func(row ask.Row) error {
		var name, engine string
		err := row.Scan(&name, &engine)
		if m := ttlForm.FindStringSubmatch(engine); m != nil {
			found[name] = m[1]
		}
		return err
	})
	if err != nil {
		return err
	}
	for name, ttl := range found {
		if err := v.readTTL(ctx, strings.TrimSuffix(name, "_local"), ttl); err != nil {
			v.result.note(fmt.Sprintf("table %s: its TTL %q cannot be told from here: rows that it took are called missing", name, ttl))
		}
	}
	return nil
}

// readTTL finds the time before which rows are past the table's TTL: the expression
// is computed for hours, as it is one of the table's time.
func (v *verifier) readTTL(ctx context.Context, name, ttl string) error {
	column := "time"
	if strings.HasPrefix(name, "windows_") {
		column = "window_start"
	}
	hours := int64(v.result.To.Sub(v.result.From).Hours()) + 4
	sql := fmt.Sprintf(`SELECT max(toUnixTimestamp64Milli(%[1]s)) FROM (SELECT fromUnixTimestamp64Milli(toInt64(%[2]d) + number * 3600000, 'UTC') AS %[1]s FROM numbers(%[3]d)) WHERE (%[4]s) <= now()`,
		column, v.result.From.Add(-2*time.Hour).UnixMilli(), hours, ttl)
	return v.each(ctx, "TTL of "+name, sql, func(row ask.Row) error {
		var cutoff int64
		err := row.Scan(&cutoff)
		if cutoff > 0 {
			v.gone[name] = append(v.gone[name], gone{0, cutoff, ByTTL, "TTL " + ttl})
		}
		return err
	})
}
