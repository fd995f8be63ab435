// Package reference decodes flow logs slowly and plainly, with encoding/json. It
// is the oracle that the fast decoder is held against: same rows, same rejects,
// same addresses. Only tests import it, and it shares no code with what it judges.
//
// It allocates freely, keeps nothing between calls and starts no goroutine.
package reference

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/millrace/millrace/pipeline"
)

// Limits are those of the package decode.
type Limits struct {
	Depth, Text, Tuples, Members, Rejects int
}

// Input says where the bytes stand and which rows are wanted.
type Input struct {
	Offset           int64
	MinTime, MaxTime int64
	Ordinals         []uint32
	Limits           Limits
}

// Row is one row of schemas.Flows without what a batch adds (blob, generation,
// batch_id). Words are codes of the schemas package.
type Row struct {
	Time                           int64
	Format                         uint8
	MAC                            string
	Src, Dst                       [16]byte
	SrcPort, DstPort               uint16
	Protocol                       uint8
	Direction, State, Action       uint8
	Encryption                     string
	PacketsSent, BytesSent         uint64
	PacketsReceived, BytesReceived uint64
	ACL, Rule                      string
	RuleKind                       uint8
	FlowLog, Target                string
	RecordOffset                   int64
	Ordinal                        uint32
}

// Reject is a reject with the place of the refused text itself in the blob.
type Reject struct {
	pipeline.Reject
	At int64
}

// Output is what Decode found.
type Output struct {
	Rows    []Row
	Records int
	Rejects []Reject
}

type decoder struct {
	Input
	data []byte // the region as given
	out  Output
	full bool // the limit of rejects was passed
}

// Decode judges every byte of a region of the records array.
func Decode(in Input, data []byte) Output {
	d := &decoder{Input: in, data: data}
	p := 0
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		p = 3
	}
	for !d.full {
		for p < len(data) && bytes.IndexByte([]byte(" \t\r\n,"), data[p]) >= 0 {
			p++
		}
		if p == len(data) {
			break
		}
		end, depth, ok := frame(data, p)
		if !ok {
			reason := pipeline.ReasonTruncated
			if data[p] == ']' || data[p] == '}' {
				reason = pipeline.ReasonSyntax
			}
			d.reject(nil, d.refuse(reason, "range", p, len(data)))
			break
		}
		d.element(p, end, depth)
		p = end
	}
	return d.out
}

// frame finds the end of the value that begins at data[p] by counting brackets
// outside of strings, and the depth that it reaches.
func frame(data []byte, p int) (end, depth int, ok bool) {
	switch data[p] {
	case '}', ']':
		return p, 0, false
	case '"':
		end, ok = frameString(data, p)
		return end, 0, ok
	case '{', '[':
	default:
		for p < len(data) && bytes.IndexByte([]byte(" \t\r\n,{}[]\""), data[p]) < 0 {
			p++
		}
		return p, 0, true
	}
	open := 0
	for p < len(data) {
		switch data[p] {
		case '"':
			if p, ok = frameString(data, p); !ok {
				return p, depth, false
			}
			continue
		case '{', '[':
			open++
			depth = max(depth, open)
		case '}', ']':
			if open--; open == 0 {
				return p + 1, depth, true
			}
		}
		p++
	}
	return p, depth, false
}

func frameString(data []byte, p int) (end int, ok bool) {
	for p++; p < len(data); p++ {
		switch data[p] {
		case '\\':
			p++
		case '"':
			return p + 1, true
		}
	}
	return len(data), false
}

// tidy copies a value with its trailing commas blanked, which published samples
// have, and with NUL bytes in strings made invalid UTF-8, so that they are an
// encoding fault where text is used and ignored where it is not. Offsets stay.
func tidy(value []byte) []byte {
	out := bytes.Clone(value)
	last, comma := byte('['), -1 // last: significant byte before the comma
	for p := 0; p < len(out); p++ {
		c := out[p]
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		case '"':
			end, _ := frameString(out, p)
			for i := p; i < end; i++ {
				if out[i] == 0 {
					out[i] = 0xff
				}
			}
			p = end - 1
		case ']', '}':
			if comma >= 0 && bytes.IndexByte([]byte("[{,:"), last) < 0 {
				out[comma] = ' '
			}
		}
		if c == ',' && comma < 0 {
			comma = p
			continue
		}
		// A second comma in a row becomes last, so that both stay a fault.
		comma, last = -1, c
	}
	return out
}

// refuse makes a reject of data[start:end].
func (d *decoder) refuse(reason pipeline.Reason, scope string, start, end int) Reject {
	return Reject{
		Reject: pipeline.Reject{
			Reason: reason, Scope: scope,
			Offset: d.Offset + int64(start), Length: int64(end - start),
			Excerpt: excerpt(d.data[start:end]),
		},
		At: d.Offset + int64(start),
	}
}

func excerpt(b []byte) string {
	var out []rune
	for _, r := range string(b[:min(len(b), 256)]) {
		if r == 0 {
			r = '\uFFFD'
		}
		out = append(out, r)
	}
	return string(out)
}

// reject adds what one record gave, or refuses the rest of the range when that
// would be too many rejects.
func (d *decoder) reject(rows []Row, rejects ...Reject) bool {
	if len(d.out.Rejects)+len(rejects) > d.Limits.Rejects {
		d.full = true
		start := int(rejects[0].Offset - d.Offset)
		d.out.Rejects = append(d.out.Rejects, d.refuse(pipeline.ReasonLimit, "range", start, len(d.data)))
		return false
	}
	d.out.Rows = append(d.out.Rows, rows...)
	d.out.Rejects = append(d.out.Rejects, rejects...)
	return true
}

// element judges one element of the region.
func (d *decoder) element(start, end, depth int) {
	if depth > d.Limits.Depth {
		d.reject(nil, d.refuse(pipeline.ReasonLimit, "record", start, end))
		return
	}
	value := tidy(d.data[start:end])
	if !json.Valid(value) {
		d.reject(nil, d.refuse(pipeline.ReasonSyntax, "record", start, end))
		return
	}
	d.record(value, start)
}

// record judges one valid JSON value as a record.
func (d *decoder) record(value []byte, start int) {
	end := start + len(value)
	if value[0] != '{' {
		d.reject(nil, d.refuse(pipeline.ReasonShape, "record", start, end))
		return
	}
	r := record{d: d, start: start}
	reason := r.read(value)
	switch {
	case d.full || r.wrapper && reason == "":
	case reason != "":
		d.reject(nil, d.refuse(reason, "record", start, end))
	case d.reject(r.rows, r.rejects...):
		d.out.Records++
	}
}

func (d *decoder) wanted(ordinal uint32) bool {
	return len(d.Ordinals) == 0 || slices.Contains(d.Ordinals, ordinal)
}
