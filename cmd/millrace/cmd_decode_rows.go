package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/apache/arrow/go/v17/arrow"
	"golang.org/x/term"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rowtext"
)

// rowWriter writes record batches of schemas.Flows in some format. Records are
// borrowed.
type rowWriter interface {
	// batchRows says how many rows a batch should have, at least.
	batchRows() int
	write(rec arrow.Record) error
	close() error
}

func newRowWriter(format string, w io.Writer) (rowWriter, error) {
	switch format {
	case "table":
		return newTableWriter(w), nil
	case "json":
		return &textWriter{out: bufio.NewWriterSize(w, textBuffer), style: rowtext.JSON}, nil
	case "csv":
		return &textWriter{out: bufio.NewWriterSize(w, textBuffer), style: rowtext.CSV, header: csvHeader()}, nil
	case "arrow", "parquet":
		if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, usageErrorf("decode: -o %s is binary: redirect it to a file or a pipe", format)
		}
		if format == "arrow" {
			return newArrowWriter(w), nil
		}
		return newParquetWriter(w)
	}
	return nil, usageErrorf("decode: -o %q: want table, json, csv, arrow or parquet", format)
}

const textBuffer = 256 << 10

// textWriter writes rows as lines of text: json and csv.
type textWriter struct {
	out    *bufio.Writer
	style  rowtext.Style
	header string // "" for none
	begun  bool
	line   []byte
}

// csvHeader names the columns on the first line.
func csvHeader() string {
	names := make([]string, len(schemas.Flows.Columns))
	for i, c := range schemas.Flows.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, ",") + "\n"
}

func (w *textWriter) batchRows() int { return decodeRows }

// begin writes the header once.
func (w *textWriter) begin() error {
	if w.begun {
		return nil
	}
	w.begun = true
	_, err := w.out.WriteString(w.header)
	return err
}

func (w *textWriter) close() error {
	if err := w.begin(); err != nil {
		return err
	}
	return w.out.Flush()
}

func (w *textWriter) write(rec arrow.Record) error {
	if err := w.begin(); err != nil {
		return err
	}
	rows := rowtext.New(rec, w.style)
	for row := range int(rec.NumRows()) {
		w.line = append(rows.Append(w.line[:0], row), '\n')
		if _, err := w.out.Write(w.line); err != nil {
			return err
		}
	}
	return nil
}

// printable escapes what a terminal would obey.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// printableLines is printable of each line, tabs excepted: an error may have several
// lines, and hold the answer of a server or the name of a blob.
func printableLines(s string) string {
	var b strings.Builder
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		for j, part := range strings.Split(line, "\t") {
			if j > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(printable(part))
		}
	}
	return b.String()
}
