package backfill

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/schemas"
)

// Table answers questions about the target. A target without tables has nothing.
type Table interface {
	// Units gives the landed ranges of the blobs, committed at since or later.
	Units(ctx context.Context, blobs []string, since time.Time) (map[string][]Span, error)
	// Rows gives the highest address that flows and quarantine have of the blobs, with
	// times from <= time < to.
	Rows(ctx context.Context, blobs []string, from, to time.Time) (map[string]Last, error)
}

// NewTable answers from a ClickHouse; conn is borrowed.
func NewTable(conn driver.Conn) Table { return clickhouseTable{conn} }

type clickhouseTable struct{ conn driver.Conn }

// Codes of ClickHouse.
const (
	noTable    = 60
	noDatabase = 81
)

// each runs a question and hands every row to f.
func (t clickhouseTable) each(ctx context.Context, what, sql string, f func(rows driver.Rows) error) error {
	rows, err := t.conn.Query(ctx, sql+" SETTINGS max_query_size = 67108864")
	var answer *ch.Exception
	if errors.As(err, &answer) && (answer.Code == noTable || answer.Code == noDatabase) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask what has landed, %s: %w", what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return fmt.Errorf("ask what has landed, %s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("ask what has landed, %s: %w", what, err)
	}
	return nil
}

// Units reads the table without FINAL: a range that is there twice covers no more.
func (t clickhouseTable) Units(ctx context.Context, blobs []string, since time.Time) (map[string][]Span, error) {
	units := map[string][]Span{}
	sql := fmt.Sprintf("SELECT toString(blob), generation, offset, length, hash FROM batches WHERE committed >= %s AND blob IN (%s)", moment(since), quoted(blobs))
	err := t.each(ctx, "table batches", sql, func(rows driver.Rows) error {
		var name string
		var s Span
		var offset, length uint64
		err := rows.Scan(&name, &s.Generation, &offset, &length, &s.Hash)
		s.Offset, s.Length = int64(offset), int64(length)
		units[name] = append(units[name], s)
		return err
	})
	return units, err
}

func (t clickhouseTable) Rows(ctx context.Context, blobs []string, from, to time.Time) (map[string]Last, error) {
	highest := map[string]Last{}
	part := func(table string) string {
		return fmt.Sprintf("SELECT toString(blob) AS name, max((generation, record_offset)) AS m FROM %s WHERE time >= %s AND time < %s AND blob IN (%s) GROUP BY name",
			table, moment(from), moment(to), quoted(blobs))
	}
	sql := fmt.Sprintf("SELECT name, max(m).1, max(m).2 FROM (%s UNION ALL %s) GROUP BY name", part(schemas.Flows.Name), part(schemas.Quarantine.Name))
	err := t.each(ctx, "tables flows and quarantine", sql, func(rows driver.Rows) error {
		var name string
		var l Last
		var offset uint64
		err := rows.Scan(&name, &l.Generation, &offset)
		l.Offset = int64(offset)
		highest[name] = l
		return err
	})
	return highest, err
}

func moment(t time.Time) string {
	return fmt.Sprintf("fromUnixTimestamp64Milli(toInt64(%d))", max(t.UnixMilli(), 0))
}

func quoted(texts []string) string {
	out := make([]string, len(texts))
	for i, s := range texts {
		out[i] = schemas.QuoteString(s)
	}
	return strings.Join(out, ", ")
}
