package decode

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/millrace/millrace/pipeline"
)

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever stands around the records, the rows are the same.
func TestReaderTakesEveryShape(t *testing.T) {
	one, two := vnetRecord("AAAAAAAAAAAA", tupleAt(1795392000000)), vnetRecord("BBBBBBBBBBBB", tupleAt(1795392000001))
	for _, c := range []struct {
		name, before, between, after string
		reasons                      []pipeline.Reason
	}{
		{"blob", `{"records":[`, ",", `]}`, nil},
		{"blob with whitespace", "\xef\xbb\xbf \r\n{ \"records\" :\n[ ", " ,\n ", " ]\n } \n", nil},
		{"unknown members around", `{"a":{"records":[1]},"b":"}]","records":[`, ",", `],"c":[{"records":[]}],"d":1}`, nil},
		{"region", `,`, ",", ``, nil},
		{"region with BOM", "\xef\xbb\xbf,", ",", ``, nil},
		{"region with footer", `,`, ",", `]}`, nil},
		{"bare array", `[`, ",", `]`, nil},
		{"bare records", ``, ",", ``, nil},
		{"one record a line", ``, "\n", "\n", nil},
		{"two blobs", `{"records":[`, `]}{"records":[`, `]}`, nil},
		{"trailing comma", `{"records":[`, `,`, `,]}`, nil},
		{"escaped name", `{"x":1,"rec\u006frds":[`, ",", `]}`, nil},
		{"no footer", `{"records":[`, ",", ``, []pipeline.Reason{pipeline.ReasonTruncated}},
		{"half a footer", `{"records":[`, ",", `]`, []pipeline.Reason{pipeline.ReasonTruncated}},
		{"cut record", `{"records":[`, ",", `,{"a":`, []pipeline.Reason{pipeline.ReasonTruncated}},
		{"junk behind", `{"records":[`, ",", `]}x`, []pipeline.Reason{pipeline.ReasonSyntax}},
		{"too many brackets", `{"records":[`, ",", `]}}]`, []pipeline.Reason{pipeline.ReasonSyntax}},
	} {
		file := []byte(c.before + one + c.between + two + c.after)
		for _, in := range []struct {
			name string
			in   io.Reader
		}{
			{"plain", bytes.NewReader(file)}, {"gzip", bytes.NewReader(zipped(t, file))}, {"byte by byte", iotest.OneByteReader(bytes.NewReader(file))},
		} {
			t.Run(c.name+"/"+in.name, func(t *testing.T) {
				rows, res, err := readAll(t, in.in)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.reasons, reasons(res.Rejects), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("reasons (-want +got):\n%s", diff)
				}
				if len(rows) != 2 || rows[0].MAC != "AAAAAAAAAAAA" || rows[1].MAC != "BBBBBBBBBBBB" {
					t.Fatalf("rows %+v", rows)
				}
				for i, want := range []int{len(c.before), len(c.before) + len(one) + len(c.between)} {
					if rows[i].RecordOffset != int64(want) {
						t.Errorf("record %d at %d, want %d", i, rows[i].RecordOffset, want)
					}
				}
			})
		}
	}
}

func TestReaderOfNothing(t *testing.T) {
	for _, file := range []string{"", " \n", "\xef\xbb\xbf", `{"records":[]}`, `[]`, `{"records":[ ] , "x" : 1 }`, `,`} {
		rows, res, err := readAll(t, strings.NewReader(file))
		if err != nil || len(rows) > 0 || len(res.Rejects) > 0 {
			t.Errorf("file %q: rows %v, result %+v, error %v", file, rows, res, err)
		}
	}
}

// Reading in chunks of any size gives what decoding at once gives.
func TestReaderEqualsDecode(t *testing.T) {
	for seed := range uint64(150) {
		g := newGenerator(seed)
		g.faults = false
		data := append([]byte(`{"records":[`), g.region()...)
		end := len(data)
		data = append(data, "]}"...)
		want, wantRes := decodeAll(t, Range{Blob: "file", Offset: 12}, data[12:end])
		r, err := NewReader(bytes.NewReader(data), Range{Blob: "file"})
		if err != nil {
			t.Fatal(err)
		}
		r.buf = make([]byte, 1+rand.New(rand.NewPCG(seed, 1)).IntN(300))
		rows, res := drain(t, r)
		if diff := cmp.Diff(want, rows, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("rows (-decode +reader):\n%s", diff)
		}
		if diff := cmp.Diff(wantRes.Rejects, res.Rejects, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("rejects (-decode +reader):\n%s", diff)
		}
		if t.Failed() {
			t.Fatalf("seed %d, file %s", seed, data)
		}
	}
}

func drain(t testing.TB, r *Reader) (rows []row, total Result) {
	t.Helper()
	b := checkedBatch(t)
	for {
		res, err := r.Next(b)
		total.Rejects = append(total.Rejects, res.Rejects...)
		rows = append(rows, takeRows(t, b)...)
		if errors.Is(err, io.EOF) {
			return rows, total
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A record that is longer than the buffer may grow is refused; the next is read.
func TestReaderRefusesEndlessRecords(t *testing.T) {
	good := vnetRecord("", tupleAt(1795392000000))
	long := `{"x":"` + strings.Repeat(`\"}`, 2000) + `"}`
	for _, c := range []struct{ name, data, scope string }{
		{"record", `{"records":[` + long + `,` + good + `]}`, "record"},
		{"scalar", `[` + strings.Repeat("1", 5000) + `,` + good + `]`, "record"},
		{"never ends", `{"records":[` + good + `,` + long[:4000], "range"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := NewReader(strings.NewReader(c.data), Range{})
			if err != nil {
				t.Fatal(err)
			}
			r.buf, r.max = make([]byte, 100), 1000
			rows, res := drain(t, r)
			if len(rows) != 1 || len(res.Rejects) != 1 {
				t.Fatalf("%d rows, rejects %+v", len(rows), res.Rejects)
			}
			if rej := res.Rejects[0]; rej.Reason != pipeline.ReasonLimit || rej.Scope != c.scope || c.data[rej.Offset] != '{' && c.data[rej.Offset] != '1' ||
				rej.Scope == "record" && c.data[rej.Offset+rej.Length] != ',' {
				t.Errorf("reject %+v", rej)
			}
		})
	}
}

// repeat gives a record again and again without holding them.
type repeat struct {
	head, record, tail string
	left               int
}

func (r *repeat) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.head == "" {
			switch {
			case r.left > 1:
				r.head, r.left = r.record+",", r.left-1
			case r.left == 1:
				r.head, r.left = r.record+r.tail, 0
			default:
				return n, io.EOF
			}
		}
		c := copy(p[n:], r.head)
		r.head, n = r.head[c:], n+c
	}
	return n, nil
}

func TestReaderKeepsMemoryConstant(t *testing.T) {
	tuples := strings.Repeat(tupleAt(1795392000000)+`","`, 400)
	in := &repeat{head: `{"records":[`, record: vnetRecord("", strings.TrimSuffix(tuples, `","`)), tail: "]}", left: 10_000}
	r, err := NewReader(in, Range{})
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch(NewRecycler(memory.NewGoAllocator(), 32<<20))
	rows, peak := 0, uint64(0)
	for i := 0; err == nil; i++ {
		var res Result
		res, err = r.Next(b)
		rows += res.Rows
		if rec := b.Take(0); rec != nil {
			rec.Release()
		}
		if i%50 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
	if !errors.Is(err, io.EOF) || rows != 4_000_000 {
		t.Fatalf("%d rows, error %v", rows, err)
	}
	if peak > 64<<20 {
		t.Errorf("heap of %d bytes for a file of %d", peak, r.Offset())
	}
}

// endless gives one byte for ever.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func TestInflateStopsBombs(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.CopyN(z, endless(' '), 40<<20); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := readAll(t, bytes.NewReader(bomb.Bytes()))
	if err == nil || !strings.Contains(err.Error(), "more than 200 times") {
		t.Errorf("error %v", err)
	}
}

func TestInflateTellsBrokenFiles(t *testing.T) {
	file := []byte(`{"records":[` + vnetRecord("", tupleAt(1795392000000)) + `]}`)
	whole := zipped(t, file)
	for _, cut := range []int{3, len(whole) / 2, len(whole) - 1} {
		if _, _, err := readAll(t, bytes.NewReader(whole[:cut])); err == nil {
			t.Errorf("a file cut at %d of %d gives no error", cut, len(whole))
		}
	}
	// Members one after the other are one file.
	two := append(zipped(t, file[:40]), zipped(t, file[40:])...)
	if rows, _, err := readAll(t, bytes.NewReader(two)); err != nil || len(rows) != 1 {
		t.Errorf("two members: %d rows, error %v", len(rows), err)
	}
}

func TestReaderGivesTheErrorOfItsInput(t *testing.T) {
	file := `{"records":[` + vnetRecord("", tupleAt(1795392000000)) + `,`
	broken := errors.New("disk on fire")
	rows, res, err := readAll(t, io.MultiReader(strings.NewReader(file), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || len(rows) != 1 || len(res.Rejects) != 0 {
		t.Errorf("%d rows, rejects %+v, error %v", len(rows), res.Rejects, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add([]byte(s), uint16(100))
		f.Add([]byte(`{"records":[`+s+`]}`), uint16(7))
	}
	f.Add(zipped(f, []byte(`{"records":[`+vnetSeed+`]}`)), uint16(50))
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		r, err := NewReader(bytes.NewReader(data), Range{})
		if err != nil {
			return
		}
		r.buf, r.max = make([]byte, 1+int(size)%500), 500
		b := checkedBatch(t)
		for calls := 0; err == nil; calls++ {
			if calls > 2*len(data)+1000 && r.Offset() <= int64(len(data)) {
				t.Fatalf("no end after %d calls", calls)
			}
			var res Result
			res, err = r.Next(b)
			for _, rej := range res.Rejects {
				if rej.Offset < 0 || rej.Offset+rej.Length > r.Offset() && rej.Scope != "tuple" {
					t.Fatalf("reject %+v beyond %d", rej, r.Offset())
				}
			}
			if rec := b.Take(0); rec != nil {
				rec.Release()
			}
		}
	})
}
