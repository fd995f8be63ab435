// Package reconcile compares what is in the tables with a simulated estate's own
// books: rows, sums and addresses blob by blob, windows minute by minute, quarantine
// entry by entry.
//
// What flows in: the truth of bench/traffic and a connection. What flows out: a
// Verdict, and lines for people that say where the two differ.
package reconcile

import (
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/bench/traffic"
)

// Verdict is how tables and books compare.
type Verdict struct {
	RowsLanded     uint64 `json:"rows_landed"`
	RowsInWindows  uint64 `json:"rows_in_windows"` // sum of rows over windows_traffic_1m
	Malformed      uint64 `json:"malformed"`       // tuples that the simulator spoiled
	Quarantined    uint64 `json:"quarantined"`     // entries in the table quarantine
	Lost           uint64 `json:"lost"`            // good tuples without a row, malformed ones without an entry
	Duplicated     uint64 `json:"duplicated"`      // rows and entries beyond one for an address
	Altered        uint64 `json:"altered"`         // blobs whose column sums differ from the simulator's
	MinutesAltered uint64 `json:"minutes_altered"` // minutes whose windows differ from the simulator's books
}

// Good says that every tuple is where it belongs exactly once.
func (v *Verdict) Good() bool {
	return v.Lost == 0 && v.Duplicated == 0 && v.Altered == 0 && v.MinutesAltered == 0 && v.RowsInWindows == v.RowsLanded && v.Quarantined == v.Malformed
}

// Judge finds what is lost, doubled and altered, and says where.
func Judge(truth traffic.Truth, held Contents) (Verdict, []string) {
	v := Verdict{Malformed: truth.Totals.Malformed}
	notes := slices.Concat(v.judgeBlobs(truth, held), v.judgeQuarantine(truth, held), v.judgeMinutes(truth, held))
	for _, name := range truth.Doubtful {
		notes = append(notes, name+": the storage never confirmed the last append, so the books may be one append short")
	}
	slices.Sort(notes)
	return v, notes
}

func (v *Verdict) judgeBlobs(truth traffic.Truth, held Contents) (notes []string) {
	for name, want := range truth.Blobs {
		got := held.Blobs[name]
		v.RowsLanded += got.Rows
		if got.Addresses < want.Tuples {
			v.Lost += want.Tuples - got.Addresses
			notes = append(notes, fmt.Sprintf("%s: %d of %d tuples have no row", name, want.Tuples-got.Addresses, want.Tuples))
		}
		surplus := got.Rows - min(got.Addresses, want.Tuples)
		if surplus > 0 {
			v.Duplicated += surplus
			notes = append(notes, fmt.Sprintf("%s: %d rows too many", name, surplus))
		}
		if got.Rows == want.Tuples && got.Sums != want.Sums {
			v.Altered++
			notes = append(notes, fmt.Sprintf("%s: the sums of its columns differ: landed %+v, written %+v", name, got.Sums, want.Sums))
		}
	}
	for name, got := range held.Blobs {
		if _, written := truth.Blobs[name]; !written {
			v.RowsLanded += got.Rows
			v.Duplicated += got.Rows
			notes = append(notes, fmt.Sprintf("%s: %d rows of a blob that nobody wrote", name, got.Rows))
		}
	}
	return notes
}

// judgeQuarantine wants one entry for each malformed tuple and no othev. Books that
// were too long to be kept whole are held against the count alone.
func (v *Verdict) judgeQuarantine(truth traffic.Truth, held Contents) (notes []string) {
	for _, n := range held.Quarantine {
		v.Quarantined += n
	}
	if uint64(len(truth.Malformed)) < truth.Totals.Malformed {
		return nil
	}
	spoiled := map[Address]bool{}
	for _, m := range truth.Malformed {
		a := Address{m.Blob, uint64(m.RecordOffset), uint32(m.Ordinal)}
		spoiled[a] = true
		if held.Quarantine[a] == 0 {
			v.Lost++
			notes = append(notes, fmt.Sprintf("%s: malformed tuple %d of the record at byte %d is not in quarantine", a.Blob, a.Ordinal, a.Offset))
		}
	}
	for a, n := range held.Quarantine {
		switch {
		case !spoiled[a]:
			notes = append(notes, fmt.Sprintf("%s: tuple %d of the record at byte %d is in quarantine, but was written well", a.Blob, a.Ordinal, a.Offset))
		case n > 1:
			v.Duplicated += n - 1
			notes = append(notes, fmt.Sprintf("%s: tuple %d of the record at byte %d is in quarantine %d times", a.Blob, a.Ordinal, a.Offset, n))
		}
	}
	return notes
}

func (v *Verdict) judgeMinutes(truth traffic.Truth, held Contents) (notes []string) {
	for start, got := range held.Minutes {
		v.RowsInWindows += got.Tuples
		if _, written := truth.Minutes[start]; !written {
			v.MinutesAltered++
			notes = append(notes, fmt.Sprintf("windows of %s: %d rows of a minute in which nothing was written", minuteText(start), got.Tuples))
		}
	}
	for start, want := range truth.Minutes {
		if got := held.Minutes[start]; got != want {
			v.MinutesAltered++
			notes = append(notes, fmt.Sprintf("windows of %s: %+v, written %+v", minuteText(start), got, want))
		}
	}
	return notes
}

func minuteText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }
