package schemas

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// View is a named SELECT over the tables. Unqualified names in it mean the
// database that the view is created in.
type View struct {
	Name    string
	Select  string
	Comment string
}

// durable makes ClickHouse answer an INSERT only after the part and its folder
// are on disk. Without it an acknowledged part can be gone after a power loss
// while the ledger, which is synced, says that it landed. Both are settings of
// the table, not of the INSERT: ClickHouse has no other place for them.
//
// The deduplication window is 0 because the sink asks the table what is there
// (Sink.Probe) instead of trusting tokens, which lose rows at a crash of a server
// without replication.
var durable = []string{"fsync_after_insert=1", "fsync_part_directory=1", "non_replicated_deduplication_window=0"}

// identifier is what a name of a database, table, view or column may look like.
// Names that pass need no escaping inside backquotes.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// expression is what types, codecs, keys, indexes and settings may consist of:
// enough for ClickHouse's own forms, with nothing that ends a statement or begins
// a comment.
var expression = regexp.MustCompile(`^[A-Za-z0-9_(), .=+*/'` + "`" + `-]*$`)

// CheckIdentifier refuses a name that is no plain identifier.
//
// Errors: what is wrong with the name; kind says what the name is for.
func CheckIdentifier(kind, name string) error {
	if identifier.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%s %q: want 1 to 64 letters, digits and underscores, no digit first", kind, name)
}

// QuoteName puts a checked identifier into backquotes. A name that was not
// checked is a broken invariant.
func QuoteName(name string) string {
	if err := CheckIdentifier("name", name); err != nil {
		panic("BUG: " + err.Error())
	}
	return "`" + name + "`"
}

// QuoteString gives a ClickHouse string literal with the value of s, any bytes.
func QuoteString(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('\'')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, `\x%02X`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// Validate reports everything in the table that must not stand in a statement.
func (t Table) Validate() error {
	faults := []error{CheckIdentifier("table", t.Name)}
	check := func(what, text string) {
		if !expression.MatchString(text) || strings.Contains(text, "--") || strings.Contains(text, "/*") || strings.Count(text, "'")%2 != 0 {
			faults = append(faults, fmt.Errorf("table %q: %s %q is no plain expression", t.Name, what, text))
		}
	}
	seen := map[string]bool{}
	for _, c := range t.Columns {
		faults = append(faults, CheckIdentifier("column", c.Name))
		if seen[c.Name] {
			faults = append(faults, fmt.Errorf("table %q: column %q stands there twice", t.Name, c.Name))
		}
		seen[c.Name] = true
		check("type", c.ClickHouse)
		check("codec", c.Codec)
	}
	for _, role := range []struct{ what, column string }{{"time column", t.TimeColumn}, {"mac column", t.MACColumn}} {
		if role.column != "" && !seen[role.column] {
			faults = append(faults, fmt.Errorf("table %q: %s %q is no column", t.Name, role.what, role.column))
		}
	}
	if len(t.Columns) == 0 {
		faults = append(faults, fmt.Errorf("table %q has no columns", t.Name))
	}
	if t.OrderBy == "" {
		faults = append(faults, fmt.Errorf("table %q has no sorting key", t.Name))
	}
	check("engine", t.Engine)
	check("partition key", t.PartitionBy)
	check("sorting key", t.OrderBy)
	for _, i := range t.Indexes {
		check("index", i)
	}
	for _, s := range t.Settings {
		check("setting", s)
	}
	return errors.Join(faults...)
}

// EngineName gives the table's engine: MergeTree unless said otherwise.
func (t Table) EngineName() string {
	if t.Engine == "" {
		return "MergeTree"
	}
	return t.Engine
}

// AllSettings gives the table's settings in the order in which they are written,
// those for durability first. A setting of the table's own wins over them.
func (t Table) AllSettings() []string {
	out := make([]string, 0, len(durable)+len(t.Settings))
	for _, d := range durable {
		name, _, _ := strings.Cut(d, "=")
		if !slices.ContainsFunc(t.Settings, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			out = append(out, d)
		}
	}
	return append(out, t.Settings...)
}

// ColumnNames gives the quoted names of the columns, separated by commas.
func (t Table) ColumnNames() string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = QuoteName(c.Name)
	}
	return strings.Join(names, ", ")
}

// Structure gives names and types as the table function input() takes them,
// without the quotes around the whole.
func (t Table) Structure() string {
	parts := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		parts[i] = QuoteName(c.Name) + " " + c.ClickHouse
	}
	return strings.Join(parts, ", ")
}

// Comment is what the database says about the column: meaning, unit, source.
func (c Column) Comment() string {
	s := c.Meaning
	if c.Unit != "" {
		s += " Unit: " + c.Unit + "."
	}
	if c.Source != "" {
		s += " Source: " + c.Source + "."
	}
	return strings.TrimSpace(s)
}

// definition is the column as CREATE TABLE and ADD COLUMN write it.
func (c Column) definition() string {
	var b strings.Builder
	b.WriteString(QuoteName(c.Name) + " " + c.ClickHouse)
	if comment := c.Comment(); comment != "" {
		b.WriteString(" COMMENT " + QuoteString(comment))
	}
	if c.Codec != "" {
		b.WriteString(" CODEC(" + c.Codec + ")")
	}
	return b.String()
}

// CreateSQL gives the statement that creates the table where it is missing.
//
// Errors: what Validate reports, or a database name that is no identifier.
func (t Table) CreateSQL(database string) (string, error) {
	if err := errors.Join(CheckIdentifier("database", database), t.Validate()); err != nil {
		return "", err
	}
	t = t.Made()
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s.%s\n(\n", QuoteName(database), QuoteName(t.Name))
	for i, c := range t.Columns {
		if i > 0 {
			b.WriteString(",\n")
		}
		b.WriteString("    " + c.definition())
	}
	for _, index := range t.Indexes {
		b.WriteString(",\n    INDEX " + index)
	}
	b.WriteString("\n)\nENGINE = " + t.EngineName())
	if t.PartitionBy != "" {
		b.WriteString("\nPARTITION BY " + t.PartitionBy)
	}
	fmt.Fprintf(&b, "\nORDER BY (%s)\nSETTINGS %s", t.OrderBy, strings.Join(t.AllSettings(), ", "))
	if t.Comment != "" {
		b.WriteString("\nCOMMENT " + QuoteString(t.Comment))
	}
	return b.String(), nil
}

// CreateSQL gives the statement that creates or replaces the view.
//
// Errors: names that are no identifiers, a text that does not begin with SELECT
// or WITH.
func (v View) CreateSQL(database string) (string, error) {
	err := errors.Join(CheckIdentifier("database", database), CheckIdentifier("view", v.Name))
	head := strings.ToUpper(strings.TrimSpace(v.Select))
	if !strings.HasPrefix(head, "SELECT") && !strings.HasPrefix(head, "WITH") {
		err = errors.Join(err, fmt.Errorf("view %q does not begin with SELECT", v.Name))
	}
	if err != nil {
		return "", err
	}
	sql := fmt.Sprintf("CREATE OR REPLACE VIEW %s.%s AS\n%s", QuoteName(database), QuoteName(v.Name), v.Select)
	if v.Comment != "" {
		sql += "\nCOMMENT " + QuoteString(v.Comment)
	}
	return sql, nil
}

// FlowsReadable shows flow rows with addresses as people write them: IPv4
// dotted, IPv6 in its short form. Filter on the table flows itself where speed
// matters: its addresses are numbers.
var FlowsReadable = View{
	Name: "flows_readable",
	Select: `SELECT * REPLACE (
    replaceRegexpOne(IPv6NumToString(src_ip), '^::ffff:([0-9.]+)$', '\\1') AS src_ip,
    replaceRegexpOne(IPv6NumToString(dst_ip), '^::ffff:([0-9.]+)$', '\\1') AS dst_ip)
FROM flows`,
	Comment: "Flow rows with addresses as text, IPv4 dotted.",
}
