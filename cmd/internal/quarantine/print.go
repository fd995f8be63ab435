package quarantine

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/millrace/millrace/cmd/internal/jsonline"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
)

// Printer writes for people, or one JSON object a line.
type Printer struct {
	Out  io.Writer
	JSON bool
}

// line writes one JSON object.
func (p Printer) line(v any) error {
	return jsonline.Write(p.Out, v)
}

// table writes rows under heads.
func (p Printer) table(heads string, rows [][]string) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heads)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

const timeForm = "2006-01-02T15:04:05Z"

// Counts writes the entries by reason.
func (p Printer) Counts(counts []Count) error {
	var rows [][]string
	for _, c := range counts {
		if p.JSON {
			if err := p.line(c); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{
			string(c.Reason), strconv.FormatInt(c.Entries, 10), c.Newest.Time.UTC().Format(timeForm), shorten(c.Newest.Detail), c.Newest.Address,
		})
	}
	switch {
	case p.JSON:
		return nil
	case len(rows) == 0:
		_, err := fmt.Fprintln(p.Out, "no entries in quarantine")
		return err
	}
	return p.table("REASON\tENTRIES\tNEWEST\tDETAIL\tADDRESS", rows)
}

// Entries writes entries.
func (p Printer) Entries(entries []Entry) error {
	var rows [][]string
	for _, e := range entries {
		if p.JSON {
			if err := p.line(e); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{
			e.Time.UTC().Format(timeForm), string(e.Reason), e.Scope, strconv.FormatInt(e.Length, 10), shorten(e.Detail), e.Address,
		})
	}
	if p.JSON || len(rows) == 0 {
		return nil
	}
	return p.table("TIME\tREASON\tSCOPE\tBYTES\tDETAIL\tADDRESS", rows)
}

// Inspections writes everything about entries, of each record at most most bytes
// (0: all).
func (p Printer) Inspections(found []Inspection, most int) error {
	for n, i := range found {
		if p.JSON {
			if err := p.line(i); err != nil {
				return err
			}
			continue
		}
		if n > 0 {
			fmt.Fprintln(p.Out)
		}
		if err := p.inspection(i, most); err != nil {
			return err
		}
	}
	return nil
}

func (p Printer) inspection(i Inspection, most int) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
	row("address", i.Address)
	row("reason", reread.Printable(string(i.Reason)))
	row("detail", reread.Printable(i.Detail))
	row("scope", reread.Printable(i.Scope))
	row("time", i.Time.UTC().Format(timeForm))
	row("blob", reread.Printable(i.Blob))
	row("generation", i.Generation)
	row("record offset", i.Offset)
	if i.Scope == scopeTuple {
		row("ordinal", i.Ordinal)
	}
	row("length", fmt.Sprintf("%d bytes of the %s", i.Length, reread.Printable(i.Scope)))
	row("commit", fmt.Sprintf("%v (batch_id %d)", pipeline.BatchID(i.Batch), i.Batch))
	row("excerpt", reread.Printable(i.Excerpt))
	row("a replay says", i.Now.sentence())
	if i.Record == nil {
		row("record", reread.Printable(i.Cause))
		return w.Flush()
	}
	row("record", fmt.Sprintf("%d bytes, read again from the blob:", len(i.Record)))
	if err := w.Flush(); err != nil {
		return err
	}
	shown := i.Record
	if most > 0 {
		shown = shown[:min(most, len(shown))]
	}
	_, err := fmt.Fprintln(p.Out, reread.Printable(string(shown)))
	if rest := len(i.Record) - len(shown); err == nil && rest > 0 {
		_, err = fmt.Fprintf(p.Out, "... %d more bytes: --bytes 0 shows all\n", rest)
	}
	return err
}

func (v Verdict) sentence() string {
	s := string(v.Outcome)
	if v.Rows > 0 {
		s += fmt.Sprintf(", %s", plural(v.Rows, "row"))
	}
	switch {
	case v.Outcome != Refused && v.Refused > 0:
		s += fmt.Sprintf("; %d still refused: %s: %s", v.Refused, v.Reason, v.Detail)
	case v.Refused > 1:
		s += fmt.Sprintf(" (%d times): %s: %s", v.Refused, v.Reason, v.Detail)
	case v.Reason != "":
		s += fmt.Sprintf(": %s: %s", v.Reason, v.Detail)
	case v.Detail != "":
		s += ": " + strings.TrimPrefix(v.Detail, reread.ErrExpired.Error()+": ")
	}
	return reread.Printable(s)
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Summary is what a replay came to.
type Summary struct {
	Entries  int64             `json:"entries"`
	Rows     int64             `json:"rows"` // that landed, or would
	Outcomes map[Outcome]int64 `json:"outcomes"`
}

// Add counts a verdict.
func (s *Summary) Add(v Verdict) {
	if s.Outcomes == nil {
		s.Outcomes = map[Outcome]int64{}
	}
	s.Entries++
	s.Rows += v.Rows
	s.Outcomes[v.Outcome]++
}

// Verdict writes what became of one entry.
func (p Printer) Verdict(v Verdict) error {
	if p.JSON {
		return p.line(v)
	}
	_, err := fmt.Fprintf(p.Out, "%s  %s\n", v.Address, v.sentence())
	return err
}

// Summary writes the last line.
func (p Printer) Summary(s Summary) error {
	if p.JSON {
		return p.line(s)
	}
	var parts []string
	for _, o := range []Outcome{Landed, WouldLand, Already, Refused, Expired, Unreadable, Empty} {
		if n := s.Outcomes[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing to replay")
	}
	entries := "entries"
	if s.Entries == 1 {
		entries = "entry"
	}
	_, err := fmt.Fprintf(p.Out, "%d %s: %s (%s)\n", s.Entries, entries, strings.Join(parts, ", "), plural(s.Rows, "row"))
	return err
}

// shorten makes a text fit for a table.
func shorten(s string) string {
	const most = 60
	s = reread.Printable(s)
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most-1]) + "…"
	}
	return s
}
