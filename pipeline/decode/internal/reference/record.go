package reference

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// member is one member of an object, or one element of an array.
type member struct {
	key string
	raw []byte
	at  int // offset of raw in the region
}

// members lists an object's members or an array's elements in their order.
func members(value []byte, at int) []member {
	dec := json.NewDecoder(bytes.NewReader(value))
	must(dec.Token())
	var out []member
	for dec.More() {
		var m member
		if value[0] == '{' {
			m.key = must(dec.Token()).(string)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			panic("BUG: valid JSON does not decode: " + err.Error())
		}
		m.raw, m.at = raw, at+int(dec.InputOffset())-len(raw)
		out = append(out, m)
	}
	return out
}

func must(t json.Token, err error) json.Token {
	if err != nil {
		panic("BUG: valid JSON does not decode: " + err.Error())
	}
	return t
}

// object holds the first member of each name, and which names came twice.
type object struct {
	first map[string]member
	twice map[string]bool
	many  bool
}

// aliases are spellings seen in published pages.
var aliases = map[string]string{
	"resourceid": "resourceId", "resourceID": "resourceId",
	"targetResourceId": "targetResourceID", "flowLogResourceId": "flowLogResourceID",
}

func (d *decoder) object(value []byte, at int) object {
	o := object{first: map[string]member{}, twice: map[string]bool{}}
	all := members(value, at)
	o.many = len(all) > d.Limits.Members
	for _, m := range all {
		if name, ok := aliases[m.key]; ok {
			m.key = name
		}
		if _, ok := o.first[m.key]; ok {
			o.twice[m.key] = true
			continue
		}
		o.first[m.key] = m
	}
	return o
}

// get gives a member; null counts as absent.
func (o object) get(name string) (member, bool) {
	m, ok := o.first[name]
	return m, ok && string(m.raw) != "null"
}

func (o object) anyTwice(names ...string) bool {
	for _, n := range names {
		if o.twice[n] {
			return true
		}
	}
	return false
}

// text reads a text of the record. Absent and null are "".
func (d *decoder) text(o object, name string) (string, pipeline.Reason) {
	m, ok := o.get(name)
	if !ok {
		return "", ""
	}
	return d.textOf(m.raw)
}

func (d *decoder) textOf(raw []byte) (string, pipeline.Reason) {
	if raw[0] != '"' {
		return "", pipeline.ReasonShape
	}
	if len(raw)-2 > d.Limits.Text {
		return "", pipeline.ReasonLimit
	}
	if !utf8.Valid(raw) || loneSurrogate(raw) {
		return "", pipeline.ReasonEncoding
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		panic("BUG: valid JSON string does not decode: " + err.Error())
	}
	if strings.ContainsRune(s, 0) {
		return "", pipeline.ReasonEncoding
	}
	return s, ""
}

// loneSurrogate finds half of a surrogate pair among the escapes.
func loneSurrogate(raw []byte) bool {
	unit := func(i int) uint64 {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0
		}
		v, _ := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		return v
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		switch v := unit(i); {
		case v >= 0xd800 && v < 0xdc00:
			if low := unit(i + 6); low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 11
		case v >= 0xdc00 && v < 0xe000:
			return true
		default:
			i++ // the escaped byte, which may be a backslash
		}
	}
	return false
}

// mac gives 12 upper-case hex digits.
func mac(s string) (string, pipeline.Reason) {
	s = strings.ToUpper(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s))
	if s == "" {
		return "", ""
	}
	if len(s) != 12 || strings.Trim(s, "0123456789ABCDEF") != "" {
		return "", pipeline.ReasonShape
	}
	return s, ""
}

type record struct {
	d       *decoder
	start   int
	wrapper bool

	format                 uint8
	mac, acl, flowLog, tgt string
	ordinal                uint32
	rows                   []Row
	rejects                []Reject
	bad                    map[pipeline.Reason]bool
}

// read fills rows and rejects, or gives the reason why the record is refused.
func (r *record) read(value []byte) pipeline.Reason {
	r.bad = map[pipeline.Reason]bool{}
	o := r.d.object(value, r.start)
	if o.many {
		return pipeline.ReasonLimit
	}
	if o.twice["category"] {
		return pipeline.ReasonShape
	}
	category, reason := r.d.text(o, "category")
	if reason != "" {
		return reason
	}
	_, flowRecords := o.get("flowRecords")
	_, properties := o.get("properties")
	_, records := o.get("records")
	switch {
	case category == "FlowLogFlowEvent", category == "" && flowRecords:
		return r.vnet(o)
	case category == "NetworkSecurityGroupFlowEvent", category == "" && properties:
		return r.nsg(o)
	case category == "" && records:
		return r.wrapped(o)
	}
	return pipeline.ReasonShape
}

// wrapped descends into {"records":[...]}.
func (r *record) wrapped(o object) pipeline.Reason {
	m, _ := o.get("records")
	if m.raw[0] != '[' || o.twice["records"] {
		return pipeline.ReasonShape
	}
	r.wrapper = true
	for _, e := range members(m.raw, m.at) {
		if !r.d.full {
			r.d.record(e.raw, e.at)
		}
	}
	return ""
}

func (r *record) texts(o object, to map[string]*string, names ...string) pipeline.Reason {
	for _, n := range names {
		s, reason := r.d.text(o, n)
		if reason == "" && n == "macAddress" {
			s, reason = mac(s)
		}
		if reason != "" {
			return reason
		}
		*to[n] = s
	}
	return ""
}

func (r *record) worst() pipeline.Reason {
	for _, reason := range []pipeline.Reason{pipeline.ReasonEncoding, pipeline.ReasonLimit, pipeline.ReasonShape} {
		if r.bad[reason] {
			return reason
		}
	}
	return ""
}

func isNumber(raw []byte, n string) bool {
	return string(raw) == n || string(raw) == `"`+n+`"`
}

func (r *record) vnet(o object) pipeline.Reason {
	if o.anyTwice("flowLogVersion", "macAddress", "flowLogResourceID", "targetResourceID", "flowRecords") {
		return pipeline.ReasonShape
	}
	if v, ok := o.get("flowLogVersion"); ok && !isNumber(v.raw, "4") {
		return pipeline.ReasonVersion
	}
	to := map[string]*string{"macAddress": &r.mac, "flowLogResourceID": &r.flowLog, "targetResourceID": &r.tgt}
	if reason := r.texts(o, to, "macAddress", "flowLogResourceID", "targetResourceID"); reason != "" {
		return reason
	}
	m, ok := o.get("flowRecords")
	if !ok || m.raw[0] != '{' {
		return pipeline.ReasonShape
	}
	r.format = schemas.FormatVNet4
	r.each(r.sub(m), "flows", func(flow object) {
		row := Row{MAC: r.mac, ACL: r.name(flow, "aclID")}
		r.each(flow, "flowGroups", func(group object) { r.group(group, row, r.name(group, "rule")) })
	})
	return r.worst()
}

func (r *record) nsg(o object) pipeline.Reason {
	if o.anyTwice("macAddress", "systemId", "resourceId", "properties") {
		return pipeline.ReasonShape
	}
	to := map[string]*string{"macAddress": &r.mac, "systemId": &r.acl, "resourceId": &r.tgt}
	if reason := r.texts(o, to, "macAddress", "systemId", "resourceId"); reason != "" {
		return reason
	}
	m, ok := o.get("properties")
	if !ok || m.raw[0] != '{' {
		return pipeline.ReasonShape
	}
	p := r.sub(m)
	if p.twice["Version"] {
		r.bad[pipeline.ReasonShape] = true
	}
	version, ok := p.get("Version")
	switch {
	case ok && isNumber(version.raw, "1"):
		r.format = schemas.FormatNSG1
	case ok && isNumber(version.raw, "2"):
		r.format = schemas.FormatNSG2
	default:
		return pipeline.ReasonVersion
	}
	r.each(p, "flows", func(flow object) {
		rule := r.name(flow, "rule")
		r.each(flow, "flows", func(inner object) {
			row := Row{MAC: r.mac, ACL: r.acl}
			own, reason := mac(r.name(inner, "mac"))
			if reason != "" {
				r.bad[reason] = true
			}
			if own != "" {
				row.MAC = own
			}
			r.group(inner, row, rule)
		})
	})
	return r.worst()
}

// sub reads a known object below the record.
func (r *record) sub(m member) object {
	o := r.d.object(m.raw, m.at)
	if o.many {
		r.bad[pipeline.ReasonLimit] = true
	}
	return o
}

// name reads a text below the record; faults are noted.
func (r *record) name(o object, name string) string {
	if o.twice[name] {
		r.bad[pipeline.ReasonShape] = true
	}
	s, reason := r.d.text(o, name)
	if reason != "" {
		r.bad[reason] = true
	}
	return s
}

// array gives the elements of a member that must be there; null is an empty array.
func (r *record) array(o object, name string) []member {
	m, ok := o.first[name]
	if ok && string(m.raw) == "null" && !o.twice[name] {
		return nil
	}
	if !ok || o.twice[name] {
		r.bad[pipeline.ReasonShape] = true
	}
	if !ok || string(m.raw) == "null" {
		return nil
	}
	if m.raw[0] != '[' {
		r.bad[pipeline.ReasonShape] = true
		return nil
	}
	return members(m.raw, m.at)
}

func (r *record) each(o object, name string, f func(object)) {
	for _, e := range r.array(o, name) {
		if e.raw[0] != '{' {
			r.bad[pipeline.ReasonShape] = true
			continue
		}
		f(r.sub(e))
	}
}

// group reads the tuples of one group into rows.
func (r *record) group(o object, row Row, rule string) {
	row.Format, row.Rule, row.RuleKind = r.format, rule, ruleKind(rule)
	row.FlowLog, row.Target = r.flowLog, r.tgt
	row.RecordOffset = r.d.Offset + int64(r.start)
	for _, e := range r.array(o, "flowTuples") {
		if int(r.ordinal) == r.d.Limits.Tuples {
			r.bad[pipeline.ReasonLimit] = true
			return
		}
		row.Ordinal = r.ordinal
		r.ordinal++
		if !r.d.wanted(row.Ordinal) {
			continue
		}
		reason := r.d.tuple(e.raw, &row)
		if reason == "" {
			r.rows = append(r.rows, row)
			continue
		}
		at, length := e.at, len(e.raw)
		if e.raw[0] == '"' {
			at, length = at+1, length-2
		}
		rej := r.d.refuse(reason, "tuple", at, at+length)
		rej.Offset, rej.Ordinal = row.RecordOffset, row.Ordinal
		r.rejects = append(r.rejects, rej)
	}
}

func ruleKind(rule string) uint8 {
	switch {
	case strings.HasPrefix(rule, "DefaultRule_"):
		return schemas.RuleDefault
	case strings.HasPrefix(rule, "UserRule_"):
		return schemas.RuleUser
	case strings.Contains(strings.ToLower(rule), "platform"):
		return schemas.RulePlatform
	case rule == "unspecified", rule == "":
		return schemas.RuleUnspecified
	}
	return schemas.RuleAdmin
}
