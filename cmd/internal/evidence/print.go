package evidence

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace/millrace/cmd/internal/jsonline"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
)

// Printer writes for people, or one JSON object a line.
type Printer struct {
	Out  io.Writer
	JSON bool

	outcomes map[Outcome]int // of rows
	shown    int             // rows and windows
	verified int             // of them
}

// Finding writes what is known of one row.
func (p *Printer) Finding(f Finding) error {
	if p.outcomes == nil {
		p.outcomes = map[Outcome]int{}
	}
	p.outcomes[f.Outcome]++
	if p.count(f.Outcome); p.JSON {
		return p.line(f)
	}
	if p.shown > 1 {
		fmt.Fprintln(p.Out)
	}
	subject := f.Address
	if subject == "" {
		subject = "commit " + pipeline.BatchID(f.Batch).String()
	}
	l := lines{head(f.Outcome, subject)}
	l.add("because", reread.Printable(f.Cause))
	if f.Row != nil {
		l.add("row", reread.Printable(summary(f.Row)))
	}
	l.add("tuple", reread.Printable(f.Tuple))
	if f.Record != nil {
		text := fmt.Sprintf("bytes %d to %d of the blob (%d bytes)", f.Record.Offset, f.Record.Offset+f.Record.Length-1, f.Record.Length)
		if f.Tuple != "" {
			text += fmt.Sprintf(", the tuple at byte %d", f.TupleOffset)
		}
		l.add("record", text)
	}
	if f.Row != nil {
		l.add("commit", fmt.Sprintf("%v (batch_id %d)", pipeline.BatchID(f.Batch), f.Batch))
		l.add("byte range", f.Range.text())
	}
	if f.Outcome == Verified {
		l.add("columns", fmt.Sprintf("all %d as the bytes say", len(compared)))
	}
	l.differences(f.Differences, "the bytes say")
	l.hints(f.Hints)
	return l.write(p.Out)
}

// Window writes what the flow rows say to a window.
func (p *Printer) Window(w Window) error {
	if p.count(w.Outcome); p.JSON {
		return p.line(w)
	}
	var key []string
	for name, value := range w.Key {
		key = append(key, name+"="+value)
	}
	l := lines{head(w.Outcome, fmt.Sprintf("%s of %s", w.Table, w.Start.Format(time.RFC3339)))}
	l.add("because", w.Cause)
	l.add("key", reread.Printable(strings.Join(slices.Sorted(slices.Values(key)), " ")))
	l.add("window", fmt.Sprintf("%s until before %s; partial rows and corrections: %d", w.Start.Format(time.RFC3339), w.End.Format(time.RFC3339), w.Partial))
	l.add("landed", counters(w.Landed))
	l.add("flow rows", counters(w.Flows))
	l.differences(w.Differences, "the flow rows say")
	l.hints(w.Hints)
	return l.write(p.Out)
}

// Summary writes the last line for people, when there was more than one row.
func (p *Printer) Summary(rows int, total uint64) error {
	if p.JSON || total < 2 {
		return nil
	}
	var parts []string
	for _, o := range []Outcome{Verified, Differs, Rewritten, Expired, Unreadable, Unknown} {
		if n := p.outcomes[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	text := fmt.Sprintf("%d of %d rows read: %s", rows, total, strings.Join(parts, ", "))
	if uint64(rows) < total {
		text += "; --limit reads more"
	}
	_, err := fmt.Fprintf(p.Out, "\n%s\n", text)
	return err
}

// AllVerified says whether everything that was written was verified.
func (p *Printer) AllVerified() bool { return p.shown > 0 && p.verified == p.shown }

func (p *Printer) count(o Outcome) {
	if p.shown++; o == Verified {
		p.verified++
	}
}

func (p *Printer) line(v any) error {
	return jsonline.Write(p.Out, v)
}

func head(o Outcome, subject string) string {
	return strings.ToUpper(string(o)) + "  " + subject
}

// lines are a head and what belongs to it.
type lines []string

func (l *lines) add(name, text string) {
	if text != "" {
		*l = append(*l, "  "+name+"\t"+text)
	}
}

func (l *lines) differences(found []Difference, other string) {
	for _, d := range found {
		l.add("differs", reread.Printable(fmt.Sprintf("%s: the row has %q, %s %q", d.Column, d.Row, other, d.Bytes)))
	}
}

func (l *lines) hints(hints []string) {
	for _, h := range hints {
		l.add("hint", reread.Printable(h))
	}
}

func (l *lines) write(to io.Writer) error {
	if _, err := fmt.Fprintln(to, (*l)[0]); err != nil {
		return err
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, text := range (*l)[1:] {
		fmt.Fprintln(w, text)
	}
	return w.Flush()
}

// text says what became of the range's hash.
func (r *ByteRange) text() string {
	if r == nil {
		return "not in the table batches yet, which is written with checkpoints: its hash is not compared"
	}
	text := fmt.Sprintf("bytes %d to %d, committed %s, xxh3-128 %s", r.Offset, r.Offset+r.Length-1, r.Committed.UTC().Format("2006-01-02T15:04:05.000Z"), r.Hash)
	switch {
	case r.Note != "":
		return text + ", " + r.Note
	case r.Now == "":
		return text + ", not read"
	case r.Now == r.Hash:
		return text + " as now"
	}
	return text + ", now " + r.Now
}

// summary is the row in one line.
func summary(row map[string]string) string {
	return fmt.Sprintf("%s %s %s: %s:%s to %s:%s, protocol %s, %s, %s, %s", row["time"], row["format"], row["mac"], row["src_ip"], row["src_port"],
		row["dst_ip"], row["dst_port"], row["protocol"], row["direction"], row["state"], row["action"])
}

func counters(sums map[string]uint64) string {
	var parts []string
	for name, n := range sums {
		if name != "rows" {
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		}
	}
	text := fmt.Sprintf("rows %d", sums["rows"])
	if len(parts) > 0 {
		text += ", " + strings.Join(slices.Sorted(slices.Values(parts)), ", ")
	}
	return text
}
