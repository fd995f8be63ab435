package clickhouse

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/millrace/millrace/schemas"
)

// Setup creates the database, the sink's tables and the views, adds columns that
// are missing, and brings comments and durability settings up to date, on every
// server. Run twice, the second run changes nothing. Views are created again each
// time, so that they show new columns.
//
// Errors: everything at once that cannot be mended without losing data (another
// engine, key or column type), with table, column, want and have; then nothing was
// changed in any table that existed. ErrTransient when a server is not there.
func (s *Sink) Setup(ctx context.Context, views []schemas.View) error {
	wrap := func(err error) error { return fmt.Errorf("set up database %q: %w", s.config.Database, err) }
	plans, lacks := make([][]string, len(s.nodes)), make([]error, len(s.nodes))
	err := s.each(func(i int, n *node) error {
		if err := n.createDatabase(ctx); err != nil {
			return err
		}
		have, err := n.existing(ctx)
		if err != nil {
			return classifyRead(err)
		}
		visible := views
		if lacks[i] = n.lacksDistributed(have); lacks[i] != nil {
			visible = nil // There is nothing yet that a view could show.
		}
		plans[i], err = n.plan(have, visible)
		return err
	})
	if err != nil {
		return wrap(err)
	}
	err = s.each(func(i int, n *node) error {
		for _, sql := range plans[i] {
			if _, err := n.exec(ctx, s.config.Database, sql); err != nil {
				return classifyRead(err)
			}
		}
		return lacks[i]
	})
	if err != nil {
		return wrap(err)
	}
	return nil
}

// createDatabase makes the database where it is missing. Atomic is named because
// the default of the embedded server has no atomic rename and no replacing of
// views.
func (s *node) createDatabase(ctx context.Context) error {
	name := s.config.Database
	text, err := s.exec(ctx, "", "SELECT engine FROM system.databases WHERE name = "+schemas.QuoteString(name)+" FORMAT TabSeparatedRaw")
	if err != nil {
		return classifyRead(err)
	}
	switch engine := string(bytes.TrimSpace([]byte(text))); engine {
	case "":
		if _, err := s.exec(ctx, "", "CREATE DATABASE IF NOT EXISTS "+schemas.QuoteName(name)+" ENGINE = Atomic"); err != nil {
			return classifyRead(err)
		}
		return nil
	case "Atomic", "Replicated", "Shared":
		return nil
	default:
		return fmt.Errorf("its engine is %s, want Atomic: name another database", engine)
	}
}

// plan gives the statements that Setup runs.
func (s *node) plan(have map[string]schemas.Existing, views []schemas.View) ([]string, error) {
	var statements []string
	var faults []error
	for _, name := range s.order {
		t := s.local(name)
		var sql []string
		var err error
		if old, there := have[t.Name]; there {
			sql, err = t.MigrateSQL(s.config.Database, old)
		} else {
			var create string
			create, err = t.CreateSQL(s.config.Database)
			sql = []string{create}
		}
		statements, faults = append(statements, sql...), append(faults, err)
	}
	sql, err := s.planDistributed(have)
	statements, faults = append(statements, sql...), append(faults, err)
	for _, v := range views {
		sql, err := v.CreateSQL(s.config.Database)
		statements, faults = append(statements, sql), append(faults, err)
	}
	return statements, errors.Join(faults...)
}

// existing describes the tables of ours that the database has.
func (s *node) existing(ctx context.Context) (map[string]schemas.Existing, error) {
	database := schemas.QuoteString(s.config.Database)
	type tableRow struct {
		Name, Engine, Comment string
		EngineFull            string `json:"engine_full"`
		PartitionKey          string `json:"partition_key"`
		SortingKey            string `json:"sorting_key"`
	}
	tables, err := rows[tableRow](ctx, s.client, "SELECT name, engine, engine_full, partition_key, sorting_key, comment FROM system.tables WHERE database = "+database)
	if err != nil {
		return nil, err
	}
	have := map[string]schemas.Existing{}
	for _, t := range tables {
		if slices.Contains(s.order, s.knownAs(t.Name)) {
			have[t.Name] = schemas.Existing{
				Engine: t.Engine, EngineFull: t.EngineFull, PartitionKey: t.PartitionKey, SortingKey: t.SortingKey, Comment: t.Comment,
			}
		}
	}
	type columnRow struct {
		Table, Name, Type, Comment string
		Default                    string `json:"default_kind"`
	}
	columns, err := rows[columnRow](ctx, s.client, "SELECT table, name, type, comment, default_kind FROM system.columns WHERE database = "+database+" ORDER BY table, position")
	if err != nil {
		return nil, err
	}
	for _, c := range columns {
		if t, ours := have[c.Table]; ours {
			t.Columns = append(t.Columns, schemas.ExistingColumn{Name: c.Name, Type: c.Type, Comment: c.Comment, Default: c.Default})
			have[c.Table] = t
		}
	}
	return have, nil
}

// rows runs a question of ours and decodes each row into T by the names of its
// columns, without regard to case. Whole numbers come as JSON numbers.
func rows[T any](ctx context.Context, c *client, sql string, settings ...string) ([]T, error) {
	text, err := c.exec(ctx, "", sql+" FORMAT JSONEachRow", append([]string{"output_format_json_quote_64bit_integers=0"}, settings...)...)
	if err != nil {
		return nil, err
	}
	return decodeRows[T](text)
}

func decodeRows[T any](text string) ([]T, error) {
	var out []T
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		var row T
		switch err := d.Decode(&row); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("decode answer: %w", err)
		}
		out = append(out, row)
	}
}
