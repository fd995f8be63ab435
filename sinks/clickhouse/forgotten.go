package clickhouse

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Forgotten is a record of rows that people have deleted: those of one table with
// times From <= t < To.
type Forgotten struct {
	ID, Table, Who, Why string
	Created, From, To   time.Time
	Undone              bool // takes the record of this ID back
}

// Forget records on every server that rows were deleted on purpose. From then on a
// piece with no other times counts as landed when it is in doubt: a recovery that
// finds none of its rows does not land them again. Written twice, it says the same.
//
// Errors: ErrTransient; others are fatal.
func (s *Sink) Forget(ctx context.Context, f Forgotten) error {
	undone := 0
	if f.Undone {
		undone = 1
	}
	moment := func(t time.Time) string { return fmt.Sprintf("fromUnixTimestamp64Milli(toInt64(%d))", t.UnixMilli()) }
	return s.each(func(_ int, n *node) error {
		_, err := n.exec(ctx, "", fmt.Sprintf("INSERT INTO %s (id, created, `table`, `from`, `to`, who, why, undone) SELECT %s, %s, %s, %s, %s, %s, %s, %d",
			n.name(schemas.Forgotten.Name), schemas.QuoteString(f.ID), moment(f.Created), schemas.QuoteString(f.Table), moment(f.From), moment(f.To),
			schemas.QuoteString(f.Who), schemas.QuoteString(f.Why), undone), plainSettings...)
		return waiting(classifyRead(err))
	})
}

// countForgotten counts pieces of a table as landed that are not there, and whose rows
// were deleted on purpose.
func (s *node) countForgotten(ctx context.Context, table string, pieces []pipeline.PieceRef, counts []int64) error {
	type record struct{ Lowest, Behind int64 }
	var records []record
	for i, p := range pieces {
		if counts[i] > 0 || p.Rows == 0 {
			continue
		}
		if records == nil {
			found, err := rows[record](ctx, s.client, fmt.Sprintf("SELECT toUnixTimestamp64Milli(`from`) AS Lowest, toUnixTimestamp64Milli(`to`) AS Behind FROM %[1]s WHERE `table` = %[2]s AND undone = 0 AND id NOT IN (SELECT id FROM %[1]s WHERE undone = 1)",
				s.name(schemas.Forgotten.Name), schemas.QuoteString(table)))
			if err != nil {
				return classifyRead(err)
			}
			records = append([]record{}, found...)
		}
		for _, r := range records {
			if p.MinTime >= r.Lowest && p.MaxTime < r.Behind {
				counts[i] = p.Rows
			}
		}
	}
	return nil
}
