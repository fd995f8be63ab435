package verify

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/cmd/internal/ask"
)

// Forget is one record of rows that people have deleted: whole days of one table.
type Forget struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Table   string    `json:"table"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"` // the first day behind
	Who     string    `json:"who"`
	Why     string    `json:"why"`
}

// Forgotten gives the records that were not taken back, the oldest first.
//
// Errors: the target cannot be asked, or has no table forgotten yet.
func Forgotten(ctx context.Context, conn driver.Conn) ([]Forget, error) {
	var out []Forget
	const sql = "SELECT id, created, `table`, `from`, `to`, who, why FROM forgotten WHERE undone = 0 AND id NOT IN (SELECT id FROM forgotten WHERE undone = 1) ORDER BY created, id, `table`"
	err := ask.Each(ctx, conn, "table forgotten", sql, func(row ask.Row) error {
		var f Forget
		err := row.Scan(&f.ID, &f.Created, &f.Table, &f.From, &f.To, &f.Who, &f.Why)
		out = append(out, f)
		return err
	})
	return out, err
}
