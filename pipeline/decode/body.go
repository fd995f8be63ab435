package decode

import (
	"github.com/millrace/millrace/schemas"
)

// What the bodies of all formats have in common: objects, arrays and texts below
// the record, each of which may come once, and rules. Faults are noted and decided
// upon when the record ends.

// bodyText walks over a text below the record and gives it; faults are noted. The
// text is good until the next one is read.
func (d *decoder) bodyText(p, depth int, name string) (text []byte, end int) {
	if end = skip(d.data, p, depth, d.limits.Depth); end == broken {
		return nil, end
	}
	text, reason := d.textOf(d.data[p:end])
	if reason != "" {
		d.flagReason(reason, name)
		return nil, end
	}
	return text, end
}

// bodyObject walks over an object below the record.
func (d *decoder) bodyObject(p, depth int, f func(key []byte, p int) int) int {
	if p >= len(d.data) || d.data[p] != '{' {
		d.flag(faultShape, "not an object where one is wanted")
		return skip(d.data, p, depth, d.limits.Depth)
	}
	end, members := walkObject(d.data, p, depth, d.limits.Depth, f)
	if members > d.limits.Members {
		d.flag(faultLimit, "too many members")
	}
	return end
}

// isArray says whether an array stands at data[p]; null is an empty one, anything
// else is noted as a fault. If not, end is where the value ends.
func (d *decoder) isArray(p, depth int, name string) (end int, ok bool) {
	if p < len(d.data) && d.data[p] == '[' {
		return 0, true
	}
	end = skip(d.data, p, depth, d.limits.Depth)
	if end != broken && string(d.data[p:end]) != "null" {
		d.flag(faultShape, name+" is no array")
	}
	return end, false
}

// isNumber says whether a version is the given digit, as number or as text.
func isNumber(v []byte, digit byte) bool {
	return len(v) == 1 && v[0] == digit || len(v) == 3 && v[0] == '"' && v[1] == digit && v[2] == '"'
}

// kindOf reads the kind of a rule from its name.
func kindOf(rule []byte) uint8 {
	switch {
	case hasPrefix(rule, "DefaultRule_"):
		return schemas.RuleDefault
	case hasPrefix(rule, "UserRule_"):
		return schemas.RuleUser
	case containsFold(rule, "platform"):
		return schemas.RulePlatform
	case string(rule) == "unspecified", len(rule) == 0:
		return schemas.RuleUnspecified
	}
	return schemas.RuleAdmin
}

func hasPrefix(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && string(s[:len(prefix)]) == prefix
}

// containsFold looks for a lower-case ASCII word in any case.
func containsFold(s []byte, word string) bool {
	for i := 0; i+len(word) <= len(s); i++ {
		j := 0
		for j < len(word) && s[i+j]|0x20 == word[j] {
			j++
		}
		if j == len(word) {
			return true
		}
	}
	return false
}

// level reads an object of which one member is an array of objects, all else being
// skipped, and calls f for each of these.
func (d *decoder) level(p, depth int, name string, f func(p int) int) int {
	seen := false
	end := d.bodyObject(p, depth, func(key []byte, p int) int {
		if string(key) != name && string(plainKey(key, &d.scratch)) != name {
			return skip(d.data, p, depth+1, d.limits.Depth)
		}
		return d.arrayOnce(&seen, p, depth+1, name, f)
	})
	d.must(seen, p, name)
	return end
}

// arrayOnce reads an array that may come once in its object.
func (d *decoder) arrayOnce(seen *bool, p, depth int, name string, f func(p int) int) int {
	if *seen {
		d.flag(faultShape, "member "+name+" comes twice")
		return skip(d.data, p, depth, d.limits.Depth)
	}
	*seen = true
	if end, ok := d.isArray(p, depth, name); !ok {
		return end
	}
	return walkArray(d.data, p, depth, d.limits.Depth, f)
}

// must notes a fault when the object at data[p] had no such array.
func (d *decoder) must(seen bool, p int, name string) {
	if !seen {
		d.flag(faultShape, "member "+name+" is missing")
	}
}

// textOnce reads a text that may come once in its object.
func (d *decoder) textOnce(seen *bool, p, depth int, name string) (text []byte, end int) {
	if *seen {
		d.flag(faultShape, "member "+name+" comes twice")
		return nil, skip(d.data, p, depth, d.limits.Depth)
	}
	*seen = true
	return d.bodyText(p, depth, name)
}

// ruleCode is the rule of some rows.
type ruleCode struct {
	seen bool
	code uint32
	kind uint8
}

func (d *decoder) rule(r *ruleCode, p, depth int) int {
	again := r.seen
	text, end := d.textOnce(&r.seen, p, depth, "rule")
	if !again {
		r.code, r.kind = d.b.rules.code(text), kindOf(text)
	}
	return end
}

// fillRule writes the rule to the rows from row on.
func (d *decoder) fillRule(r ruleCode, row int) {
	if !r.seen {
		r.code, r.kind = d.b.rules.code(nil), kindOf(nil)
	}
	fill(d.c.rule[row:d.n], r.code)
	fill(d.c.ruleKind[row:d.n], r.kind)
}
