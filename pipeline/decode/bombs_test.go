package decode

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/klauspost/compress/zstd"

	"github.com/millrace/millrace/pipeline"
)

// resident gives what the process holds of memory, in bytes, without what the
// runtime has given back.
func resident() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// growth gives by how much memory grew at most while run ran.
func growth(run func()) uint64 {
	debug.FreeOSMemory()
	before, peak := resident(), uint64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak = max(peak, resident())
			}
		}
	}()
	run()
	peak = max(peak, resident())
	close(stop)
	<-done
	return peak - min(peak, before)
}

// many gives a text n times without holding them.
func many(text string, n int) io.Reader {
	block := strings.Repeat(text, max(1, 64<<10/len(text)))
	per := len(block) / len(text)
	return io.MultiReader(&repeated{block, n / per, ""}, strings.NewReader(strings.Repeat(text, n%per)))
}

type repeated struct {
	block string
	left  int
	rest  string
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.rest == "" {
			if r.left == 0 {
				break
			}
			r.rest, r.left = r.block, r.left-1
		}
		c := copy(p[n:], r.rest)
		r.rest, n = r.rest[c:], n+c
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// outcome is what became of a file of three records, the one in the middle a bomb.
type outcome struct {
	rows    int
	reasons map[pipeline.Reason]int
	size    int64
}

func explode(t *testing.T, in io.Reader, prepare func(*Reader)) (o outcome) {
	t.Helper()
	r, err := NewReader(in, Range{})
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(r)
	}
	recycler := NewRecycler(memory.NewGoAllocator(), 8<<20)
	defer recycler.Close()
	b := NewBatch(recycler)
	defer b.Release()
	o.reasons = map[pipeline.Reason]int{}
	for err == nil {
		var res Result
		res, err = r.Next(b)
		o.rows += res.Rows
		for _, rej := range res.Rejects {
			o.reasons[rej.Reason]++
		}
		if rec := b.Take(0); rec != nil {
			rec.Release()
		}
	}
	if err != io.EOF { //nolint:errorlint // given bare
		t.Error(err)
	}
	o.size = r.Offset()
	return o
}

// Bombs of each kind at their limit, one above it and a thousand times it: at the
// limit the record lands, above it the record is refused with limit_exceeded, and
// its neighbours land either way. Memory stays within twice the longest record that
// is taken, whatever the bomb's size.
func TestBombs(t *testing.T) {
	good := vnetRecord("", tupleAt(1795392000000))
	head, tail, _ := strings.Cut(good, "UserRule_r")
	first, last, _ := strings.Cut(good, tupleAt(1795392000000))
	limits := DefaultLimits()
	text := func(s string) io.Reader { return strings.NewReader(s) }
	small := func(r *Reader) { r.buf, r.max = make([]byte, 4<<10), 1<<20 }
	for _, c := range []struct {
		name    string
		limit   int
		rows    int // that the record has at the limit, all others 1
		bomb    func(n int) io.Reader
		prepare func(*Reader)
	}{
		{"depth", limits.Depth, 1, func(n int) io.Reader {
			return io.MultiReader(text(`{"x":`), many("[", n-1), many("]", n-1), text(","+good[1:]))
		}, nil},
		{"depth of objects", limits.Depth, 1, func(n int) io.Reader {
			return io.MultiReader(text(`{"x":`), many(`{"a":`, n-1), text("1"), many("}", n-1), text(","+good[1:]))
		}, nil},
		{"text", limits.Text, 1, func(n int) io.Reader { return io.MultiReader(text(head), many("r", n), text(tail)) }, nil},
		{"members", limits.Members, 1, func(n int) io.Reader { return io.MultiReader(text("{"), many(`"x":1,`, n-4), text(good[1:])) }, nil},
		{"tuples", limits.Tuples, limits.Tuples, func(n int) io.Reader {
			if n > 2*limits.Tuples { // ten times as many empty ones: more make a record too long, which is another kind
				return io.MultiReader(text(first), many(`","`, n/100-1), text(last))
			}
			const short = "1795392000000,1.1.1.1,2.2.2.2,1,2,6,O,E,NX,,,,"
			return io.MultiReader(text(first), many(short+`","`, n-1), text(short+last))
		}, nil},
		{"record", 1 << 20, 1, func(n int) io.Reader {
			return io.MultiReader(text(`{"x":[`), many(`1,`, (n-len(good)-8)/2), many(" ", (n-len(good)-8)%2), text(`1],`+good[1:]))
		}, small},
		{"escapes", 1 << 20, 1, func(n int) io.Reader {
			return io.MultiReader(text(`{"x":"`), many(`\"`, (n-len(good)-7)/2), many(" ", (n-len(good)-7)%2), text(`",`+good[1:]))
		}, small},
	} {
		for _, times := range []struct {
			name string
			n    int
		}{{"at the limit", c.limit}, {"one above", c.limit + 1}, {"a thousand times", 1000 * c.limit}} {
			t.Run(c.name+"/"+times.name, func(t *testing.T) {
				var o outcome
				grown := growth(func() {
					in := io.MultiReader(text(`{"records":[`+good+`,`), c.bomb(times.n), text(`,`+good+`]}`))
					o = explode(t, in, c.prepare)
				})
				want, reasons := 2+c.rows, map[pipeline.Reason]int{}
				if times.n > c.limit {
					want, reasons = 2, map[pipeline.Reason]int{pipeline.ReasonLimit: 1}
				}
				if o.rows != want || fmt.Sprint(o.reasons) != fmt.Sprint(reasons) {
					t.Errorf("%d rows, reasons %v, want %d, %v", o.rows, o.reasons, want, reasons)
				}
				if grown > 2*maxRecordBytes+64<<20+uint64(c.rows)*400 {
					t.Errorf("memory grew by %d MiB over a file of %d MiB", grown>>20, o.size>>20)
				}
				t.Logf("file of %d bytes, memory grew by %d MiB", o.size, grown>>20)
			})
		}
	}
}

// gzipMember is one gzip member that inflates to n blanks.
func gzipMember(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.CopyN(z, endless(' '), n); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Files that inflate to far more than they are: as one stream, as members one after
// the other, within another file, with a length that lies. The answer is an error
// while they stream, and little memory.
func TestInflateBombs(t *testing.T) {
	small := gzipMember(t, 8<<20)
	lie := append(bytes.Clone(small[:len(small)-4]), 0xff, 0xff, 0xff, 0xff) // ISIZE of 4 GiB
	good := `{"records":[` + vnetRecord("", tupleAt(1795392000000)) + `]}`
	for _, c := range []struct {
		name string
		in   io.Reader
		want string // part of the error, "" for none
		rows int
	}{
		{"3 GiB in 3 MiB of members", many(string(small), 384), "more than 200 times", 0},
		{"256 MiB in one member", bytes.NewReader(gzipMember(t, 256<<20)), "more than 200 times", 0},
		{"a thousand empty members", many(string(gzipMember(t, 0)), 1000), "", 0},
		{"length lies", bytes.NewReader(lie), "inflate", 0},
		{"checksum lies", bytes.NewReader(append(bytes.Clone(small[:len(small)-8]), 1, 2, 3, 4, 0, 0, 0x80, 0)), "inflate", 0},
		{"junk behind the member", io.MultiReader(bytes.NewReader(zipped(t, []byte(good))), strings.NewReader("junk")), "inflate", 1},
		{"a name that never ends", io.MultiReader(strings.NewReader("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03"), many("n", 64<<20)), "inflate", 0},
		{"below the free size", bytes.NewReader(append(gzipMember(t, inflateFree-4096), zipped(t, []byte(good))...)), "", 1},
		{"gzip within gzip", bytes.NewReader(zipped(t, zipped(t, []byte(good)))), "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var rows []row
			var res Result
			var err error
			grown := growth(func() { rows, res, err = readAll(t, c.in) })
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if len(rows) != c.rows {
				t.Errorf("%d rows, want %d", len(rows), c.rows)
			}
			if c.name == "gzip within gzip" && (len(res.Rejects) == 0 || res.Rejects[0].Reason != pipeline.ReasonSyntax) {
				t.Errorf("rejects %+v, want one that says it is no JSON", res.Rejects)
			}
			if grown > 64<<20 {
				t.Errorf("memory grew by %d MiB", grown>>20)
			}
		})
	}
}

// Compressions that are not read are bytes like any others: quarantined, not
// inflated.
func TestOtherCompressionsAreNotInflated(t *testing.T) {
	var z bytes.Buffer
	w, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, endless(' '), 256<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"zstd":   z.Bytes(),
		"snappy": []byte("\xff\x06\x00\x00sNaPpY\x00\xff\xff\xff"),
		"lz4":    []byte("\x04\x22\x4d\x18\x60\x40\x82\xff\xff\xff\xff"),
		"xz":     []byte("\xfd7zXZ\x00\x00\x04"),
		"bzip2":  []byte("BZh91AY&SY"),
		"zip":    []byte("PK\x03\x04"),
	} {
		rows, res, err := readAll(t, bytes.NewReader(data))
		if err != nil || len(rows) > 0 || len(res.Rejects) == 0 {
			t.Errorf("%s: %d rows, %d rejects, error %v", name, len(rows), len(res.Rejects), err)
		}
	}
}
