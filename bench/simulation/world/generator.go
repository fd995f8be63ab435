package world

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/bench/simulation/audit"
	"github.com/millrace/millrace/pipeline"
)

const (
	account   = "acct"
	container = "insights-logs-flowlogflowevent"
	folder    = "flowLogResourceID=/11AA_NETWORKWATCHERRG/NETWORKWATCHER_X/VNETLOG/"
	header    = `{"records":[`
	footer    = `]}`
)

// nicMAC names a network interface.
func nicMAC(nic int) string { return fmt.Sprintf("0022487%05X", nic*7+1) }

// blobOf names the blob of an interface's hour.
func blobOf(nic int, hour time.Time) pipeline.BlobID {
	return pipeline.BlobID{
		Account: account, Container: container,
		Path: folder + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/macAddress=" + nicMAC(nic) + "/PT1H.json",
	}
}

// record writes one record into the blob, as the service would at that time, and
// notes its tuples.
func (s *blobService) record(f *blobFile, at time.Time) {
	w := s.w
	comma := ","
	if len(f.data) == 0 {
		f.data, comma = append(f.data, header...), ""
	} else {
		f.data = f.data[:len(f.data)-len(footer)]
	}
	f.data = append(f.data, comma...)
	offset := int64(len(f.data))
	var b strings.Builder
	fmt.Fprintf(&b, `{"time":%q,"flowLogVersion":4,"flowLogGUID":"66aa66aa-bb77-cc88-dd99-00ee00ee00ee","macAddress":%q,"category":"FlowLogFlowEvent",`+
		`"flowLogResourceID":"/SUBSCRIPTIONS/11AA/FLOWLOGS/VNETLOG","targetResourceID":"/subscriptions/11aa/virtualNetworks/v","operationName":"FlowLogFlowEvent",`+
		`"flowRecords":{"flows":[{"aclID":"00aa00aa-bb11-cc22-dd33-44ee44ee44ee","flowGroups":[`,
		at.Format("2006-01-02T15:04:05.0000000Z"), nicMAC(f.nic))
	n := 1 + w.rng.IntN(w.plan.Tuples)
	split := w.rng.IntN(n + 1) // tuples of the first group
	for i := range n {
		switch {
		case i == 0:
			b.WriteString(`{"rule":"DefaultRule_AllowInternetOutBound","flowTuples":["`)
		case i == split:
			b.WriteString(`"]},{"rule":"UserRule_web","flowTuples":["`)
		default:
			b.WriteString(`","`)
		}
		t, text := s.tuple(f, at)
		t.Offset, t.Ordinal = offset, i
		b.WriteString(text)
		f.tuples = append(f.tuples, len(w.book.Written))
		w.book.Written = append(w.book.Written, t)
	}
	b.WriteString(`"]}]}]}}`)
	f.data = append(f.data, b.String()...)
	f.ends = append(f.ends, int64(len(f.data)))
	f.count = append(f.count, len(f.tuples))
	f.data = append(f.data, footer...)
	f.etag++
	f.touched = w.now
}

// tuple draws one tuple and its text.
func (s *blobService) tuple(f *blobFile, at time.Time) (audit.Tuple, string) {
	w := s.w
	w.number++
	hour, _ := f.id.Hour()
	when := at.Add(-between(w.rng, 0, w.plan.Every))
	if w.rng.IntN(20) == 0 {
		when = when.Add(-between(w.rng, 0, 20*time.Minute))
	}
	if earliest := hour.Add(-time.Hour); when.Before(earliest) {
		when = earliest
	}
	state := "BCED"[w.rng.IntN(4)]
	t := audit.Tuple{
		Number: w.number, Blob: f.id.String(), Generation: f.generation,
		TimeMS: when.UnixMilli(), MAC: nicMAC(f.nic),
		Src: fmt.Sprintf("10.0.%d.%d", w.rng.IntN(3), w.rng.IntN(4)), Dst: fmt.Sprintf("192.0.2.%d", w.rng.IntN(8)),
		SrcPort: 1024 + w.rng.IntN(5), DstPort: []int{22, 53, 80, 443}[w.rng.IntN(4)], Protocol: []int{6, 17}[w.rng.IntN(2)],
		Allowed: state != 'D', Packets: 1 + w.number%97, Bytes: w.number,
	}
	number := strconv.FormatUint(w.number, 10)
	fields := []string{
		strconv.FormatInt(t.TimeMS, 10), t.Src, t.Dst, strconv.Itoa(t.SrcPort), strconv.Itoa(t.DstPort), strconv.Itoa(t.Protocol),
		"IO"[w.rng.IntN(2):][:1], string(state), "NX", strconv.FormatUint(t.Packets, 10), number, "1", number,
	}
	if w.hit(TupleMalformed) {
		t.Reason, fields = s.spoil(fields)
	}
	return t, strings.Join(fields, ",")
}

// spoil makes a tuple malformed, and says what the quarantine will call it.
func (s *blobService) spoil(fields []string) (string, []string) {
	all := []struct {
		field  int
		text   string
		reason pipeline.Reason
	}{
		{0, "soon", pipeline.ReasonTime},
		{0, "1", pipeline.ReasonTimeRange},
		{0, "4294967295000", pipeline.ReasonTimeRange},
		{1, "10.0.0.256", pipeline.ReasonAddress},
		{4, "65536", pipeline.ReasonPort},
		{5, "256", pipeline.ReasonProtocol},
		{6, "X", pipeline.ReasonDirection},
		{7, "A", pipeline.ReasonState},
		{9, "-1", pipeline.ReasonCounter},
		{12, "18446744073709551616", pipeline.ReasonCounter},
	}
	i := s.w.rng.IntN(len(all) + 1)
	if i == len(all) {
		return string(pipeline.ReasonFieldCount), fields[:len(fields)-1]
	}
	fields[all[i].field] = all[i].text
	return string(all[i].reason), fields
}
