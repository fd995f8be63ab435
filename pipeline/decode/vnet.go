package decode

import (
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// VNet flow logs, version 4: flowRecords.flows[].flowGroups[].flowTuples[].

// vnetBody reads flowRecords at data[p] into rows. Depths are those of the brackets:
// record 1, flowRecords 2, flows 3, flow 4, flowGroups 5, group 6, flowTuples 7.
func (d *decoder) vnetBody(p int) int {
	d.rec.body = body{of: keyFlowRecords, format: schemas.FormatVNet4}
	return d.level(p, 2, "flows", d.vnetFlow)
}

func (d *decoder) vnetFlow(p int) int {
	row, acl := d.n, uint32(0)
	var flowGroups, aclID bool
	end := d.bodyObject(p, 4, func(key []byte, p int) int {
		switch string(plainKey(key, &d.scratch)) {
		case "aclID":
			again := aclID
			text, end := d.textOnce(&aclID, p, 5, "aclID")
			if !again {
				acl = d.b.acls.code(text)
			}
			return end
		case "flowGroups":
			return d.arrayOnce(&flowGroups, p, 5, "flowGroups", d.vnetGroup)
		}
		return skip(d.data, p, 5, d.limits.Depth)
	})
	d.must(flowGroups, p, "flowGroups")
	if !aclID {
		acl = d.b.acls.code(nil)
	}
	fill(d.c.acl[row:d.n], acl)
	return end
}

func (d *decoder) vnetGroup(p int) int {
	row := d.n
	var rule ruleCode
	var flowTuples bool
	end := d.bodyObject(p, 6, func(key []byte, p int) int {
		switch string(plainKey(key, &d.scratch)) {
		case "rule":
			return d.rule(&rule, p, 7)
		case "flowTuples":
			return d.tupleArray(&flowTuples, p, 7)
		}
		return skip(d.data, p, 7, d.limits.Depth)
	})
	d.must(flowTuples, p, "flowTuples")
	d.fillRule(rule, row)
	return end
}

// judgeVNet decides whether the record is good and completes its rows.
func (d *decoder) judgeVNet() (pipeline.Reason, string) {
	if detail, ok := d.cameTwice(keyVersion, keyMAC, keyFlowLog, keyTarget, keyFlowRecords); ok {
		return pipeline.ReasonShape, detail
	}
	if v := d.value(keyVersion); v != nil && !isNumber(v, '4') {
		return pipeline.ReasonVersion, "flowLogVersion " + excerpt(v[:min(len(v), 64)])
	}
	mac, reason, detail := d.headText(keyMAC, &d.b.macs)
	if reason != "" {
		return reason, detail
	}
	flowLog, reason, detail := d.headText(keyFlowLog, &d.b.flowLogs)
	if reason != "" {
		return reason, detail
	}
	target, reason, detail := d.headText(keyTarget, &d.b.targets)
	if reason != "" {
		return reason, detail
	}
	if v := d.value(keyFlowRecords); v == nil || v[0] != '{' {
		return pipeline.ReasonShape, "member flowRecords is missing, or no object"
	}
	if reason, detail = d.worst(); reason != "" {
		return reason, detail
	}
	row := d.rec.row
	fill(d.c.mac[row:d.n], mac)
	fill(d.c.flowLog[row:d.n], flowLog)
	fill(d.c.target[row:d.n], target)
	return "", ""
}
