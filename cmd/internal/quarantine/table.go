package quarantine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// NewTable answers from a ClickHouse; conn is borrowed.
func NewTable(conn driver.Conn) Table { return clickhouseTable{conn} }

type clickhouseTable struct{ conn driver.Conn }

// entryColumns are those of scanEntry; entryKey is the order of entries, with
// enough columns that no two entries are equal in it.
const (
	entryColumns = "time, reason, detail, scope, blob, generation, record_offset, ordinal, length, excerpt, batch_id"
	entryKey     = "blob, generation, record_offset, ordinal, scope, reason, batch_id"
)

func scanEntry(row ask.Row, before ...any) (Entry, error) {
	var e Entry
	var reason string
	var offset, length uint64
	err := row.Scan(append(before, &e.Time, &reason, &e.Detail, &e.Scope, &e.Blob, &e.Generation, &offset, &e.Ordinal, &length, &e.Excerpt, &e.Batch)...)
	e.Reason, e.Offset, e.Length = pipeline.Reason(reason), int64(offset), int64(length)
	if a, bad := e.at(); bad == nil {
		e.Address = a.String()
	}
	return e, err
}

func (t clickhouseTable) Counts(ctx context.Context, f Filter) ([]Count, error) {
	var counts []Count
	sql := fmt.Sprintf(`SELECT entries, %s FROM (
		SELECT *, count() OVER (PARTITION BY reason) AS entries FROM quarantine WHERE %s
		ORDER BY time DESC, batch_id DESC, record_offset DESC, ordinal DESC LIMIT 1 BY reason
	) ORDER BY entries DESC, reason`, entryColumns, f.where())
	err := ask.Each(ctx, t.conn, "table quarantine", sql, func(row ask.Row) error {
		var n uint64
		e, err := scanEntry(row, &n)
		counts = append(counts, Count{Reason: e.Reason, Entries: int64(n), Newest: e})
		return err
	})
	return counts, err
}

func (t clickhouseTable) Entries(ctx context.Context, f Filter, after *Entry, limit int) ([]Entry, error) {
	where := f.where()
	if after != nil {
		where += fmt.Sprintf(" AND (%s) > (%s, %d, %d, %d, %s, %s, %d)", entryKey, schemas.QuoteString(after.Blob), after.Generation, after.Offset, after.Ordinal,
			schemas.QuoteString(after.Scope), schemas.QuoteString(string(after.Reason)), after.Batch)
	}
	var entries []Entry
	sql := fmt.Sprintf("SELECT %s FROM quarantine WHERE %s ORDER BY %s LIMIT %d", entryColumns, where, entryKey, limit)
	err := ask.Each(ctx, t.conn, "table quarantine", sql, func(row ask.Row) error {
		e, err := scanEntry(row)
		entries = append(entries, e)
		return err
	})
	return entries, err
}

// where is the filter as a condition.
func (f Filter) where() string {
	conds := []string{"1"}
	if f.Reason != "" {
		conds = append(conds, "reason = "+schemas.QuoteString(string(f.Reason)))
	}
	if f.Blob != "" {
		conds = append(conds, "position(blob, "+schemas.QuoteString(f.Blob)+") > 0")
	}
	var either []string
	for _, a := range f.Addresses {
		c := fmt.Sprintf("(blob = %s AND generation = %d AND record_offset = %d", schemas.QuoteString(a.Blob.String()), a.Generation, a.Offset)
		if a.Ordinal >= 0 {
			c += fmt.Sprintf(" AND ordinal = %d AND scope = 'tuple'", a.Ordinal)
		}
		either = append(either, c+")")
	}
	if len(either) > 0 {
		conds = append(conds, "("+strings.Join(either, " OR ")+")")
	}
	return strings.Join(conds, " AND ")
}

func (t clickhouseTable) Generations(ctx context.Context, blobs []string) (map[string]uint32, error) {
	highest := map[string]uint32{}
	names := quoted(blobs)
	sql := fmt.Sprintf(`SELECT name, max(g) FROM (
		SELECT toString(blob) AS name, generation AS g FROM batches WHERE blob IN (%s)
		UNION ALL SELECT toString(blob), generation FROM quarantine WHERE blob IN (%[1]s)
	) GROUP BY name`, names)
	err := ask.Each(ctx, t.conn, "table batches", sql, func(row ask.Row) error {
		var blob string
		var g uint32
		err := row.Scan(&blob, &g)
		highest[blob] = g
		return err
	})
	return highest, err
}

// regionsPerQuery bounds the length of one question.
const regionsPerQuery = 256

func (t clickhouseTable) Landed(ctx context.Context, regions []Region) (map[Tuple]bool, error) {
	landed := map[Tuple]bool{}
	for some := range slices.Chunk(regions, regionsPerQuery) {
		err := ask.Each(ctx, t.conn, "table flows", landedSQL(some), func(row ask.Row) error {
			var r Tuple
			var offset uint64
			err := row.Scan(&r.Blob, &r.Generation, &offset, &r.Ordinal)
			r.Offset = int64(offset)
			landed[r] = true
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return landed, nil
}

// landedSQL asks for the addresses that are there. The times and the names stand
// in front, where partitions and dictionaries sort most rows out.
func landedSQL(regions []Region) string {
	lowest, highest := regions[0].MinTime, regions[0].MaxTime
	var blobs, either []string
	for _, r := range regions {
		lowest, highest = min(lowest, r.MinTime), max(highest, r.MaxTime)
		blobs = append(blobs, r.Blob)
		c := fmt.Sprintf("blob = %s AND generation = %d AND record_offset >= %d AND record_offset < %d", schemas.QuoteString(r.Blob), r.Generation, r.Start, r.End)
		if len(r.Ordinals) > 0 {
			c += " AND ordinal IN (" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(r.Ordinals)), ","), "[]") + ")"
		}
		either = append(either, "("+c+")")
	}
	slices.Sort(blobs)
	return fmt.Sprintf(`SELECT blob, generation, record_offset, ordinal FROM flows
		WHERE time >= fromUnixTimestamp64Milli(toInt64(%d)) AND time < fromUnixTimestamp64Milli(toInt64(%d)) AND blob IN (%s) AND (%s)`,
		lowest, highest, quoted(slices.Compact(blobs)), strings.Join(either, " OR "))
}

func quoted(texts []string) string {
	out := make([]string, len(texts))
	for i, s := range texts {
		out[i] = schemas.QuoteString(s)
	}
	return strings.Join(out, ", ")
}
