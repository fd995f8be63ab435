package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace/millrace/schemas"
)

// MinVersion is the oldest ClickHouse whose settings this package knows. Tests run
// on 26.7.
const MinVersion = "25.8"

// CheckSettings asserts at start what exactly-once needs of the servers, the user
// and the tables, after Setup. It changes nothing.
//
// Errors: every fault at once, each with its remedy; ErrTransient when a server is
// not there.
func (s *Sink) CheckSettings(ctx context.Context) error {
	return s.each(func(_ int, n *node) error {
		return n.check(ctx, n.checkVersion, n.checkSettings, n.checkRights, n.checkTables, n.checkDistributed, n.checkViews)
	})
}

// Examine asserts what CheckSettings does, but before Setup: of tables that are not
// there, or lack columns, it asks whether Setup may make them. It changes nothing.
//
// Errors: as CheckSettings.
func (s *Sink) Examine(ctx context.Context) error {
	return s.each(func(_ int, n *node) error {
		return n.check(ctx, n.examinations()...)
	})
}

// Examined is what Examine found at one server.
type Examined struct {
	Place  int     // in Config.Servers; 0 for Config.URL
	Faults []error // each with its remedy
	Err    error   // the server does not answer
}

// ExamineServers is Examine, told apart by servers, in the order of the list.
func (s *Sink) ExamineServers(ctx context.Context) []Examined {
	all := make([]Examined, len(s.nodes))
	var wg sync.WaitGroup
	for _, n := range s.nodes {
		wg.Go(func() {
			faults, err := n.faults(ctx, n.examinations()...)
			all[n.place] = Examined{n.place, faults, err}
		})
	}
	wg.Wait()
	return all
}

type examination = func(context.Context) ([]error, error)

func (s *node) examinations() []examination {
	return []examination{s.checkVersion, s.checkSettings, s.checkRights, s.examineTables, s.checkShards, s.checkViews}
}

func (s *node) check(ctx context.Context, checks ...examination) error {
	faults, err := s.faults(ctx, checks...)
	if err != nil {
		return fmt.Errorf("check the server: %w", err)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("check the server:\n%w", err)
	}
	return nil
}

// faults gives those of all checks, each once.
//
// Errors: the server does not answer.
func (s *node) faults(ctx context.Context, checks ...examination) ([]error, error) {
	var faults []error
	for _, check := range checks {
		found, err := check(ctx)
		if err != nil {
			if class := classifyRead(err); codeOf(err) == 0 || busy[codeOf(err)] {
				return nil, class
			}
			found = append(found, classifyRead(err)) // The server refuses the question: a fault too.
		}
		for _, f := range found {
			if !slices.ContainsFunc(faults, func(old error) bool { return old.Error() == f.Error() }) {
				faults = append(faults, f) // A user who may do nothing fails each check alike.
			}
		}
	}
	return faults, nil
}

func (s *node) checkVersion(ctx context.Context) ([]error, error) {
	text, err := s.exec(ctx, "", "SELECT version() FORMAT TabSeparated")
	if err != nil {
		return nil, err
	}
	if version := strings.TrimSpace(text); olderThan(version, MinVersion) {
		return []error{fmt.Errorf("the server is ClickHouse %s, want %s or newer: upgrade it", version, MinVersion)}, nil
	}
	return nil, nil
}

// olderThan compares major and minor.
func olderThan(version, least string) bool {
	have, want := numbers(version), numbers(least)
	return slices.Compare(have[:2], want[:2]) < 0
}

func numbers(version string) [2]int {
	var out [2]int
	for i, part := range strings.SplitN(version, ".", 3) {
		if i < 2 {
			out[i], _ = strconv.Atoi(part) // No number counts as 0: too old.
		}
	}
	return out
}

// settingRow is a row of system.settings.
type settingRow struct {
	Name, Value string
	Readonly    int
	Min, Max    *string
}

// checkSettings looks whether every setting that we send exists and may be
// changed, then sends them all and looks whether they arrived. The first question
// goes without settings: it asks for what the profile says.
func (s *node) checkSettings(ctx context.Context) ([]error, error) {
	question := "SELECT name, value, readonly, min, max FROM system.settings WHERE name = 'readonly' OR name IN (" + settingNames() + ")"
	text, err := s.execRaw(ctx, "", question+" FORMAT JSONEachRow")
	if _, dead := hopeless[codeOf(err)]; err != nil && codeOf(err) != 0 && !dead {
		text, err = s.exec(ctx, "", question+" FORMAT JSONEachRow") // The profile is too odd even for this.
	}
	if err != nil {
		return nil, err
	}
	plain, err := decodeRows[settingRow](text)
	if err != nil {
		return nil, err
	}
	there := map[string]settingRow{}
	for _, r := range plain {
		there[r.Name] = r
	}
	var faults []error
	if r := there["readonly"]; r.Value != "0" {
		faults = append(faults, fmt.Errorf("setting readonly is %s for user %q, want 0: use a user that may write", r.Value, s.config.User))
	}
	var send []string
	for _, pair := range slices.Concat(honest, insertSettings, newerSettings) {
		name, want, _ := strings.Cut(pair, "=")
		r, exists := there[name]
		switch {
		case !exists && !slices.Contains(newerSettings, pair):
			faults = append(faults, fmt.Errorf("setting %s does not exist on the server, want %s: upgrade it to ClickHouse %s or newer", name, want, MinVersion))
		case !exists || r.Value == want:
			// An older server without the newer setting, or nothing to change.
		case r.Readonly != 0 || outside(want, r):
			faults = append(faults, fmt.Errorf("setting %s is %s and user %q may not change it to %s: relax the constraint in the user's profile", name, r.Value, s.config.User, want))
		default:
			send = append(send, pair)
		}
	}
	if len(faults) > 0 {
		return faults, nil
	}
	effective, err := rows[settingRow](ctx, s.client, question, send...)
	if err != nil {
		return nil, err
	}
	for _, r := range effective {
		i := slices.IndexFunc(send, func(pair string) bool { return strings.HasPrefix(pair, r.Name+"=") })
		if i >= 0 && send[i] != r.Name+"="+r.Value {
			faults = append(faults, fmt.Errorf("setting %s stayed %s although %s was sent: a proxy drops settings; connect to the server itself", r.Name, r.Value, send[i]))
		}
	}
	return faults, nil
}

func settingNames() string {
	var names []string
	for _, pair := range slices.Concat(honest, insertSettings, newerSettings) {
		name, _, _ := strings.Cut(pair, "=")
		names = append(names, schemas.QuoteString(name))
	}
	return strings.Join(names, ", ")
}

// outside says whether a constraint of the profile excludes the number.
func outside(want string, r settingRow) bool {
	n, err := strconv.ParseFloat(want, 64)
	if err != nil {
		return false
	}
	bound := func(s *string, excludes func(limit float64) bool) bool {
		if s == nil {
			return false
		}
		limit, err := strconv.ParseFloat(*s, 64)
		return err == nil && excludes(limit)
	}
	return bound(r.Min, func(limit float64) bool { return n < limit }) || bound(r.Max, func(limit float64) bool { return n > limit })
}

// checkRights asks whether the user may do what the sink does.
func (s *node) checkRights(ctx context.Context) ([]error, error) {
	database := schemas.QuoteName(s.config.Database)
	return s.lacking(ctx, "INSERT ON "+database+".*", "SELECT ON "+database+".*", "SELECT ON system.processes")
}

// lacking gives a fault for each right that the user does not have.
func (s *node) lacking(ctx context.Context, rights ...string) ([]error, error) {
	var faults []error
	for _, right := range rights {
		text, err := s.exec(ctx, "", "CHECK GRANT "+right)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(text) != "1" {
			faults = append(faults, fmt.Errorf("user %q lacks a right: GRANT %s TO %[1]s", s.config.User, right))
		}
	}
	return faults, nil
}

// examineTables asserts what Setup cannot mend, and the rights for what it can.
func (s *node) examineTables(ctx context.Context) ([]error, error) {
	have, err := s.existing(ctx)
	if err != nil {
		return nil, err
	}
	var faults []error
	needs := map[string]bool{"CREATE VIEW": true} // views are made anew at each start
	for _, name := range s.order {
		t := s.local(name)
		old, there := have[t.Name]
		if !there {
			needs["CREATE TABLE"] = true
			continue
		}
		missing, err := t.MigrateSQL(s.config.Database, old)
		faults = append(faults, err)
		if len(missing) > 0 {
			needs["ALTER TABLE"] = true
		}
	}
	distributed, err := s.planDistributed(have)
	faults = append(faults, err)
	if len(distributed) > 0 {
		needs["CREATE TABLE"] = true
	}
	var rights []string
	for _, right := range slices.Sorted(maps.Keys(needs)) {
		rights = append(rights, right+" ON "+schemas.QuoteName(s.config.Database)+".*")
	}
	lacking, err := s.lacking(ctx, rights...)
	return slices.DeleteFunc(append(faults, lacking...), func(err error) bool { return err == nil }), err
}

// checkTables asserts engines, keys, types and durability of the tables.
func (s *node) checkTables(ctx context.Context) ([]error, error) {
	have, err := s.existing(ctx)
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, name := range s.order {
		t := s.local(name)
		old, there := have[t.Name]
		if !there {
			faults = append(faults, fmt.Errorf("table %q is not there: run Setup first", t.Name))
			continue
		}
		missing, err := t.MigrateSQL(s.config.Database, old)
		if err != nil {
			faults = append(faults, err)
		}
		for _, sql := range missing {
			faults = append(faults, fmt.Errorf("table %q is not up to date, run Setup first; missing: %s", t.Name, sql))
		}
	}
	return faults, nil
}

// checkViews refuses materialized views that copy rows out of exact tables as they
// are inserted. Table and view are not written together: an INSERT that fails in
// the view may have landed in the table, and a probe that finds it there never
// feeds the view again. A view whose rows carry batch_id can be reconciled by its
// owner and is let through; one that is refreshed on a schedule reads the table
// itself and is safe.
func (s *node) checkViews(ctx context.Context) ([]error, error) {
	type row struct{ Table, View string }
	database := schemas.QuoteString(s.config.Database)
	found, err := rows[row](ctx, s.client, fmt.Sprintf(`SELECT t.name AS table, d.1 || '.' || d.2 AS view
FROM (SELECT name, arrayJoin(arrayZip(dependencies_database, dependencies_table)) AS d FROM system.tables WHERE database = %s) AS t
LEFT JOIN (SELECT database, table, countIf(name = 'batch_id') AS carries FROM system.columns GROUP BY database, table) AS c ON c.database = d.1 AND c.table = d.2
LEFT JOIN (SELECT database, name, create_table_query FROM system.tables WHERE engine = 'MaterializedView') AS v ON v.database = d.1 AND v.name = d.2
WHERE carries = 0 AND match(create_table_query, '^CREATE MATERIALIZED VIEW') AND NOT match(create_table_query, '\\sREFRESH (EVERY|AFTER)\\s')
ORDER BY table, view`, database))
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, r := range found {
		if t, ours := s.tables[s.knownAs(r.Table)]; ours && t.Index("batch_id") >= 0 {
			faults = append(faults, fmt.Errorf("table %q feeds the materialized view %s, which may miss rows after a fault: add batch_id to its target, or make it a plain or a refreshable view", r.Table, r.View))
		}
	}
	return faults, nil
}
