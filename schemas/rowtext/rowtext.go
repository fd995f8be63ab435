// Package rowtext writes the rows of record batches as text: one JSON object or
// one CSV line a row, the same wherever people meet a row as text.
//
// The text of a value depends on the value alone: times are RFC 3339 with
// milliseconds, UTC; addresses are dotted when they are IPv4; numbers are bare;
// maps are JSON objects. Records are borrowed for as long as a Rows lives.
package rowtext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// Style says how a row becomes text.
type Style interface {
	// open, join and end are what stands before, between and after values.
	open(column string, first bool) string
	end() string
	// text gives a text value, quoted as the style wants it.
	text(s string) string
	// bare wraps what needs no quoting but is no number: times and addresses.
	bare() (before, after string)
}

// Styles.
var (
	// JSON is one object a row, its keys the names of the columns in their order.
	JSON Style = jsonStyle{}
	// CSV quotes as RFC 4180, also what a spreadsheet of another language divides at.
	// Text that one would take for a formula gets an apostrophe in front, and control
	// characters are written as \u001b, so that a row is a line. Maps have no form in it.
	CSV Style = csvStyle{}
)

type jsonStyle struct{}

func (jsonStyle) end() string                  { return "}" }
func (jsonStyle) bare() (before, after string) { return `"`, `"` }

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
	return escapeControls(strings.TrimSuffix(b.String(), "\n"), true)
}

type csvStyle struct{}

func (csvStyle) end() string                  { return "" }
func (csvStyle) bare() (before, after string) { return "", "" }

func (csvStyle) open(_ string, first bool) string {
	if first {
		return ""
	}
	return ","
}

// formula are the characters that begin one, in spreadsheets of any language: the wide
// forms are those of East Asian keyboards.
const formula = "=+-@＝＋－＠"

func (csvStyle) text(s string) string {
	s = escapeControls(s, false)
	if r, _ := utf8.DecodeRuneInString(s); s != "" && strings.ContainsRune(formula, r) {
		s = "'" + s
	}
	if strings.ContainsAny(s, ",;\"") {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

// escapeControls writes control characters as \u00XX; those of ASCII only
// where nobody else does. A terminal may obey those behind ASCII as well.
func escapeControls(s string, onlyBehind bool) string {
	control := func(r rune) bool { return r >= 0x7f && r < 0xa0 || r < ' ' && !onlyBehind }
	if strings.IndexFunc(s, control) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if control(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Rows writes the rows of one record.
type Rows struct {
	columns []func(b []byte, row int) []byte
	end     string
}

// New turns columns into appenders, one for each column. Texts are quoted once for
// each dictionary. A column of a type that no table has is a broken invariant.
func New(rec arrow.Record, style Style) *Rows {
	r := &Rows{columns: make([]func([]byte, int) []byte, rec.NumCols()), end: style.end()}
	clock := &Clock{}
	for i := range r.columns {
		r.columns[i] = appender(rec.ColumnName(i), rec.Column(i), style, i == 0, clock)
	}
	return r
}

// Append appends one row, without a line end.
func (r *Rows) Append(b []byte, row int) []byte {
	for _, c := range r.columns {
		b = c(b, row)
	}
	return append(b, r.end...)
}

// appender gives what appends one column's value, with what stands before it.
func appender(name string, column arrow.Array, style Style, first bool, clock *Clock) func(b []byte, row int) []byte {
	open := style.open(name, first)
	before, after := style.bare()
	before = open + before
	switch c := column.(type) {
	case *array.Timestamp:
		return func(b []byte, row int) []byte {
			return append(clock.Append(append(b, before...), int64(c.Value(row))), after...)
		}
	case *array.FixedSizeBinary:
		return func(b []byte, row int) []byte {
			return append(appendAddress(append(b, before...), c.Value(row)), after...)
		}
	case *array.Dictionary:
		return dictionary(open, c, style)
	case *array.String:
		return func(b []byte, row int) []byte { return append(append(b, open...), style.text(c.Value(row))...) }
	case *array.Map:
		return mapping(open, c)
	}
	number := numbers(name, column)
	return func(b []byte, row int) []byte { return number(append(b, open...), row) }
}

// numbers gives what appends a number.
func numbers(name string, column arrow.Array) func(b []byte, row int) []byte {
	switch c := column.(type) {
	case *array.Uint8:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, uint64(c.Value(row)), 10) }
	case *array.Uint16:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, uint64(c.Value(row)), 10) }
	case *array.Uint32:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, uint64(c.Value(row)), 10) }
	case *array.Uint64:
		return func(b []byte, row int) []byte { return strconv.AppendUint(b, c.Value(row), 10) }
	case *array.Int16:
		return func(b []byte, row int) []byte { return strconv.AppendInt(b, int64(c.Value(row)), 10) }
	}
	panic(fmt.Sprintf("BUG: column %q of type %s has no text form", name, column.DataType()))
}

// mapping writes a map from numbers to numbers as a JSON object, in the map's order.
func mapping(open string, m *array.Map) func(b []byte, row int) []byte {
	key, item := numbers("key", m.Keys()), numbers("value", m.Items())
	return func(b []byte, row int) []byte {
		b = append(append(b, open...), '{')
		from, to := m.ValueOffsets(row)
		for i := int(from); i < int(to); i++ {
			if i > int(from) {
				b = append(b, ',')
			}
			b = append(key(append(b, '"'), i), `":`...)
			b = item(b, i)
		}
		return append(b, '}')
	}
}

func dictionary(open string, c *array.Dictionary, style Style) func(b []byte, row int) []byte {
	words := Words(c)
	for i, s := range words {
		words[i] = open + style.text(s)
	}
	switch index := c.Indices().(type) {
	case *array.Uint8:
		return func(b []byte, row int) []byte { return append(b, words[index.Value(row)]...) }
	case *array.Uint32:
		return func(b []byte, row int) []byte { return append(b, words[index.Value(row)]...) }
	}
	return func(b []byte, row int) []byte { return append(b, words[c.GetValueIndex(row)]...) }
}

// Words gives copies of a dictionary's texts.
func Words(c *array.Dictionary) []string {
	values := c.Dictionary().(*array.String)
	words := make([]string, values.Len())
	for i := range words {
		words[i] = strings.Clone(values.Value(i))
	}
	return words
}

// Clock writes times as RFC 3339 with milliseconds, UTC. Rows of a log come minute
// by minute, so the text of the last minute is kept.
type Clock struct {
	minute int64
	text   []byte // 2006-01-02T15:04:
}

const msInMinute = 60_000

// Append appends the time of ms since 1970.
func (c *Clock) Append(b []byte, ms int64) []byte {
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
