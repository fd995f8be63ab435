package backfill

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace/millrace/cmd/internal/digits"
	"github.com/millrace/millrace/cmd/internal/jsonline"
)

// Printer writes for people, or one JSON object a line.
type Printer struct {
	Out  io.Writer
	JSON bool
}

func (p Printer) line(v any) error {
	return jsonline.Write(p.Out, v)
}

// hourForm is how hours and borders are written.
const hourForm = "2006-01-02 15:04"

func clock(t time.Time) string { return t.UTC().Format(hourForm) }

// Estimate writes what is to come.
func (p Printer) Estimate(e Estimate, border Border, skipped map[string]int) error {
	if p.JSON {
		return p.line(struct {
			Kind string `json:"kind"`
			Estimate
			Border  Border         `json:"border"`
			Skipped map[string]int `json:"skipped_files,omitempty"`
		}{"estimate", e, border, skipped})
	}
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	row := func(n int64, what, format string, args ...any) {
		if n > 0 {
			fmt.Fprintf(w, "%s\t%s blobs\t%s\n", what, digits.Thousands(n), fmt.Sprintf(format, args...))
		}
	}
	todo := e.Blobs[Todo]
	if todo == 0 {
		fmt.Fprintln(w, "to land\t0 blobs\t")
	}
	row(todo, "to land", "%s%s", size(e.Bytes), hours(e.Tally))
	row(e.Resumed, "", "of them go on behind what has landed of them")
	row(e.Rewritten, "", "of them were rewritten since they landed: their rows land anew, as another generation")
	row(e.Blobs[Landed], "landed already", "")
	row(e.Blobs[Live], "left to the live pipeline", "it reads hours from %s UTC on: it began at %s, and its age limit is at %s now", clock(border.First), clock(border.Start), clock(border.Limit))
	row(e.Blobs[Growing], "still growing", "their hour has hardly ended: run this again in two hours")
	row(e.Blobs[Gone], "gone", "they went away meanwhile")
	row(e.Blobs[Uncertain], "left alone", "the target has rows of them of a commit that no ledger here knows: restore that ledger, or run this where its state folder is")
	row(e.Strange, "passed over", "they lie in a folder of an hour and name another one, or none")
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "passed over\t%s files\t%s\n", digits.Thousands(int64(skipped[why])), skips[why])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, name := range e.Uncertain {
		fmt.Fprintf(p.Out, "  left alone: %q\n", name)
	}
	if todo == 0 {
		return nil
	}
	_, err := fmt.Fprintf(p.Out, "about %s requests and %v\n", digits.Thousands(e.Requests), e.Time)
	return err
}

var skips = map[string]string{
	"link": "they are links", "special": "they are devices, pipes or sockets", "name": "no blob can have such a name",
	"gzip":  "they are compressed: unpack them first",
	"place": "they are not below folders of account and container: give --account and --container",
}

func hours(t Tally) string {
	if t.Oldest.IsZero() {
		return ""
	}
	return fmt.Sprintf(", hours %s to %s UTC", clock(t.Oldest), clock(t.Newest))
}

// Result writes what a run did.
func (p Printer) Result(r Result) error {
	if p.JSON {
		return p.line(struct {
			Kind string `json:"kind"`
			Result
		}{"result", r})
	}
	landed := r.Blobs[Todo] - int64(len(r.Failed))
	fmt.Fprintf(p.Out, "landed %s rows of %s blobs, %s, in %v", digits.Thousands(r.Rows), digits.Thousands(landed), size(r.Read), r.Took.Round(100*time.Millisecond))
	if r.Quarantined > 0 {
		fmt.Fprintf(p.Out, "; %s entries in quarantine", digits.Thousands(r.Quarantined))
	}
	if r.Vanished > 0 {
		fmt.Fprintf(p.Out, "; %s blobs went away meanwhile", digits.Thousands(r.Vanished))
	}
	_, err := fmt.Fprintln(p.Out)
	for i, f := range r.Failed {
		if i == maxNamed {
			fmt.Fprintf(p.Out, "  and %d more\n", len(r.Failed)-i)
			break
		}
		fmt.Fprintf(p.Out, "  could not be read: %s\n", f.Why)
	}
	return err
}

// Bar is how far a run has come, in one line.
func Bar(p Progress, e Estimate, took time.Duration, width int) string {
	total := max(e.Bytes, 1)
	part := min(float64(p.Bytes)/float64(total), 1)
	full := int(part * float64(width))
	bar := ""
	if width > 0 {
		bar = "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "] "
	}
	line := fmt.Sprintf("%s%3.0f %%  %s of %s blobs, %s of %s, %s rows", bar, part*100,
		digits.Thousands(p.Blobs), digits.Thousands(e.Blobs[Todo]), size(p.Bytes), size(e.Bytes), digits.Thousands(p.Rows))
	if p.Bytes > 0 && part < 1 {
		left := time.Duration(float64(took) * (1 - part) / part)
		line += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	return line
}

// size gives bytes with a unit that people read.
func size(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for ; v >= unit && i < 4; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %s", v, [...]string{"kB", "MB", "GB", "TB", "PB"}[i])
}
