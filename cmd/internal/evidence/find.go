package evidence

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/schemas"
)

// rowOrder is the order of rows in a commit or a record.
const rowOrder = "blob, generation, record_offset, ordinal"

// Address proves the row at an address, or at most limit rows of a record when the
// address has no ordinal. It calls emit with each finding; without a row once, with
// an unknown address and what is near it. total is how many rows there are.
//
// Errors: the target cannot be asked; those of emit; ctx ended.
func (c *Checker) Address(ctx context.Context, a reread.Address, limit int, emit func(Finding) error) (total uint64, err error) {
	at := fmt.Sprintf("blob = %s AND generation = %d AND record_offset = %d", schemas.QuoteString(a.Blob.String()), a.Generation, a.Offset)
	if a.Ordinal >= 0 {
		at += fmt.Sprintf(" AND ordinal = %d", a.Ordinal)
	}
	where := at
	if _, ok := a.Blob.Hour(); ok { // the days of the blob's hour are quick to look through
		lowest, highest := engine.TimeBounds(a.Blob, 0)
		where += " AND " + timeBetween("time", lowest, highest)
	}
	total, err = c.rows(ctx, where, rowOrder, limit, emit)
	if err == nil && total == 0 && where != at { // a row whose time was altered
		total, err = c.rows(ctx, at, rowOrder, limit, emit)
	}
	if err != nil || total > 0 {
		return total, err
	}
	f := Finding{Outcome: Unknown, Address: a.String(), Cause: "the table flows has no row at this address"}
	if f.Hints, err = c.near(ctx, a); err != nil {
		return 0, err
	}
	return 0, emit(f)
}

// Batch proves at most limit rows of a commit.
//
// Errors: as Address.
func (c *Checker) Batch(ctx context.Context, id pipeline.BatchID, limit int, emit func(Finding) error) (total uint64, err error) {
	total, err = c.rows(ctx, fmt.Sprintf("batch_id = %d", id), rowOrder, limit, emit)
	if err != nil || total > 0 {
		return total, err
	}
	f := Finding{Outcome: Unknown, Batch: uint64(id), Cause: fmt.Sprintf("the table flows has no row of commit %v", id)}
	var ranges uint64
	err = c.each(ctx, "table batches", fmt.Sprintf("SELECT count() FROM batches FINAL WHERE batch_id = %d", id), func(row ask.Row) error { return row.Scan(&ranges) })
	if err != nil {
		return 0, err
	}
	if ranges > 0 {
		f.Hints = append(f.Hints, fmt.Sprintf("it read %d byte ranges that became no rows: SELECT * FROM batches FINAL WHERE batch_id = %d", ranges, id))
	} else {
		f.Hints = append(f.Hints, "the column batch_id of a row has the number of its commit")
	}
	return 0, emit(f)
}

func (c *Checker) each(ctx context.Context, what, sql string, f func(ask.Row) error) error {
	return ask.Each(ctx, c.deps.Conn, what, sql, f)
}

// rows proves the rows that meet the condition. A row that is there twice under its
// address is not what the bytes say, whatever it says itself.
func (c *Checker) rows(ctx context.Context, where, order string, limit int, emit func(Finding) error) (total uint64, err error) {
	if err := c.each(ctx, "table flows", "SELECT count() FROM flows WHERE "+where, func(row ask.Row) error { return row.Scan(&total) }); err != nil {
		return 0, err
	}
	var found []Row
	sql := fmt.Sprintf("SELECT %s FROM flows WHERE %s ORDER BY %s LIMIT %d", rowColumns, where, order, limit)
	err = c.each(ctx, "table flows", sql, func(row ask.Row) error {
		r, err := scanRow(row)
		found = append(found, r)
		return err
	})
	if err != nil {
		return 0, err
	}
	copies := map[reread.Address]int{}
	for _, r := range found {
		copies[r.At]++
	}
	for _, r := range found {
		f, err := c.check(ctx, r)
		if err != nil {
			return 0, err
		}
		if n := copies[r.At]; n > 1 && f.Outcome == Verified {
			f.Outcome, f.Cause = Differs, fmt.Sprintf("%d rows have this address", n)
		}
		if err := emit(f); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// unit is a row of the table batches.
type unit struct {
	offset, length int64
	hash           string
	committed      time.Time
}

// unitOf gives the byte range that the row's commit read, nil when the table batches
// does not have it yet.
func (c *Checker) unitOf(ctx context.Context, r Row) (*unit, error) {
	sql := fmt.Sprintf("SELECT offset, length, hash, committed FROM batches FINAL WHERE batch_id = %d AND blob = %s AND generation = %d AND offset <= %d AND offset + length > %[4]d LIMIT 1",
		r.Batch, schemas.QuoteString(r.At.Blob.String()), r.At.Generation, r.At.Offset)
	var found *unit
	err := c.each(ctx, "table batches", sql, func(row ask.Row) error {
		var u unit
		var offset, length uint64
		err := row.Scan(&offset, &length, &u.hash, &u.committed)
		u.offset, u.length = int64(offset), int64(length)
		found = &u
		return err
	})
	return found, err
}

// generation gives the highest generation that the target knows of a blob.
func (c *Checker) generation(ctx context.Context, id pipeline.BlobID) (uint32, error) {
	if g, ok := c.newest[id]; ok {
		return g, nil
	}
	var g uint32
	sql := "SELECT max(generation) FROM batches WHERE blob = " + schemas.QuoteString(id.String())
	err := c.each(ctx, "table batches", sql, func(row ask.Row) error { return row.Scan(&g) })
	c.newest[id] = g
	return g, err
}

// near gives what may have been meant by an address that no row has.
func (c *Checker) near(ctx context.Context, a reread.Address) ([]string, error) {
	var hints []string
	blob := schemas.QuoteString(a.Blob.String())
	var scope string
	var ordinal uint32
	err := c.each(ctx, "table quarantine", fmt.Sprintf(`SELECT toString(scope), ordinal FROM quarantine WHERE blob = %s AND generation = %d AND record_offset = %d
		AND (scope != 'tuple' OR ordinal = %d OR %[4]d < 0) LIMIT 1`, blob, a.Generation, a.Offset, a.Ordinal), func(row ask.Row) error { return row.Scan(&scope, &ordinal) })
	if err != nil {
		return nil, err
	}
	if scope != "" {
		refused := a
		if refused.Ordinal = -1; scope == "tuple" {
			refused.Ordinal = int64(ordinal)
		}
		hints = append(hints, fmt.Sprintf("the %s is in quarantine: millrace quarantine show '%s'", scope, refused))
	}
	var same, generations []string
	sql := fmt.Sprintf(`SELECT generation, record_offset, min(ordinal), max(ordinal) FROM flows WHERE blob = %s
		GROUP BY generation, record_offset ORDER BY generation = %d DESC, abs(toInt64(record_offset) - %d), generation LIMIT 3`, blob, a.Generation, a.Offset)
	err = c.each(ctx, "table flows", sql, func(row ask.Row) error {
		var g, first, last uint32
		var offset uint64
		if err := row.Scan(&g, &offset, &first, &last); err != nil {
			return err
		}
		near := reread.Address{Blob: a.Blob, Generation: g, Offset: int64(offset), Ordinal: -1}
		text := fmt.Sprintf("%s has ordinals %d to %d", near, first, last)
		if g == a.Generation {
			same = append(same, text)
		} else {
			generations = append(generations, text)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, near := range append(same, generations...) {
		hints = append(hints, "near it: "+near)
	}
	if len(same)+len(generations) == 0 {
		hints = append(hints, fmt.Sprintf("no row is of this blob: SELECT DISTINCT blob FROM flows WHERE blob LIKE '%%%s'", lastPart(a.Blob.Path)))
	}
	return hints, nil
}

// lastPart is the end of a path that is worth looking for.
func lastPart(path string) string {
	if i := strings.LastIndex(path, "macAddress="); i >= 0 {
		return path[i:]
	}
	return path[strings.LastIndexByte(path, '/')+1:]
}

// timeBetween is the condition that lowest <= column < highest, both in ms UTC.
func timeBetween(column string, lowest, highest int64) string {
	return fmt.Sprintf("%[1]s >= fromUnixTimestamp64Milli(toInt64(%[2]d)) AND %[1]s < fromUnixTimestamp64Milli(toInt64(%[3]d))", column, lowest, highest)
}
