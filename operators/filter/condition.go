package filter

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/gaissmai/bart"

	"github.com/millrace/millrace/schemas"
)

// condition narrows a list of rows, in place, to those that meet it.
type condition func(rec arrow.Record, fit []int32) []int32

var (
	colMAC       = schemas.Flows.Index("mac")
	colSrc       = schemas.Flows.Index("src_ip")
	colDst       = schemas.Flows.Index("dst_ip")
	colSrcPort   = schemas.Flows.Index("src_port")
	colDstPort   = schemas.Flows.Index("dst_port")
	colProtocol  = schemas.Flows.Index("protocol")
	colDirection = schemas.Flows.Index("direction")
	colState     = schemas.Flows.Index("state")
	colAction    = schemas.Flows.Index("action")
	colRule      = schemas.Flows.Index("rule")
)

// conditions compiles the filter: one-byte columns first, addresses last.
func (s spec) conditions() ([]condition, error) {
	var out []condition
	for _, w := range []struct {
		column int
		words  []string
	}{{colDirection, s.Direction}, {colState, s.State}, {colAction, s.Action}} {
		if len(w.words) > 0 {
			out = append(out, words(w.column, w.words))
		}
	}
	if len(s.Protocol) > 0 {
		out = append(out, protocols(s.Protocol))
	}
	if len(s.MAC) > 0 {
		macs := setOf(s.MAC)
		out = append(out, names(colMAC, func(mac string) bool { return macs[mac] }))
	}
	if len(s.Rule) > 0 {
		out = append(out, names(colRule, ruleMatcher(s.Rule)))
	}
	for _, p := range []struct {
		columns []int
		ranges  []portRange
	}{{[]int{colSrcPort}, s.SrcPort}, {[]int{colDstPort}, s.DstPort}, {[]int{colSrcPort, colDstPort}, s.EitherPort}} {
		if len(p.ranges) > 0 {
			out = append(out, ports(p.columns, p.ranges))
		}
	}
	for _, a := range []struct {
		columns  []int
		prefixes []string
	}{{[]int{colSrc}, s.Src}, {[]int{colDst}, s.Dst}, {[]int{colSrc, colDst}, s.Either}} {
		if a.prefixes == nil {
			continue
		}
		c, err := addresses(a.columns, a.prefixes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, s := range list {
		set[s] = true
	}
	return set
}

func ruleMatcher(list []string) func(string) bool {
	exact := setOf(list)
	var heads []string
	for _, text := range list {
		if head, ok := strings.CutSuffix(text, "*"); ok {
			heads = append(heads, head)
		}
	}
	return func(rule string) bool {
		return exact[rule] || slices.ContainsFunc(heads, func(head string) bool { return strings.HasPrefix(rule, head) })
	}
}

// words is a condition on a closed list: a table of 256 answers.
func words(column int, list []string) condition {
	set := setOf(list)
	return func(rec arrow.Record, fit []int32) []int32 {
		arr := rec.Column(column).(*array.Dictionary)
		dict := arr.Dictionary().(*array.String)
		var good [256]uint8
		for code := range min(dict.Len(), 256) {
			good[code] = bit(set[dict.Value(code)])
		}
		return byByte(arr.Indices().(*array.Uint8).Uint8Values(), &good, fit)
	}
}

func protocols(list []int) condition {
	var good [256]uint8
	for _, p := range list {
		good[uint8(p)] = 1
	}
	return func(rec arrow.Record, fit []int32) []int32 {
		return byByte(rec.Column(colProtocol).(*array.Uint8).Uint8Values(), &good, fit)
	}
}

// byByte adds answers instead of branching on them, as the loops below do: rows
// that fit come in no order that a processor could guess.
func byByte(values []uint8, good *[256]uint8, fit []int32) []int32 {
	n := 0
	for _, row := range fit {
		fit[n] = row
		n += int(good[values[row]])
	}
	return fit[:n]
}

func bit(yes bool) uint8 {
	if yes {
		return 1
	}
	return 0
}

// names is a condition on open text: each text of the dictionary is judged once.
func names(column int, fits func(string) bool) condition {
	return func(rec arrow.Record, fit []int32) []int32 {
		arr := rec.Column(column).(*array.Dictionary)
		dict := arr.Dictionary().(*array.String)
		good := make([]uint8, dict.Len())
		for code := range good {
			good[code] = bit(fits(dict.Value(code)))
		}
		codes := arr.Indices().(*array.Uint32).Uint32Values()
		n := 0
		for _, row := range fit {
			fit[n] = row
			n += int(good[codes[row]])
		}
		return fit[:n]
	}
}

// ports is a condition on one or both ports: a bit for each port.
func ports(columns []int, ranges []portRange) condition {
	good := new([1 << 10]uint64)
	for _, r := range ranges {
		for p := int(r[0]); p <= int(r[1]); p++ {
			good[p>>6] |= 1 << (p & 63)
		}
	}
	return func(rec arrow.Record, fit []int32) []int32 {
		first := rec.Column(columns[0]).(*array.Uint16).Uint16Values()
		second := rec.Column(columns[len(columns)-1]).(*array.Uint16).Uint16Values()
		n := 0
		for _, row := range fit {
			a, b := first[row], second[row]
			fit[n] = row
			n += int((good[a>>6]>>(a&63) | good[b>>6]>>(b&63)) & 1)
		}
		return fit[:n]
	}
}

// addresses is a condition on one or both addresses. Rows come in runs of one
// address, so the last answer of each column is kept.
func addresses(columns []int, prefixes []string) (condition, error) {
	table := &bart.Lite{}
	for _, text := range prefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		table.Insert(p)
	}
	return func(rec arrow.Record, fit []int32) []int32 {
		sides := make([]side, len(columns))
		for i, column := range columns {
			data := rec.Column(column).Data()
			sides[i] = side{raw: data.Buffers()[1].Bytes()[data.Offset()*16:]}
			sides[i].good = table.Contains(schemas.FromAddress(sides[i].last))
		}
		n := 0
		for _, row := range fit {
			fit[n] = row
			for i := range sides {
				if sides[i].in(table, row) {
					n++
					break
				}
			}
		}
		return fit[:n]
	}, nil
}

// side is one column of addresses with the answer for the last one.
type side struct {
	raw  []byte
	last [16]byte
	good bool
}

func (s *side) in(table *bart.Lite, row int32) bool {
	if raw := [16]byte(s.raw[int(row)*16:]); raw != s.last {
		s.last, s.good = raw, table.Contains(schemas.FromAddress(raw))
	}
	return s.good
}
