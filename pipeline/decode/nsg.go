package decode

import (
	"math"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// NSG flow logs, versions 1 and 2: properties.flows[].flows[].flowTuples[].

// noMAC stands in rows whose flow has no MAC of its own until the record's is known.
const noMAC = math.MaxUint32

// nsgBody reads properties at data[p] into rows. flows can only be read when Version
// is known; when Version comes later, flows is read in a second walk.
func (d *decoder) nsgBody(p int) int {
	d.dropRows()
	d.rec.body = body{of: keyProperties}
	var flows, versioned bool
	var later span
	end := d.bodyObject(p, 2, func(key []byte, p int) int {
		switch string(plainKey(key, &d.scratch)) {
		case "Version":
			return d.nsgVersion(&versioned, p)
		case "flows":
			if flows || d.nsgKnown() {
				return d.arrayOnce(&flows, p, 3, "flows", d.nsgFlow)
			}
			flows = true
			later = span{p, skip(d.data, p, 3, d.limits.Depth)}
			return later.end
		}
		return skip(d.data, p, 3, d.limits.Depth)
	})
	d.must(flows, p, "flows")
	if end != broken && later.end > 0 && d.nsgKnown() {
		flows = false
		d.arrayOnce(&flows, later.start, 3, "flows", d.nsgFlow)
	}
	return end
}

func (d *decoder) nsgVersion(seen *bool, p int) int {
	end := skip(d.data, p, 3, d.limits.Depth)
	if *seen {
		d.flag(faultShape, "member Version comes twice")
		return end
	}
	*seen = true
	if end == broken {
		return end
	}
	d.rec.body.version = span{p, end}
	switch v := d.data[p:end]; {
	case isNumber(v, '1'):
		d.rec.body.format = schemas.FormatNSG1
	case isNumber(v, '2'):
		d.rec.body.format = schemas.FormatNSG2
	}
	return end
}

// nsgKnown says whether the version is one that is known.
func (d *decoder) nsgKnown() bool { return d.rec.body.format != 0 }

func (d *decoder) nsgFlow(p int) int {
	row := d.n
	var rule ruleCode
	var flows bool
	end := d.bodyObject(p, 4, func(key []byte, p int) int {
		switch string(plainKey(key, &d.scratch)) {
		case "rule":
			return d.rule(&rule, p, 5)
		case "flows":
			return d.arrayOnce(&flows, p, 5, "flows", d.nsgInner)
		}
		return skip(d.data, p, 5, d.limits.Depth)
	})
	d.must(flows, p, "flows")
	d.fillRule(rule, row)
	return end
}

func (d *decoder) nsgInner(p int) int {
	row, code := d.n, uint32(noMAC)
	var mac, flowTuples bool
	end := d.bodyObject(p, 6, func(key []byte, p int) int {
		switch string(plainKey(key, &d.scratch)) {
		case "mac":
			again := mac
			text, end := d.textOnce(&mac, p, 7, "mac")
			if !again && len(text) > 0 {
				code = d.ownMAC(text)
			}
			return end
		case "flowTuples":
			return d.tupleArray(&flowTuples, p, 7)
		}
		return skip(d.data, p, 7, d.limits.Depth)
	})
	d.must(flowTuples, p, "flowTuples")
	fill(d.c.mac[row:d.n], code)
	return end
}

func (d *decoder) ownMAC(text []byte) uint32 {
	text, ok := macText(text, &d.mac)
	if !ok {
		d.flag(faultShape, "mac is not 12 hex digits")
	}
	if len(text) == 0 {
		return noMAC
	}
	return d.b.macs.code(text)
}

// judgeNSG decides whether the record is good and completes its rows.
func (d *decoder) judgeNSG() (pipeline.Reason, string) {
	if detail, ok := d.cameTwice(keyMAC, keySystem, keyResource, keyProperties); ok {
		return pipeline.ReasonShape, detail
	}
	mac, reason, detail := d.headText(keyMAC, &d.b.macs)
	if reason != "" {
		return reason, detail
	}
	acl, reason, detail := d.headText(keySystem, &d.b.acls)
	if reason != "" {
		return reason, detail
	}
	target, reason, detail := d.headText(keyResource, &d.b.targets)
	if reason != "" {
		return reason, detail
	}
	if v := d.value(keyProperties); v == nil || v[0] != '{' {
		return pipeline.ReasonShape, "member properties is missing, or no object"
	}
	if d.rec.body.of != keyProperties {
		d.nsgBody(d.rec.spans[keyProperties].start)
	}
	if !d.nsgKnown() {
		s := d.rec.body.version
		return pipeline.ReasonVersion, "Version " + excerpt(d.data[s.start:min(s.end, s.start+64)])
	}
	if reason, detail = d.worst(); reason != "" {
		return reason, detail
	}
	row := d.rec.row
	for i, code := range d.c.mac[row:d.n] {
		if code == noMAC {
			d.c.mac[row+i] = mac
		}
	}
	fill(d.c.acl[row:d.n], acl)
	fill(d.c.flowLog[row:d.n], d.b.flowLogs.code(nil))
	fill(d.c.target[row:d.n], target)
	return "", ""
}

// dropRows forgets what was read of the other format's body.
func (d *decoder) dropRows() {
	d.n, d.rec.ordinal = d.rec.row, 0
	d.rec.rejects, d.rec.rejectAt, d.rec.refused = d.rec.rejects[:0], d.rec.rejectAt[:0], 0
}
