package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/digits"
)

// Result is the last line of a demo with -o json.
type Result struct {
	TuplesWritten    uint64  `json:"tuples_written"` // good and malformed, by the simulator's own books
	RowsLanded       uint64  `json:"rows_landed"`
	RowsInWindows    uint64  `json:"rows_in_windows"` // sum of rows over windows_traffic_1m
	EventsPublished  uint64  `json:"events_published"`
	EventsDuplicated uint64  `json:"events_duplicated"`
	EventsReordered  uint64  `json:"events_reordered"`
	EventsDelayed    uint64  `json:"events_delayed"`
	EventsDropped    uint64  `json:"events_dropped"`
	Malformed        uint64  `json:"malformed"`       // tuples that the simulator spoiled
	Quarantined      uint64  `json:"quarantined"`     // entries in the table quarantine
	Lost             uint64  `json:"lost"`            // good tuples without a row, malformed ones without an entry
	Duplicated       uint64  `json:"duplicated"`      // rows and entries beyond one for an address
	Altered          uint64  `json:"altered"`         // blobs whose column sums differ from the simulator's
	MinutesAltered   uint64  `json:"minutes_altered"` // minutes whose windows differ from the simulator's books
	BytesInBlobs     uint64  `json:"bytes_in_blobs"`
	BytesFetched     uint64  `json:"bytes_fetched"`
	FetchedIsAbout   bool    `json:"bytes_fetched_is_about"` // a killed pipeline's last word was taken for its count
	FetchRatio       float64 `json:"fetch_ratio"`
	Kills            int     `json:"kills"`
	Seconds          float64 `json:"seconds"` // from the estate's start until the last row had landed
	TuplesPerSecond  float64 `json:"tuples_per_second"`
	FirstRowSeconds  float64 `json:"first_row_seconds"` // since the start of the demo
	PipelineRSSMiB   int64   `json:"pipeline_rss_mib"`  // highest, of the pipeline's process
	*Figures                 // of a run in real time
	Reconciled       bool    `json:"reconciled"` // everything was compared; Lost and so on say with what outcome
}

// Good says that every tuple is where it belongs exactly once.
func (r *Result) Good() bool {
	return r.Lost == 0 && r.Duplicated == 0 && r.Altered == 0 && r.MinutesAltered == 0 && r.RowsInWindows == r.RowsLanded && r.Quarantined == r.Malformed
}

// newResult takes over what the simulator knows.
func newResult(truth traffic.Truth) Result {
	e := truth.Events
	return Result{
		TuplesWritten: truth.Totals.Tuples + truth.Totals.Malformed, Malformed: truth.Totals.Malformed, BytesInBlobs: truth.Totals.Bytes,
		EventsPublished: e.Published, EventsDuplicated: e.Duplicated, EventsReordered: e.Reordered, EventsDelayed: e.Delayed, EventsDropped: e.Dropped,
	}
}

func (r *Result) fetch(bytes uint64, about bool) {
	r.BytesFetched, r.FetchedIsAbout = bytes, about
	if r.BytesInBlobs > 0 {
		r.FetchRatio = float64(bytes) / float64(r.BytesInBlobs)
	}
}

// judge fills in what is lost, doubled and altered, and says where.
func (r *Result) judge(truth traffic.Truth, held contents) []string {
	notes := slices.Concat(r.judgeBlobs(truth, held), r.judgeQuarantine(truth, held), r.judgeMinutes(truth, held))
	for _, name := range truth.Doubtful {
		notes = append(notes, name+": the storage never confirmed the last append, so the books may be one append short")
	}
	slices.Sort(notes)
	r.Reconciled = true
	return notes
}

func (r *Result) judgeBlobs(truth traffic.Truth, held contents) (notes []string) {
	for name, want := range truth.Blobs {
		got := held.blobs[name]
		r.RowsLanded += got.rows
		if got.addresses < want.Tuples {
			r.Lost += want.Tuples - got.addresses
			notes = append(notes, fmt.Sprintf("%s: %d of %d tuples have no row", name, want.Tuples-got.addresses, want.Tuples))
		}
		surplus := got.rows - min(got.addresses, want.Tuples)
		if surplus > 0 {
			r.Duplicated += surplus
			notes = append(notes, fmt.Sprintf("%s: %d rows too many", name, surplus))
		}
		if got.rows == want.Tuples && got.sums != want.Sums {
			r.Altered++
			notes = append(notes, fmt.Sprintf("%s: the sums of its columns differ: landed %+v, written %+v", name, got.sums, want.Sums))
		}
	}
	for name, got := range held.blobs {
		if _, written := truth.Blobs[name]; !written {
			r.RowsLanded += got.rows
			r.Duplicated += got.rows
			notes = append(notes, fmt.Sprintf("%s: %d rows of a blob that nobody wrote", name, got.rows))
		}
	}
	return notes
}

// judgeQuarantine wants one entry for each malformed tuple and no other. Books that
// were too long to be kept whole are held against the count alone.
func (r *Result) judgeQuarantine(truth traffic.Truth, held contents) (notes []string) {
	for _, n := range held.quarantine {
		r.Quarantined += n
	}
	if uint64(len(truth.Malformed)) < truth.Totals.Malformed {
		return nil
	}
	spoiled := map[address]bool{}
	for _, m := range truth.Malformed {
		a := address{m.Blob, uint64(m.RecordOffset), uint32(m.Ordinal)}
		spoiled[a] = true
		if held.quarantine[a] == 0 {
			r.Lost++
			notes = append(notes, fmt.Sprintf("%s: malformed tuple %d of the record at byte %d is not in quarantine", a.blob, a.ordinal, a.offset))
		}
	}
	for a, n := range held.quarantine {
		switch {
		case !spoiled[a]:
			notes = append(notes, fmt.Sprintf("%s: tuple %d of the record at byte %d is in quarantine, but was written well", a.blob, a.ordinal, a.offset))
		case n > 1:
			r.Duplicated += n - 1
			notes = append(notes, fmt.Sprintf("%s: tuple %d of the record at byte %d is in quarantine %d times", a.blob, a.ordinal, a.offset, n))
		}
	}
	return notes
}

func (r *Result) judgeMinutes(truth traffic.Truth, held contents) (notes []string) {
	for start, got := range held.minutes {
		r.RowsInWindows += got.Tuples
		if _, written := truth.Minutes[start]; !written {
			r.MinutesAltered++
			notes = append(notes, fmt.Sprintf("windows of %s: %d rows of a minute in which nothing was written", minuteText(start), got.Tuples))
		}
	}
	for start, want := range truth.Minutes {
		if got := held.minutes[start]; got != want {
			r.MinutesAltered++
			notes = append(notes, fmt.Sprintf("windows of %s: %+v, written %+v", minuteText(start), got, want))
		}
	}
	return notes
}

// maxNotes bounds what is printed of them.
const maxNotes = 20

// lines tells people how it came out.
func (r *Result) lines(notes []string) []string {
	var out []string
	line := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for i, n := range notes {
		if i == maxNotes {
			line("  ... and %d more", len(notes)-i)
			break
		}
		line("  %s", n)
	}
	verdict := "every tuple is in the tables exactly once"
	if !r.Good() {
		verdict = "THE TABLES DO NOT MATCH WHAT WAS WRITTEN"
	}
	fetched := "fetched"
	if r.FetchedIsAbout {
		fetched = "fetched about"
	}
	line("")
	line("reconciled: %s", verdict)
	line("  tuples written   %15s", digits.Thousands(r.TuplesWritten))
	line("  rows landed      %15s   in windows %s", digits.Thousands(r.RowsLanded), digits.Thousands(r.RowsInWindows))
	line("  lost             %15s   duplicated %s   altered: %d blobs, %d minutes of windows", digits.Thousands(r.Lost), digits.Thousands(r.Duplicated), r.Altered, r.MinutesAltered)
	line("  quarantined      %15s   malformed tuples written %s", digits.Thousands(r.Quarantined), digits.Thousands(r.Malformed))
	line("  events           %15s   duplicated %s   reordered %s   delayed %s   dropped %s", digits.Thousands(r.EventsPublished),
		digits.Thousands(r.EventsDuplicated), digits.Thousands(r.EventsReordered), digits.Thousands(r.EventsDelayed), digits.Thousands(r.EventsDropped))
	line("  bytes in blobs   %15s   %s %s (%.3f)", digits.Thousands(r.BytesInBlobs), fetched, digits.Thousands(r.BytesFetched), r.FetchRatio)
	line("  %.1f s, %s tuples/s, first row after %.1f s, pipeline %d MiB, %d kills", r.Seconds, digits.Thousands(uint64(r.TuplesPerSecond)), r.FirstRowSeconds, r.PipelineRSSMiB, r.Kills)
	if f := r.Figures; f != nil {
		line("  %.1f notifications/s   queryable after up to %.3g s (half), %.3g s (99 of 100)   per hour: %s ledger writes, %s parts   %.0f s of CPU",
			f.NotificationsPerSecond, f.LagP50, f.LagP99, digits.Thousands(uint64(f.LedgerWritesPerHour)), digits.Thousands(uint64(f.InsertsPerHour)), f.CPUSeconds)
	}
	return out
}

func printJSON(out io.Writer, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	fmt.Fprintln(out, string(data))
}

// printFailure is the last line of a demo with -o json that has nothing to tell of
// its tables.
func printFailure(out io.Writer, err error) {
	printJSON(out, struct {
		Reconciled bool   `json:"reconciled"`
		Error      string `json:"error"`
	}{Error: err.Error()})
}

func minuteText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }
