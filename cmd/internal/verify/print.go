package verify

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
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
)

// Printer writes for people, or one JSON object a line.
type Printer struct {
	Out  io.Writer
	JSON bool
	// Most findings that are written for people. All are written as JSON.
	Most int
}

func (p Printer) line(v any) error {
	return jsonline.Write(p.Out, v)
}

// Result writes every finding, then the result.
func (p Printer) Result(r *Result) error {
	if p.JSON {
		for _, f := range r.Findings {
			if err := p.line(struct {
				Type string `json:"type"`
				Finding
			}{"finding", f}); err != nil {
				return err
			}
		}
		return p.line(struct {
			Type string `json:"type"`
			*Result
		}{"result", r})
	}
	for i, f := range r.Findings {
		if p.Most > 0 && i == p.Most {
			fmt.Fprintf(p.Out, "... and %s more: --limit shows them, -o json all\n\n", digits.Thousands(int64(len(r.Findings)-i)))
			break
		}
		if err := p.finding(f); err != nil {
			return err
		}
	}
	return p.summary(r)
}

// Plan writes what a repair would do; ahead says that it is done next.
func (p Printer) Plan(r *Repaired, ahead bool) error {
	if err := p.Result(r.Before); err != nil {
		return err
	}
	if p.JSON {
		for _, s := range r.Steps {
			if err := p.line(struct {
				Type string `json:"type"`
				Step
			}{"plan", s}); err != nil {
				return err
			}
		}
		return nil
	}
	switch {
	case len(r.Steps) == 0:
		fmt.Fprintln(p.Out, "\nthere is nothing that a repair could do")
		return nil
	case ahead:
		fmt.Fprintf(p.Out, "\nrepairing: %d steps\n", len(r.Steps))
		return nil
	}
	fmt.Fprintf(p.Out, "\na repair would take %d steps; nothing was written, --yes does it:\n", len(r.Steps))
	for _, s := range r.Steps {
		if err := p.Step(s); err != nil {
			return err
		}
	}
	return nil
}

// Step writes one step of a repair.
func (p Printer) Step(s Step) error {
	if p.JSON {
		return p.line(struct {
			Type string `json:"type"`
			Step
		}{"step", s})
	}
	text := s.Text
	if s.Statement != "" {
		text = s.Statement
	}
	const most = 400
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " ..."
	}
	_, err := fmt.Fprintf(p.Out, "  %s, %s rows: %s\n", s.Table, digits.Thousands(s.Rows), reread.Printable(text))
	return err
}

// words are what people read of the kinds.
var words = map[Kind]string{
	MissingRows: "rows are missing", SurplusRows: "rows are surplus", AlteredRows: "rows are altered", ForeignRows: "rows are foreign",
	MissingQuarantine: "quarantine entries are missing", SurplusQuarantine: "quarantine entries are surplus",
	MissingWindow: "rows make a window that is missing", DoubledWindow: "rows make a window that is there twice", ChangedWindow: "rows make another window than there is",
	Gap: "bytes between commits are missing", Overlap: "bytes are in two commits", UnknownCommit: "rows of a commit that no byte range is known of",
	Rewritten: "bytes of the blob are others now", Unread: "bytes of the blob were not read", ForeignLedger: "ledger is not the target's",
}

func (p Printer) finding(f Finding) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %s\t%s\n", name, reread.Printable(text))
		}
	}
	fmt.Fprintf(w, "%s: %s %s in table %s\n", strings.ToUpper(strings.ReplaceAll(string(f.Kind), "_", " ")), digits.Thousands(f.Count), words[f.Kind], f.Table)
	if f.Blob != "" {
		row("blob", fmt.Sprintf("%s, generation %d", f.Blob, f.Generation))
		row("byte range", rangeText(f.Offset, f.Length))
	}
	if f.Batch != 0 {
		row("commit", fmt.Sprintf("%v (batch_id %d)", pipeline.BatchID(f.Batch), f.Batch))
	}
	if f.Window != nil {
		row("window", f.Window.text())
	}
	for _, a := range f.Addresses {
		row("row", a)
	}
	row("because", f.Detail)
	row("what to do", f.Todo)
	fmt.Fprintln(w)
	return w.Flush()
}

func rangeText(offset, length int64) string {
	if length <= 0 {
		return fmt.Sprintf("from byte %d", offset)
	}
	return fmt.Sprintf("bytes %d to %d", offset, offset+length-1)
}

func (w *Window) text() string {
	var key, sums []string
	for _, name := range slices.Sorted(maps.Keys(w.Key)) {
		key = append(key, name+"="+w.Key[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.Wanted)) {
		if w.Landed[name] != w.Wanted[name] {
			sums = append(sums, fmt.Sprintf("%s %d, want %d", name, w.Landed[name], w.Wanted[name]))
		}
	}
	return fmt.Sprintf("%s, shard %d of ledger %d, %s: %s", w.Start.Format(time.RFC3339), w.Shard, w.Ledger, strings.Join(key, " "), strings.Join(sums, ", "))
}

// summary is what people read last.
func (p Printer) summary(r *Result) error {
	verdict := "EXACT: every row, range and window that was compared is as it should be"
	if !r.Exact {
		n := int64(0)
		for _, k := range r.Found {
			n += k
		}
		verdict = fmt.Sprintf("DIFFERENT: %s findings", digits.Thousands(n))
	}
	fmt.Fprintln(p.Out, verdict)
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	for _, k := range slices.Sorted(maps.Keys(r.Found)) {
		fmt.Fprintf(w, "  %s\t%s\n", strings.ReplaceAll(string(k), "_", " "), digits.Thousands(r.Found[k]))
	}
	fmt.Fprintf(w, "  period\t%s to %s, level %s, in %v\n", r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), r.Level, r.Took)
	fmt.Fprintf(w, "  compared\t%s rows of %s commits, %s byte ranges of %s blobs, %s windows\n", digits.Thousands(r.Rows), digits.Thousands(r.Batches), digits.Thousands(r.Ranges), digits.Thousands(r.Blobs), digits.Thousands(r.Windows))
	fmt.Fprintf(w, "  quarantine\t%s entries; %s rows were filtered\n", digits.Thousands(r.Quarantined), digits.Thousands(r.Filtered))
	if r.Level == Full {
		fmt.Fprintf(w, "  bytes\t%s read again, with %s tuples\n", digits.Thousands(r.BytesRead), digits.Thousands(r.Written))
	}
	if x := r.Pending; x != (Pending{}) {
		fmt.Fprintf(w, "  pending\t%s commits, %s rows, %s bytes: a later run compares them\n", digits.Thousands(x.Batches), digits.Thousands(x.Rows), digits.Thousands(x.Bytes))
	}
	for _, e := range r.Expired {
		fmt.Fprintf(w, "  expired\ttable %s, %s: %s rows of %s blobs%s\n", e.Table, strings.ReplaceAll(string(e.Why), "_", " "), digits.Thousands(e.Rows), digits.Thousands(e.Blobs), behind(e.Detail))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note\t%s\n", reread.Printable(n))
	}
	return w.Flush()
}

func behind(detail string) string {
	if detail == "" {
		return ""
	}
	return " (" + reread.Printable(detail) + ")"
}

// Bar is how far a run has come, in one line.
func Bar(p Progress, took time.Duration) string {
	line := fmt.Sprintf("hour %d of %d, %s rows", p.Done, p.Hours, digits.Thousands(p.Rows))
	part := float64(p.Done) / float64(max(p.Hours, 1))
	if p.Total > 0 {
		part = min(float64(p.Bytes)/float64(p.Total), 1)
		line += fmt.Sprintf(", %.0f of %.0f MB of %s blobs, %.1f MB/s", float64(p.Bytes)/1e6, float64(p.Total)/1e6, digits.Thousands(p.Blobs), float64(p.Bytes)/1e6/max(took.Seconds(), 0.001))
	}
	if part > 0 && part < 1 {
		line += fmt.Sprintf(", %v left", time.Duration(float64(took)*(1-part)/part).Round(time.Second))
	}
	return fmt.Sprintf("%3.0f %%  %s", part*100, line)
}
