package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/schemas"
)

// place is a blob in one of its generations.
type place struct {
	blob       string // account/container/path
	generation uint32
}

// unit is one byte range that a batch committed.
type unit struct {
	batch                       pipeline.BatchID
	offset, length              int64
	hash                        string
	rows, quarantined, filtered int64
}

func (u unit) end() int64 { return u.offset + u.length }

// cell is what one batch has of one place.
type cell struct {
	batch pipeline.BatchID
	place
}

// slice is what is compared at one time: the blobs of one hour, or, with the zero
// hour, those whose names have none.
type slice struct {
	hour time.Time
	// lowest <= time < highest holds for every row of these blobs, ms UTC.
	lowest, highest int64

	units map[place][]unit
	// generations are those of each blob that have units.
	generations map[string][]uint32
	rows        map[cell]int64
	// entries of quarantine.
	entries map[cell]int64
	// others are cells of names without an hour that were committed in another period.
	others map[cell]bool
	// found are findings of rows and ranges; bytes, once compared, tell more exactly.
	found map[place][]Finding
	// compared are places whose bytes were.
	compared map[place]bool
	// touched are shards with findings of rows: their windows follow.
	touched map[pipeline.BatchID]bool
}

// anyHour matches names that have an hour.
const anyHour = `/y=\d+/m=\d+/d=\d+/h=\d+/m=\d+(/|$)`

// newSlice begins with the blobs of an hour, or with those without one.
func (v *verifier) newSlice(hour time.Time) *slice {
	s := &slice{
		hour: hour, units: map[place][]unit{}, generations: map[string][]uint32{}, rows: map[cell]int64{}, entries: map[cell]int64{},
		others: map[cell]bool{}, compared: map[place]bool{}, found: map[place][]Finding{}, touched: map[pipeline.BatchID]bool{},
	}
	s.lowest, s.highest = v.result.From.UnixMilli(), v.result.To.UnixMilli()
	if !hour.IsZero() {
		s.lowest, s.highest = hour.Add(-time.Hour).UnixMilli(), hour.Add(2*time.Hour).UnixMilli()
	}
	return s
}

// blobs is the condition that a row is of the slice's blobs. The name is matched
// once for each blob, as the column keeps a dictionary.
func (s *slice) blobs() string {
	if s.hour.IsZero() {
		return "NOT match(blob, " + schemas.QuoteString(anyHour) + ")"
	}
	h := s.hour
	return "match(blob, " + schemas.QuoteString(fmt.Sprintf(`/y=0*%d/m=0*%d/d=0*%d/h=0*%d/m=0+(/|$)`, h.Year(), h.Month(), h.Day(), h.Hour())) + ")"
}

// flows is the condition that a row of flows is of the slice.
func (s *slice) flows() string { return timeBetween("time", s.lowest, s.highest) + " AND " + s.blobs() }

// holds says whether a blob is of the slice: its name may look like two hours.
func (s *slice) holds(id pipeline.BlobID) bool {
	hour, ok := id.Hour()
	return ok == !s.hour.IsZero() && (!ok || hour.Equal(s.hour))
}

// committed adds up the rows that the units of a place have brought.
func (s *slice) committed(p place) int64 {
	rows := int64(0)
	for _, u := range s.units[p] {
		rows += u.rows
	}
	return rows
}

// load reads what was committed of the slice, then what the tables have of it.
func (v *verifier) load(ctx context.Context, s *slice) error {
	if err := v.loadUnits(ctx, s); err != nil {
		return err
	}
	sql := fmt.Sprintf("SELECT toString(blob), generation, batch_id, count() FROM flows WHERE %s GROUP BY blob, generation, batch_id", s.flows())
	if err := v.loadCells(ctx, "flows", sql, s, s.rows); err != nil {
		return err
	}
	sql = fmt.Sprintf("SELECT toString(blob), generation, batch_id, count() FROM quarantine WHERE %s AND %s GROUP BY blob, generation, batch_id",
		timeBetween("time", s.lowest, s.highest), s.blobs())
	return v.loadCells(ctx, "quarantine", sql, s, s.entries)
}

func (v *verifier) loadUnits(ctx context.Context, s *slice) error {
	have := map[cell]map[int64]bool{}
	enter := func(id pipeline.BlobID, generation uint32, u unit, committed int64) {
		c := cell{u.batch, place{id.String(), generation}}
		if v.books.standing(u.batch) == pending {
			return // it landed since the ledgers were read: what they say holds for all tables
		}
		if s.hour.IsZero() && !v.inPeriod(committed) {
			s.others[c] = true
			return
		}
		if !s.holds(id) || have[c][u.offset] {
			return
		}
		if have[c] == nil {
			have[c] = map[int64]bool{}
		}
		have[c][u.offset] = true
		if len(s.units[c.place]) == 0 {
			s.generations[c.blob] = append(s.generations[c.blob], generation)
		}
		s.units[c.place] = append(s.units[c.place], u)
		if s.hour.IsZero() {
			lowest, highest := engine.TimeBounds(id, committed)
			// It was fetched a moment before.
			s.lowest, s.highest = min(s.lowest, lowest-time.Hour.Milliseconds()), max(s.highest, highest)
		}
	}
	sql := "SELECT toString(blob), generation, batch_id, offset, length, hash, rows, quarantined, filtered, toUnixTimestamp64Milli(committed) FROM batches FINAL WHERE " + s.blobs()
	err := v.each(ctx, "batches", sql, func(row ask.Row) error {
		var name string
		var generation uint32
		var n [6]uint64
		var u unit
		var committed int64
		if err := row.Scan(&name, &generation, &n[0], &n[1], &n[2], &u.hash, &n[3], &n[4], &n[5], &committed); err != nil {
			return err
		}
		id, err := pipeline.ParseBlobID(name)
		if err != nil {
			return err
		}
		u.batch, u.offset, u.length = pipeline.BatchID(n[0]), int64(n[1]), int64(n[2])
		u.rows, u.quarantined, u.filtered = int64(n[3]), int64(n[4]), int64(n[5])
		enter(id, generation, u, committed)
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range v.books.manifests {
		for _, u := range m.Units {
			enter(u.Blob, u.Generation, unit{m.Batch, u.Offset, u.Length, u.Hash, u.Rows, u.Quarantined, u.Filtered}, m.Created)
		}
	}
	return nil
}

func (v *verifier) inPeriod(ms int64) bool {
	return ms >= v.result.From.UnixMilli() && ms < v.result.To.UnixMilli()
}

// loadCells counts rows by batch and blob.
func (v *verifier) loadCells(ctx context.Context, table, sql string, s *slice, into map[cell]int64) error {
	return v.each(ctx, table, sql, func(row ask.Row) error {
		var c cell
		var batch, n uint64
		if err := row.Scan(&c.blob, &c.generation, &batch, &n); err != nil {
			return err
		}
		c.batch = pipeline.BatchID(batch)
		// A name that is none is nobody's: its rows are foreign in any hour.
		if id, err := pipeline.ParseBlobID(c.blob); err != nil || s.holds(id) {
			into[c] = int64(n)
		}
		return nil
	})
}
