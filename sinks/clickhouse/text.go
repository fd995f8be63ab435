package clickhouse

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// trailingFormat is the FORMAT at the end of a statement.
var trailingFormat = regexp.MustCompile(`(?i)\s+FORMAT\s+(\w+)[\s;]*$`)

// cutFormat parts a statement from its FORMAT: TabSeparated when it has none.
func cutFormat(sql string) (statement, format string) {
	at := trailingFormat.FindStringSubmatchIndex(sql)
	if at == nil {
		return sql, "TabSeparated"
	}
	return sql[:at[0]], sql[at[2]:at[3]]
}

// writeText writes rows as the server would over HTTP, in TabSeparated,
// TabSeparatedRaw or JSONEachRow with plain numbers. It is for answers that people
// and this package read: some rows, by reflection.
//
// Errors: another format; more than maxAnswer bytes.
func writeText(rows driver.Rows, format string) (string, error) {
	line, ok := map[string]func(b *strings.Builder, names []string, values []cell){
		"TabSeparated":    func(b *strings.Builder, _ []string, values []cell) { tabSeparated(b, values, tabEscapes.Replace) },
		"TabSeparatedRaw": func(b *strings.Builder, _ []string, values []cell) { tabSeparated(b, values, strings.Clone) },
		"JSONEachRow":     jsonRow,
	}[format]
	if !ok {
		return "", fmt.Errorf("format %s over native TCP: want TabSeparated, TabSeparatedRaw or JSONEachRow, or a url of http://", format)
	}
	types := rows.ColumnTypes()
	var b strings.Builder
	for rows.Next() {
		targets := make([]any, len(types))
		for i, t := range types {
			targets[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(targets...); err != nil {
			return "", fmt.Errorf("read answer: %w", err)
		}
		values := make([]cell, len(types))
		for i, target := range targets {
			values[i] = cell{reflect.ValueOf(target).Elem(), types[i].DatabaseTypeName()}
		}
		line(&b, rows.Columns(), values)
		if b.Len() > maxAnswer {
			return "", errors.New("read answer: it is too long")
		}
	}
	return b.String(), rows.Err()
}

// cell is one value of an answer.
type cell struct {
	value reflect.Value
	kind  string // ClickHouse type
}

func tabSeparated(b *strings.Builder, values []cell, escape func(string) string) {
	for i, c := range values {
		if i > 0 {
			b.WriteByte('\t')
		}
		if text, isNull := c.text(escape); isNull {
			b.WriteString(`\N`)
		} else {
			b.WriteString(text)
		}
	}
	b.WriteByte('\n')
}

var tabEscapes = strings.NewReplacer("\\", `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "\x00", `\0`, "\b", `\b`, "\f", `\f`, "'", `\'`)

// quoted is how text stands in arrays and maps.
func quoted(s string) string { return "'" + tabEscapes.Replace(s) + "'" }

// jsonRow writes numbers as numbers and all else as text.
func jsonRow(b *strings.Builder, names []string, values []cell) {
	row := make(map[string]any, len(values))
	for i, c := range values {
		text, isNull := c.text(strings.Clone)
		switch {
		case isNull:
			row[names[i]] = nil
		case c.value.CanInt() || c.value.CanUint() || c.value.CanFloat():
			row[names[i]] = json.RawMessage(text)
		default:
			row[names[i]] = text
		}
	}
	text, err := json.Marshal(row)
	if err != nil {
		panic("BUG: a row is no JSON: " + err.Error())
	}
	b.Write(text)
	b.WriteByte('\n')
}

// dateTime64 finds the precision of a type, wherever it stands.
var dateTime64 = regexp.MustCompile(`DateTime64\((\d)`)

// text writes a value as ClickHouse does; escape is for what is text.
func (c cell) text(escape func(string) string) (text string, isNull bool) {
	v := c.value
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return "NULL", true
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return escape(x.Format(c.layout())), false
	case net.IP:
		if strings.Contains(c.kind, "IPv6") { // ::ffff:10.0.0.4, which net.IP would shorten.
			return escape(netip.AddrFrom16([16]byte(x.To16())).String()), false
		}
		return escape(x.String()), false
	case fmt.Stringer: // UUIDs, decimals.
		return escape(x.String()), false
	}
	switch kind := v.Kind(); {
	case kind == reflect.String:
		return escape(v.String()), false
	case kind == reflect.Map:
		var parts []string
		for it := v.MapRange(); it.Next(); {
			key, _ := cell{it.Key(), c.kind}.text(quoted)
			item, _ := cell{it.Value(), c.kind}.text(quoted)
			parts = append(parts, key+":"+item)
		}
		return "{" + strings.Join(parts, ",") + "}", false
	case kind != reflect.Slice && kind != reflect.Array:
		return fmt.Sprint(v.Interface()), false
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i], _ = cell{v.Index(i), c.kind}.text(quoted)
	}
	if strings.HasPrefix(c.kind, "Tuple") {
		return "(" + strings.Join(parts, ",") + ")", false
	}
	return "[" + strings.Join(parts, ",") + "]", false
}

// layout is how a time of the type is written.
func (c cell) layout() string {
	if m := dateTime64.FindStringSubmatch(c.kind); m != nil {
		if digits, _ := strconv.Atoi(m[1]); digits > 0 {
			return "2006-01-02 15:04:05." + strings.Repeat("0", digits)
		}
	}
	if strings.Contains(c.kind, "DateTime") {
		return time.DateTime
	}
	return time.DateOnly
}
