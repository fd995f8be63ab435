package decode

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/schemas"
)

// names is the dictionary of one column of repeated open text.
type names struct {
	index  map[string]uint32
	values []string
	last   uint32 // the index given last: texts come in runs
}

// code gives the index of a text; the bytes are copied when the text is new.
func (d *names) code(text []byte) uint32 {
	if int(d.last) < len(d.values) && d.values[d.last] == string(text) {
		return d.last
	}
	i, ok := d.index[string(text)]
	if !ok {
		i = d.add(string(text))
	}
	d.last = i
	return i
}

func (d *names) add(text string) uint32 {
	if d.index == nil {
		d.index = map[string]uint32{}
	}
	i := uint32(len(d.values))
	d.index[text] = i
	d.values = append(d.values, text)
	return i
}

// seed gives the words the codes of their places when the dictionary is empty.
func (d *names) seed(words []string) {
	if len(d.values) > 0 {
		return
	}
	for _, w := range words {
		d.add(w)
	}
}

func (d *names) reset() {
	clear(d.index)
	clear(d.values) // let go of the texts
	d.values, d.last = d.values[:0], 0
}

func (d *names) array(alloc memory.Allocator) arrow.Array {
	return stringArray(alloc, d.values)
}

func stringArray(alloc memory.Allocator, values []string) arrow.Array {
	b := array.NewStringBuilder(alloc)
	defer b.Release()
	b.AppendValues(values, nil)
	return b.NewArray()
}

// wordArrays are the dictionaries of the closed word lists. They live as long as
// the program, so no allocator counts them.
var wordArrays = func() (out [columnCount]arrow.Array) {
	alloc := memory.NewGoAllocator()
	for column, list := range map[int][]string{
		colCloud: schemas.Clouds, colFormat: schemas.Formats, colDirection: schemas.Directions,
		colState: schemas.States, colAction: schemas.Actions, colRuleKind: schemas.RuleKinds,
	} {
		out[column] = stringArray(alloc, list)
	}
	return out
}()
