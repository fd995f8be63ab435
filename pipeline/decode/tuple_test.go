package decode

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/schemas"
)

// The quick reader of tuples may leave any tuple to the plain one, but what it
// accepts the plain one accepts, with the same row.
func TestFastTupleEqualsPlain(t *testing.T) {
	rounds := 1_000_000
	if testing.Short() {
		rounds = 100_000
	}
	b := NewBatch(memory.NewGoAllocator())
	defer b.Release()
	g := newGenerator(5)
	g.faults = false
	b.cols.grow(b.alloc, 2)
	took, kept := 0, 0
	for range rounds {
		tuple := []byte(g.vnetTuple())
		if !g.one(3) {
			tuple = g.mutate(tuple)
		}
		data := slices.Concat(tuple, []byte(`",`))
		d := b.start(Range{}, data, false)
		d.rec.body.format = schemas.FormatVNet4
		n := d.fastTuple(d.window(0), 0)
		if n == 0 {
			kept++
			continue
		}
		took++
		d.n = 1
		text, _, _ := bytes.Cut(data, []byte{'"'})
		reason, detail := d.plainTuple(text)
		if n != len(text)+1 || reason != "" || bytes.IndexByte(text, '\\') >= 0 {
			t.Fatalf("tuple %q: the quick reader took %d bytes of %d; the plain one says %q %s", text, n, len(text)+1, reason, detail)
		}
		for i, w := range widths {
			if !writtenByTuples[i] {
				continue
			}
			if c := b.cols.buffers[i].Bytes(); !slices.Equal(c[:w], c[w:2*w]) {
				t.Fatalf("tuple %q: column %s is % x, plain % x", tuple, columnNames[i], c[:w], c[w:2*w])
			}
		}
	}
	if took < rounds/10 || kept < rounds/10 {
		t.Errorf("%d taken, %d kept: the test tests little", took, kept)
	}
}

var writtenByTuples = func() (w [columnCount]bool) {
	for _, i := range []int{
		colTime, colSrcIP, colDstIP, colSrcPort, colDstPort, colProtocol, colDirection, colState, colAction, colEncryption,
		colPacketsSent, colBytesSent, colPacketsReceived, colBytesReceived,
	} {
		w[i] = true
	}
	return w
}()

// mutate changes a tuple in one or two places.
func (g *generator) mutate(tuple []byte) []byte {
	const letters = `0123456789012345678901234567890123456789..,,::"\ABCDEINOX_abcdef`
	for range 1 + g.IntN(2) {
		i, c := g.IntN(len(tuple)), letters[g.IntN(len(letters))]
		switch g.IntN(5) {
		case 0:
			tuple = slices.Insert(tuple, i, c)
		case 1:
			tuple = slices.Delete(tuple, i, i+1)
		case 2:
			fields := strings.Split(string(tuple), ",")
			fields[g.IntN(len(fields))] = fieldTraps[g.IntN(len(fieldTraps))]
			tuple = []byte(strings.Join(fields, ","))
		default:
			tuple[i] = c
		}
		if len(tuple) == 0 {
			return []byte("0")
		}
	}
	return tuple
}

// The parsers of plain fields against each other's borders.
func TestDecimal(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit uint64
		want  uint64
		ok    bool
	}{
		{"", 10, 0, false},
		{"0", 0, 0, true},
		{"10", 10, 10, true},
		{"11", 10, 0, false},
		{"00000000000000000000000000007", 7, 7, true},
		{"18446744073709551615", 1<<64 - 1, 1<<64 - 1, true},
		{"18446744073709551616", 1<<64 - 1, 0, false},
		{"99999999999999999999", 1<<64 - 1, 0, false},
		{"184467440737095516150", 1<<64 - 1, 0, false},
		{"1a", 99, 0, false},
		{"/", 99, 0, false},
		{":", 99, 0, false},
	} {
		if v, ok := decimal([]byte(c.text), c.limit); ok != c.ok || ok && v != c.want {
			t.Errorf("decimal(%q, %d) = %d, %v", c.text, c.limit, v, ok)
		}
	}
}

func TestFastTupleLooksNoFurtherThanItsWindow(t *testing.T) {
	// The longest of everything, and what is longer than that, in a window of its own.
	for _, tuple := range []string{
		"1795392000000," + strings.Repeat("f", 46) + "," + strings.Repeat("f", 46) + `,1,2,3,I,B,NX,1,2,3,4"`,
		"1795392000000,1111:2222:3333:4444:5555:6666:7777:8888,1111:2222:3333:4444:5555:6666:7777:8888," + strings.Repeat("1", 200),
		"1795392000000,255.255.255.255,255.255.255.255," + strings.Repeat("1", 200),
		"1795392000000,255.255.255.255,255.255.255.255,1,2,3,I,B,NX_HW_NOT_SUPPORTED," + strings.Repeat("9", 200),
		strings.Repeat("1", windowBytes), strings.Repeat(",", windowBytes), strings.Repeat(":", windowBytes), strings.Repeat("1795392000000,", 30),
	} {
		b := NewBatch(memory.NewGoAllocator())
		b.cols.grow(b.alloc, 2)
		d := b.start(Range{}, []byte(tuple), false)
		if n := d.fastTuple(d.window(0), 0); n != 0 {
			t.Errorf("tuple %q: %d bytes taken", tuple, n)
		}
		b.Release()
	}
}
