package rowtext

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/schemas"
)

// A cell is no formula to a spreadsheet of any language, and its row is one line that
// no terminal obeys.
func TestCSVIsNoFormula(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "＝1": "'＝1", "＋1": "'＋1", "－1": "'－1", "＠x": "'＠x",
		"a=1": "a=1", " =1": " =1", "'=1": "'=1", "--": "'--", "=": "'=", "日本": "日本",
		"a,b": `"a,b"`, `=a"b`: `"'=a""b"`, "a;=1": `"a;=1"`, `=HYPERLINK("http://evil.example","x")`: `"'=HYPERLINK(""http://evil.example"",""x"")"`,
		"=cmd|'/C calc'!A0": "'=cmd|'/C calc'!A0",
		"\tx":               `\u0009x`, "\t=1": `\u0009=1`, "\r=1": `\u000d=1`, "a\nb": `a\u000ab`, "\x00=1": `\u0000=1`, "\x1b[31m": `\u001b[31m`, "\x7f": `\u007f`, "\u009b31m": `\u009b31m`, "a\r\n=1,b": `"a\u000d\u000a=1,b"`,
	} {
		if got := CSV.text(in); got != want {
			t.Errorf("text %q is %q, want %q", in, got, want)
		}
	}
}

// JSON reads back what it was given, and a terminal obeys nothing of it.
func TestJSONHoldsNoControls(t *testing.T) {
	for _, in := range []string{"", "plain", "\x00\x1b[31m\x7f", "\u0080\u009b31m\u009f", "a\r\nb\tc", `","x":"`, "\u2028\u2029", "日本語\u202e"} {
		got, back := JSON.text(in), ""
		if err := json.Unmarshal([]byte(got), &back); err != nil || back != in {
			t.Errorf("%q is %s, which reads as %q, %v", in, got, back, err)
		}
		if strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q is %q", in, got)
		}
	}
}

func TestClockWritesMilliseconds(t *testing.T) {
	var c Clock
	for _, ms := range []int64{0, 1, 59_999, 60_000, 1795413600123, 1795413600009, 253402300799999} {
		want := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
		if got := string(c.Append(nil, ms)); got != want {
			t.Errorf("time %d is %s, want %s", ms, got, want)
		}
	}
}

// Every type that a column of a table has, beside those of flows.
func TestJSONOfEveryType(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	buckets := arrow.MapOf(arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Uint64)
	b := array.NewRecordBuilder(mem, arrow.NewSchema([]arrow.Field{
		{Name: "at", Type: schemas.TimeMS},
		{Name: "ip", Type: schemas.Address},
		{Name: "name", Type: schemas.Name},
		{Name: "detail", Type: arrow.BinaryTypes.String},
		{Name: "buckets", Type: buckets},
		{Name: "n", Type: arrow.PrimitiveTypes.Uint64},
	}, nil))
	defer b.Release()
	for row := range 2 {
		b.Field(0).(*array.TimestampBuilder).Append(1795413600123)
		b.Field(1).(*array.FixedSizeBinaryBuilder).Append([]byte{10: 0xff, 11: 0xff, 12: 10, 15: byte(row)})
		if err := b.Field(2).(*array.BinaryDictionaryBuilder).AppendString(`a"<b>`); err != nil {
			t.Fatal(err)
		}
		b.Field(3).(*array.StringBuilder).Append("tab\tand ☃")
		m := b.Field(4).(*array.MapBuilder)
		m.Append(true)
		for i := range row * 2 {
			m.KeyBuilder().(*array.Int16Builder).Append(int16(i - 1))
			m.ItemBuilder().(*array.Uint64Builder).Append(^uint64(0) - uint64(i))
		}
		b.Field(5).(*array.Uint64Builder).Append(^uint64(0))
	}
	rec := b.NewRecord()
	defer rec.Release()
	rows := New(rec, JSON)
	for row, want := range []string{
		`{"at":"2026-11-23T06:00:00.123Z","ip":"10.0.0.0","name":"a\"<b>","detail":"tab\tand ☃","buckets":{},"n":18446744073709551615}`,
		`{"at":"2026-11-23T06:00:00.123Z","ip":"10.0.0.1","name":"a\"<b>","detail":"tab\tand ☃","buckets":{"-1":18446744073709551615,"0":18446744073709551614},"n":18446744073709551615}`,
	} {
		got := rows.Append(nil, row)
		if string(got) != want {
			t.Errorf("row %d:\n got %s\nwant %s", row, got, want)
		}
		if !json.Valid(got) {
			t.Errorf("row %d is no JSON", row)
		}
	}
}
