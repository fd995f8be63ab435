package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"golang.org/x/term"

	"github.com/millrace/millrace/schemas"
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
		return &textWriter{out: bufio.NewWriterSize(w, textBuffer), style: jsonStyle{}}, nil
	case "csv":
		return &textWriter{out: bufio.NewWriterSize(w, textBuffer), style: csvStyle{}}, nil
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

// textStyle says how a row becomes text.
type textStyle interface {
	header() string
	// open, join and end are what stands before, between and after values.
	open(column string, first bool) string
	end() string
	// text gives a text value, quoted as the style wants it.
	text(s string) string
	// bare wraps what needs no quoting but is no number: times and addresses.
	bare() (before, after string)
}

// jsonStyle writes one object a line.
type jsonStyle struct{}

func (jsonStyle) header() string { return "" }
func (jsonStyle) end() string    { return "}\n" }
func (jsonStyle) bare() (before, after string) {
	return `"`, `"`
}

func (jsonStyle) open(column string, first bool) string {
	if first {
		return `{"` + column + `":`
	}
	return `,"` + column + `":`
}

func (jsonStyle) text(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("BUG: a string does not encode: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// csvStyle quotes as RFC 4180 and begins with a header line. Text that a spreadsheet would take
// for a formula gets an apostrophe in front.
type csvStyle struct{}

func (csvStyle) header() string {
	names := make([]string, len(schemas.Flows.Columns))
	for i, c := range schemas.Flows.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, ",") + "\n"
}
func (csvStyle) end() string                  { return "\n" }
func (csvStyle) bare() (before, after string) { return "", "" }
func (csvStyle) open(_ string, first bool) string {
	if first {
		return ""
	}
	return ","
}

func (csvStyle) text(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		s = "'" + s
	}
	if strings.ContainsAny(s, ",\"\r\n") {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

// textWriter writes rows as lines of text: json and csv.
type textWriter struct {
	out   *bufio.Writer
	style textStyle
	begun bool
	line  []byte
	clock clock
}

func (w *textWriter) batchRows() int { return decodeRows }

// begin writes the header once.
func (w *textWriter) begin() error {
	if w.begun {
		return nil
	}
	w.begun = true
	_, err := w.out.WriteString(w.style.header())
	return err
}

func (w *textWriter) close() error {
	if err := w.begin(); err != nil {
		return err
	}
	return w.out.Flush()
}

// write turns columns into appenders, one for each column, and runs them row by
// row. Texts are quoted once for each dictionary.
func (w *textWriter) write(rec arrow.Record) error {
	if err := w.begin(); err != nil {
		return err
	}
	columns := make([]func([]byte, int) []byte, rec.NumCols())
	for i := range columns {
		columns[i] = w.appender(rec.ColumnName(i), rec.Column(i), i == 0)
	}
	end := w.style.end()
	for row := range int(rec.NumRows()) {
		w.line = w.line[:0]
		for _, c := range columns {
			w.line = c(w.line, row)
		}
		w.line = append(w.line, end...)
		if _, err := w.out.Write(w.line); err != nil {
			return err
		}
	}
	return nil
}

// appender gives what appends one column's value, with what stands before it.
func (w *textWriter) appender(name string, column arrow.Array, first bool) func(b []byte, row int) []byte {
	open := w.style.open(name, first)
	before, after := w.style.bare()
	before = open + before
	switch c := column.(type) {
	case *array.Timestamp:
		return func(b []byte, row int) []byte {
			return append(w.clock.append(append(b, before...), int64(c.Value(row))), after...)
		}
	case *array.FixedSizeBinary:
		return func(b []byte, row int) []byte {
			return append(appendAddress(append(b, before...), c.Value(row)), after...)
		}
	case *array.Dictionary:
		return w.dictionary(open, c)
	case *array.Uint8:
		return func(b []byte, row int) []byte {
			return strconv.AppendUint(append(b, open...), uint64(c.Value(row)), 10)
		}
	case *array.Uint16:
		return func(b []byte, row int) []byte {
			return strconv.AppendUint(append(b, open...), uint64(c.Value(row)), 10)
		}
	case *array.Uint32:
		return func(b []byte, row int) []byte {
			return strconv.AppendUint(append(b, open...), uint64(c.Value(row)), 10)
		}
	case *array.Uint64:
		return func(b []byte, row int) []byte { return strconv.AppendUint(append(b, open...), c.Value(row), 10) }
	}
	panic(fmt.Sprintf("BUG: column %q of type %s has no text form", name, column.DataType()))
}

func (w *textWriter) dictionary(open string, c *array.Dictionary) func(b []byte, row int) []byte {
	words := dictionaryTexts(c)
	for i, s := range words {
		words[i] = open + w.style.text(s)
	}
	switch index := c.Indices().(type) {
	case *array.Uint8:
		return func(b []byte, row int) []byte { return append(b, words[index.Value(row)]...) }
	case *array.Uint32:
		return func(b []byte, row int) []byte { return append(b, words[index.Value(row)]...) }
	}
	return func(b []byte, row int) []byte { return append(b, words[c.GetValueIndex(row)]...) }
}

func dictionaryTexts(c *array.Dictionary) []string {
	values := c.Dictionary().(*array.String)
	words := make([]string, values.Len())
	for i := range words {
		words[i] = strings.Clone(values.Value(i))
	}
	return words
}

// clock writes times as RFC 3339 with milliseconds, UTC. Rows of a log come minute
// by minute, so the text of the last minute is kept.
type clock struct {
	minute int64
	text   []byte // 2006-01-02T15:04:
}

const msInMinute = 60_000

func (c *clock) append(b []byte, ms int64) []byte {
	minute := ms / msInMinute
	if minute != c.minute || c.text == nil {
		c.minute, c.text = minute, time.UnixMilli(minute*msInMinute).UTC().AppendFormat(c.text[:0], "2006-01-02T15:04:")
	}
	rest := ms - minute*msInMinute
	s, f := byte(rest/1000), rest%1000
	return append(append(b, c.text...), '0'+s/10, '0'+s%10, '.', '0'+byte(f/100), '0'+byte(f/10%10), '0'+byte(f%10), 'Z')
}

// appendAddress writes 16 bytes as IPv4 when mapped, else as IPv6.
func appendAddress(b, address []byte) []byte {
	a := netip.AddrFrom16([16]byte(address))
	return a.Unmap().AppendTo(b)
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
