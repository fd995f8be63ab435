package schemas

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Existing is a table as the server describes it in system.tables and
// system.columns.
type Existing struct {
	Engine       string
	EngineFull   string // with keys and settings, as SHOW CREATE TABLE prints them
	PartitionKey string
	SortingKey   string
	Comment      string
	Columns      []ExistingColumn // in the table's order
}

// ExistingColumn is one column of an existing table.
type ExistingColumn struct {
	Name    string
	Type    string
	Comment string
	// Default is the kind of default: "", DEFAULT, MATERIALIZED, ALIAS, EPHEMERAL.
	Default string
}

// MigrateSQL compares the table with what exists and gives the statements that
// bring it up to date: missing columns, comments, durability. It never drops or
// rewrites anything; codecs and further columns are the operator's business.
//
// Errors: everything that cannot be brought together, each with want and have.
func (t Table) MigrateSQL(database string, have Existing) ([]string, error) {
	if err := errors.Join(CheckIdentifier("database", database), t.Validate()); err != nil {
		return nil, err
	}
	t = t.Made()
	if err := t.incompatible(have); err != nil {
		return nil, err
	}
	name := QuoteName(database) + "." + QuoteName(t.Name)
	var out []string
	at := map[string]ExistingColumn{}
	for _, c := range have.Columns {
		at[c.Name] = c
	}
	for i, c := range t.Columns {
		old, there := at[c.Name]
		switch {
		case !there && i == 0:
			out = append(out, fmt.Sprintf("ALTER TABLE %s ADD COLUMN IF NOT EXISTS %s FIRST", name, c.definition()))
		case !there:
			out = append(out, fmt.Sprintf("ALTER TABLE %s ADD COLUMN IF NOT EXISTS %s AFTER %s", name, c.definition(), QuoteName(t.Columns[i-1].Name)))
		case old.Comment != c.Comment():
			out = append(out, fmt.Sprintf("ALTER TABLE %s COMMENT COLUMN %s %s", name, QuoteName(c.Name), QuoteString(c.Comment())))
		}
	}
	if have.Comment != t.Comment {
		out = append(out, fmt.Sprintf("ALTER TABLE %s MODIFY COMMENT %s", name, QuoteString(t.Comment)))
	}
	for _, s := range t.AllSettings() {
		if key, value, _ := strings.Cut(s, "="); settingOf(have.EngineFull, key) != value {
			out = append(out, fmt.Sprintf("ALTER TABLE %s MODIFY SETTING %s", name, s))
		}
	}
	return out, nil
}

// incompatible names everything that no ALTER of ours can mend.
func (t Table) incompatible(have Existing) error {
	var faults []error
	differs := func(what, want, is string) {
		if squeeze(want) != squeeze(is) {
			faults = append(faults, fmt.Errorf("table %q: %s is %q, want %q", t.Name, what, is, want))
		}
	}
	differs("engine", t.EngineName(), have.Engine)
	differs("partition key", t.PartitionBy, have.PartitionKey)
	differs("sorting key", t.OrderBy, have.SortingKey)
	for _, c := range have.Columns {
		i := t.Index(c.Name)
		switch {
		case i < 0:
			// A column of the operator's own takes its default.
		case c.Default != "":
			faults = append(faults, fmt.Errorf("table %q: column %q is %s, want a stored column without a default", t.Name, c.Name, c.Default))
		default:
			differs(fmt.Sprintf("type of column %q", c.Name), t.Columns[i].ClickHouse, c.Type)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	faults = append(faults, fmt.Errorf("table %q: rename it away (RENAME TABLE) and start again, or use another database", t.Name))
	return errors.Join(faults...)
}

// squeeze drops what ClickHouse may print differently: blanks, backquotes, and
// parentheses around a single name.
func squeeze(s string) string {
	if inner, ok := strings.CutPrefix(s, "("); ok && strings.HasSuffix(inner, ")") && !strings.ContainsAny(inner[:len(inner)-1], "(),") {
		s = inner[:len(inner)-1]
	}
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '`' || r == '\n' {
			return -1
		}
		return r
	}, s)
}

var settingPair = regexp.MustCompile(`([a-z_0-9]+) = ('[^']*'|[^,\s]+)`)

// settingOf reads one setting out of a table's full engine text; "" when it is
// not set there.
func settingOf(engineFull, key string) string {
	_, settings, _ := strings.Cut(engineFull, "SETTINGS ")
	pairs := settingPair.FindAllStringSubmatch(settings, -1)
	i := slices.IndexFunc(pairs, func(p []string) bool { return p[1] == key })
	if i < 0 {
		return ""
	}
	return strings.Trim(pairs[i][2], "'")
}
