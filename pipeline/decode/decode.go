package decode

import (
	"github.com/millrace/millrace/pipeline/decode/internal/reference"
)

// Decode judges a region of the records array: zero or more whole records
// separated by commas. It may begin with a comma, a BOM or whitespace, and it
// never holds the footer. Everything in data is judged: rows go into the batch,
// all else comes back as a reject. data is borrowed.
func (b *Batch) Decode(r Range, data []byte) Result {
	out := reference.Decode(reference.Input{
		Offset: r.Offset, MinTime: r.MinTime, MaxTime: r.MaxTime, Ordinals: r.Ordinals,
		Limits: reference.Limits(b.limits),
	}, data)
	res := Result{Rows: len(out.Rows), Records: out.Records}
	for _, row := range out.Rows {
		if b.n == b.cols.room {
			b.cols.grow(b.alloc, max(b.n+1, b.peak))
		}
		b.appendRow(r, row)
		if res.MinTime == 0 && res.MaxTime == 0 {
			res.MinTime, res.MaxTime = row.Time, row.Time
		}
		res.MinTime, res.MaxTime = min(res.MinTime, row.Time), max(res.MaxTime, row.Time)
	}
	b.sawTimes(res)
	for _, rej := range out.Rejects {
		res.Rejects = append(res.Rejects, rej.Reject)
		res.RejectAt = append(res.RejectAt, rej.At)
	}
	return res
}

func (b *Batch) sawTimes(res Result) {
	if res.Rows == 0 {
		return
	}
	if b.n == res.Rows {
		b.minTime, b.maxTime = res.MinTime, res.MaxTime
	}
	b.minTime, b.maxTime = min(b.minTime, res.MinTime), max(b.maxTime, res.MaxTime)
}

func (b *Batch) appendRow(r Range, row reference.Row) {
	c, n := &b.cols, b.n
	c.time[n], c.format[n], c.mac[n] = row.Time, row.Format, b.macs.code([]byte(row.MAC))
	copy(c.src[16*n:], row.Src[:])
	copy(c.dst[16*n:], row.Dst[:])
	c.srcPort[n], c.dstPort[n], c.protocol[n] = row.SrcPort, row.DstPort, row.Protocol
	c.direction[n], c.state[n], c.action[n] = row.Direction, row.State, row.Action
	c.encryption[n] = b.encryptions.code([]byte(row.Encryption))
	c.counters[0][n], c.counters[1][n] = row.PacketsSent, row.BytesSent
	c.counters[2][n], c.counters[3][n] = row.PacketsReceived, row.BytesReceived
	c.acl[n], c.rule[n], c.ruleKind[n] = b.acls.code([]byte(row.ACL)), b.rules.code([]byte(row.Rule)), row.RuleKind
	c.flowLog[n], c.target[n] = b.flowLogs.code([]byte(row.FlowLog)), b.targets.code([]byte(row.Target))
	c.blob[n], c.generation[n] = b.blobs.code([]byte(r.Blob)), r.Generation
	c.recordOffset[n], c.ordinal[n] = uint64(row.RecordOffset), row.Ordinal
	b.n++
}

// decodeWhole decodes the records that are whole and gives how many bytes they
// took. closed: the records array ends at data[n].
func (b *Batch) decodeWhole(r Range, data []byte) (res Result, n int, closed bool) {
	n, closed = SplitRecords(data)
	return b.Decode(r, data[:n]), n, closed
}
