package demo

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/digits"
	"github.com/millrace/millrace/cmd/internal/reconcile"
)

// Result is the last line of a demo with -o json.
type Result struct {
	TuplesWritten uint64 `json:"tuples_written"` // good and malformed, by the simulator's own books
	reconcile.Verdict
	EventsPublished  uint64  `json:"events_published"`
	EventsDuplicated uint64  `json:"events_duplicated"`
	EventsReordered  uint64  `json:"events_reordered"`
	EventsDelayed    uint64  `json:"events_delayed"`
	EventsDropped    uint64  `json:"events_dropped"`
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

// newResult takes over what the simulator knows.
func newResult(truth traffic.Truth) Result {
	e := truth.Events
	return Result{
		TuplesWritten: truth.Totals.Tuples + truth.Totals.Malformed, BytesInBlobs: truth.Totals.Bytes,
		EventsPublished: e.Published, EventsDuplicated: e.Duplicated, EventsReordered: e.Reordered, EventsDelayed: e.Delayed, EventsDropped: e.Dropped,
	}
}

func (r *Result) fetch(bytes uint64, about bool) {
	r.BytesFetched, r.FetchedIsAbout = bytes, about
	if r.BytesInBlobs > 0 {
		r.FetchRatio = float64(bytes) / float64(r.BytesInBlobs)
	}
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
