package decode

import (
	"fmt"

	"github.com/millrace/millrace/pipeline"
)

// known are the members that have a meaning in a record of some format.
type known uint8

const (
	keyCategory known = iota
	keyVersion
	keyMAC
	keyFlowLog
	keyTarget
	keyFlowRecords
	keySystem
	keyResource
	keyProperties
	keyRecords
	keyCount
	keyUnknown = keyCount
)

// keyNames are the members' names; identify knows the other spellings in use.
var keyNames = [keyCount]string{
	"category", "flowLogVersion", "macAddress", "flowLogResourceID", "targetResourceID", "flowRecords",
	"systemId", "resourceId", "properties", "records",
}

func identify(key []byte) known {
	switch string(key) {
	case "category":
		return keyCategory
	case "flowLogVersion":
		return keyVersion
	case "macAddress":
		return keyMAC
	case "flowLogResourceID", "flowLogResourceId":
		return keyFlowLog
	case "targetResourceID", "targetResourceId":
		return keyTarget
	case "flowRecords":
		return keyFlowRecords
	case "systemId":
		return keySystem
	case "resourceId", "resourceid", "resourceID":
		return keyResource
	case "properties":
		return keyProperties
	case "records":
		return keyRecords
	}
	return keyUnknown
}

// span is data[start:end]; end is 0 for a member that is absent.
type span struct{ start, end int }

// recordState is what is known of the record that is being read.
type recordState struct {
	start   int // offset of its brace in data
	row     int // its first row
	spans   [keyCount]span
	twice   uint16 // bit for each known member that came again
	body    body
	ordinal uint32 // of the next tuple

	rejects  []pipeline.Reject // of its tuples
	rejectAt []int64
	refused  int // tuples refused: more than len(rejects) when these are too many
}

// body is what was read of flowRecords or properties.
type body struct {
	of      known // which of both; keyUnknown for none
	format  uint8
	version span // of properties
	faults  [faultCount]string
}

// fault is a class of faults below the record, worst first.
type fault uint8

const (
	faultEncoding fault = iota
	faultLimit
	faultShape
	faultCount
)

var faultReasons = [faultCount]pipeline.Reason{pipeline.ReasonEncoding, pipeline.ReasonLimit, pipeline.ReasonShape}

// flag notes a fault; the first of a class keeps its detail.
func (d *decoder) flag(f fault, detail string) {
	if d.rec.body.faults[f] == "" {
		d.rec.body.faults[f] = detail
	}
}

// flagReason notes what textOf said of a member below the record.
func (d *decoder) flagReason(reason pipeline.Reason, name string) {
	for f, r := range faultReasons {
		if r == reason {
			d.flag(fault(f), "text "+name)
		}
	}
}

// element reads the object at data[p] and contains a panic to it: what the object
// had given by then is taken back.
func (d *decoder) element(p int) (end int) {
	rows, res, wrapperEnd := d.b.n, d.res, d.wrapperEnd
	defer func() {
		if v := recover(); v != nil {
			d.b.n, d.res, d.wrapperEnd = rows, res, wrapperEnd
			end = d.panicked(p, v)
		}
	}()
	if d.b.trap != nil {
		d.b.trap(d.r.Offset + int64(p))
	}
	return d.record(p)
}

// panicked refuses the record in which this code has a defect.
func (d *decoder) panicked(p int, v any) int {
	detail := fmt.Sprintf("%.200v", v)
	end, _, ok := frame(d.data, p)
	if ok {
		d.refuse(pipeline.ReasonDecoderPanic, "record", p, end, detail)
		return end
	}
	d.stop = true
	d.refuse(pipeline.ReasonDecoderPanic, "range", p, len(d.data), detail)
	d.next = len(d.data)
	return len(d.data)
}

// record reads the object at data[p], adds its rows and rejects, and gives where it
// ends. Rows are written behind those of the batch and count when the record is
// good, so a refused one leaves none.
func (d *decoder) record(p int) int {
	rec := &d.rec
	*rec = recordState{start: p, row: d.b.n, rejects: rec.rejects[:0], rejectAt: rec.rejectAt[:0]}
	rec.body.of = keyUnknown
	d.n = d.b.n
	end, members := walkObject(d.data, p, 1, d.limits.Depth, d.member)
	if end == broken {
		return d.broken(p)
	}
	if members > d.limits.Members {
		d.refuse(pipeline.ReasonLimit, "record", p, end, "too many members")
		return end
	}
	reason, detail, wrapper := d.judge()
	switch {
	case reason != "":
		d.refuse(reason, "record", p, end, detail)
	case wrapper:
		d.wrapped(end)
	case d.room(rec.refused, p, end):
		d.commit()
	}
	return end
}

// broken refuses what walkObject could not walk over.
func (d *decoder) broken(p int) int {
	end, depth, ok := frame(d.data, p)
	switch {
	case !ok:
		d.truncated(p)
	case depth > d.limits.Depth:
		d.refuse(pipeline.ReasonLimit, "record", p, end, "brackets go too deep")
	default:
		d.refuse(pipeline.ReasonSyntax, "record", p, end, "not JSON")
	}
	return end
}

// member takes note of one member of the record. flowRecords is read at once,
// properties when the category says that it is wanted: what turns out not to be
// wanted is dropped, and what turns out to be wanted is read then.
func (d *decoder) member(key []byte, p int) int {
	if i := identifyEscaped(key, &d.scratch); i != keyUnknown {
		return d.knownMember(i, p)
	}
	return skip(d.data, p, 2, d.limits.Depth)
}

// identifyEscaped is identify for keys that may hold escapes.
func identifyEscaped(key []byte, buf *[]byte) known {
	if i := identify(key); i != keyUnknown {
		return i
	}
	return identify(plainKey(key, buf))
}

// plainKey gives the key's text; one that is no valid text equals no known name.
func plainKey(key []byte, buf *[]byte) []byte {
	for _, c := range key {
		if c == '\\' {
			text, _ := unescape(key, buf)
			return text
		}
	}
	return key
}

func (d *decoder) knownMember(i known, p int) (end int) {
	rec := &d.rec
	again := rec.spans[i].end > 0
	nsg := d.categoryIs(categoryNSG)
	switch {
	case again:
		rec.twice |= 1 << i
		return skip(d.data, p, 2, d.limits.Depth)
	case i == keyFlowRecords && !nsg:
		end = d.vnetBody(p)
	case i == keyProperties && nsg:
		end = d.nsgBody(p)
	default:
		end = skip(d.data, p, 2, d.limits.Depth)
	}
	rec.spans[i] = span{p, end}
	return end
}

const (
	categoryVNet = "FlowLogFlowEvent"
	categoryNSG  = "NetworkSecurityGroupFlowEvent"
)

// categoryIs is a guess for the common spelling; judge decides.
func (d *decoder) categoryIs(name string) bool {
	v := d.value(keyCategory)
	return len(v) == len(name)+2 && string(v[1:len(v)-1]) == name
}

// value gives a member as it stands in the record, nil when it is absent or null.
func (d *decoder) value(i known) []byte {
	s := d.rec.spans[i]
	if v := d.data[s.start:s.end]; s.end > 0 && string(v) != "null" {
		return v
	}
	return nil
}

func (d *decoder) cameTwice(keys ...known) (string, bool) {
	for _, i := range keys {
		if d.rec.twice&(1<<i) != 0 {
			return "member " + keyNames[i] + " comes twice", true
		}
	}
	return "", false
}

// judge decides the format and whether the record is good. A good one has its rows
// complete; a wrapper has none of its own.
func (d *decoder) judge() (reason pipeline.Reason, detail string, wrapper bool) {
	if detail, ok := d.cameTwice(keyCategory); ok {
		return pipeline.ReasonShape, detail, false
	}
	var category []byte
	if v := d.value(keyCategory); v != nil {
		if category, reason = d.textOf(v); reason != "" {
			return reason, "text category", false
		}
	}
	none := len(category) == 0
	switch {
	case string(category) == categoryVNet, none && d.value(keyFlowRecords) != nil:
		reason, detail = d.judgeVNet()
	case string(category) == categoryNSG, none && d.value(keyProperties) != nil:
		reason, detail = d.judgeNSG()
	case none && d.value(keyRecords) != nil:
		if _, ok := d.cameTwice(keyRecords); ok || d.value(keyRecords)[0] != '[' {
			return pipeline.ReasonShape, "member records is no array, or comes twice", false
		}
		return "", "", true
	default:
		return pipeline.ReasonShape, fmt.Sprintf("no flow record: category %.64q", category), false
	}
	return reason, detail, false
}

// worst gives the worst fault of the body.
func (d *decoder) worst() (pipeline.Reason, string) {
	for f, detail := range d.rec.body.faults {
		if detail != "" {
			return faultReasons[f], detail
		}
	}
	return "", ""
}

// wrapped walks over the records of a nested {"records":[...]}, whose JSON is
// known to be good.
func (d *decoder) wrapped(end int) {
	outer := d.wrapperEnd
	if outer == 0 {
		d.wrapperEnd = end
	}
	walkArray(d.data, d.rec.spans[keyRecords].start, 1, d.limits.Depth, func(p int) int {
		switch {
		case d.stop:
			return skip(d.data, p, 2, d.limits.Depth)
		case d.data[p] == '{':
			return d.element(p)
		}
		q := skip(d.data, p, 2, d.limits.Depth)
		d.refuse(pipeline.ReasonShape, "record", p, q, "no object")
		return q
	})
	if d.wrapperEnd = outer; outer == 0 {
		d.next = end
	}
}

// commit makes the rows and rejects of the record count.
func (d *decoder) commit() {
	rec, c, rows := &d.rec, d.c, d.n-d.rec.row
	d.res.Records++
	d.res.Rejects = append(d.res.Rejects, rec.rejects...)
	d.res.RejectAt = append(d.res.RejectAt, rec.rejectAt...)
	if rows == 0 {
		return
	}
	fill(c.format[rec.row:d.n], rec.body.format)
	fill(c.recordOffset[rec.row:d.n], uint64(d.r.Offset)+uint64(rec.start))
	lo, hi := span64(c.time[rec.row:d.n])
	if d.b.n == d.first {
		d.res.MinTime, d.res.MaxTime = lo, hi
	}
	d.res.MinTime, d.res.MaxTime = min(d.res.MinTime, lo), max(d.res.MaxTime, hi)
	d.b.n = d.n
}

// span64 gives the lowest and the highest value.
func span64(s []int64) (lo, hi int64) {
	lo, hi = s[0], s[0]
	for _, v := range s {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

// headText reads a text of the record itself into its dictionary.
func (d *decoder) headText(i known, dict *names) (code uint32, reason pipeline.Reason, detail string) {
	var text []byte
	if v := d.value(i); v != nil {
		if text, reason = d.textOf(v); reason != "" {
			return 0, reason, "text " + keyNames[i]
		}
	}
	if i == keyMAC {
		var ok bool
		if text, ok = macText(text, &d.mac); !ok {
			return 0, pipeline.ReasonShape, "macAddress is not 12 hex digits"
		}
	}
	return dict.code(text), "", ""
}
