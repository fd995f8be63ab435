// Package ask asks questions of the ClickHouse that a pipeline lands in, for
// commands that look at what it did. Connections are borrowed.
package ask

import (
	"context"
	"errors"
	"fmt"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Row is one row of an answer.
type Row interface{ Scan(dest ...any) error }

// Codes of ClickHouse.
const (
	noTable    = 60
	noDatabase = 81
)

// Each runs a question about what, such as "table flows", and hands every row to f.
//
// Errors: what is not there yet; the target cannot be asked; those of f.
func Each(ctx context.Context, conn driver.Conn, what, sql string, f func(row Row) error) error {
	rows, err := conn.Query(ctx, sql+" SETTINGS max_query_size = 67108864")
	var answer *ch.Exception
	if errors.As(err, &answer) && (answer.Code == noTable || answer.Code == noDatabase) {
		return fmt.Errorf("read %s: it is not there yet: run the pipeline first: %w", what, err)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return fmt.Errorf("read %s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}
