package assembly_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/evidence"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// evidenceBench is where evidence is looked at: a world whose pipeline has landed what it
// had, and a checker.
type evidenceBench struct {
	*world
	cfg     config.Config
	checker *evidence.Checker
	content map[string]string // of blobs, by account/container/path
}

func newEvidenceBench(t *testing.T, samples []sampleBlob) *evidenceBench {
	w := newWorld(t, jobtest.SweeperOff)
	b := &evidenceBench{world: w, content: map[string]string{}}
	total := 0
	r := w.run()
	for _, s := range samples {
		total += s.rows
		b.content[w.Account+"/"+s.container+"/"+s.path] = s.content()
		w.grow(s, func(etag string, length int) { w.announce(s, etag, length) })
	}
	w.WaitFor("SELECT count() FROM millrace.flows", fmt.Sprint(total))
	r.drain()
	var err error
	if b.cfg, err = config.Parse([]byte(w.YAML)); err != nil {
		t.Fatal(err)
	}
	p, deps, err := assembly.OpenEvidence(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	b.checker = evidence.New(deps)
	t.Cleanup(b.checker.Release)
	return b
}

// fresh is a checker that remembers nothing of the blobs.
func (b *evidenceBench) fresh() {
	p, deps, err := assembly.OpenEvidence(b.cfg)
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(p.Close)
	b.checker = evidence.New(deps)
	b.T.Cleanup(b.checker.Release)
}

// at looks at one address.
func (b *evidenceBench) at(address string) evidence.Finding {
	b.T.Helper()
	a, err := reread.ParseAddress(address)
	if err != nil {
		b.T.Fatal(err)
	}
	var found []evidence.Finding
	_, err = b.checker.Address(b.T.Context(), a, 20, func(f evidence.Finding) error {
		found = append(found, f)
		return nil
	})
	if err != nil || len(found) == 0 {
		b.T.Fatalf("%s: %d findings, %v", address, len(found), err)
	}
	return found[0]
}

// address gives that of the first row that meets the condition.
func (b *evidenceBench) address(where string) string {
	b.T.Helper()
	text := b.Ask("SELECT blob || '@' || toString(generation) || ':' || toString(record_offset) || ':' || toString(ordinal) FROM millrace.flows WHERE " + where + " ORDER BY blob, record_offset, ordinal LIMIT 1")
	if text == "" {
		b.T.Fatalf("no row where %s", where)
	}
	return text
}

func (b *evidenceBench) want(f evidence.Finding, outcome evidence.Outcome, cause string) {
	b.T.Helper()
	if f.Outcome != outcome || !strings.Contains(f.Cause, cause) {
		b.T.Errorf("%s: %s because %q, want %s because %q", f.Address, f.Outcome, f.Cause, outcome, cause)
	}
}

// window looks at a window.
func (b *evidenceBench) window(limit int, table, start string, keys ...string) (w evidence.Window, found []evidence.Finding, total uint64) {
	b.T.Helper()
	k, err := evidence.NewKey(b.cfg.Windows, table, start, keys)
	if err != nil {
		b.T.Fatal(err)
	}
	total, err = b.checker.Window(b.T.Context(), k, limit, func(head evidence.Window) error { w = head; return nil }, func(f evidence.Finding) error {
		found = append(found, f)
		return nil
	})
	if err != nil {
		b.T.Fatal(err)
	}
	return w, found, total
}

// overwrite makes other content of a blob.
func (w *world) overwrite(name, content string) {
	w.T.Helper()
	id, err := pipeline.ParseBlobID(name)
	if err != nil {
		w.T.Fatal(err)
	}
	blob, block := traffic.BlobName{Container: id.Container, Path: id.Path}, base64.StdEncoding.EncodeToString([]byte("block-overwrite"))
	if err := w.Blobs.Stage(w.T.Context(), blob, block, []byte(content)); err != nil {
		w.T.Fatal(err)
	}
	if _, err := w.Blobs.Commit(w.T.Context(), blob, []string{block}); err != nil {
		w.T.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.T.Helper()
	id, err := pipeline.ParseBlobID(name)
	if err != nil {
		w.T.Fatal(err)
	}
	credential, err := azblob.NewSharedKeyCredential(w.Account, os.Getenv("TEST_STORAGE_KEY"))
	if err != nil {
		w.T.Fatal(err)
	}
	client, err := azblob.NewClientWithSharedKeyCredential(w.Config().Accounts[0].Endpoint, credential, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	if _, err := client.DeleteBlob(w.T.Context(), id.Container, id.Path, nil); err != nil {
		w.T.Fatal(err)
	}
}

// ipv6Blob has flows between IPv6 addresses: four of one key and window, over two
// records.
func ipv6Blob(hour time.Time) sampleBlob {
	record := func(second int, tuples ...string) string {
		at := hour.Add(time.Duration(second) * time.Second)
		for i, t := range tuples {
			tuples[i] = fmt.Sprintf(`"%d,%s"`, at.Add(time.Duration(i)*time.Second).UnixMilli(), t)
		}
		return fmt.Sprintf(`{"time":"%s","flowLogVersion":4,"macAddress":"0022481C2F3F","category":"FlowLogFlowEvent","flowLogResourceID":"/L","targetResourceID":"/T",`+
			`"flowRecords":{"flows":[{"aclID":"six","flowGroups":[{"rule":"UserRule_six","flowTuples":[%s]}]}]}}`, at.Format(recordLayout), strings.Join(tuples, ","))
	}
	const from, to = "2001:db8::1", "2001:db8:0:1::2"
	b := sampleBlob{name: "ipv6", container: jobtest.VNetLogs, rows: 5, records: []string{
		record(0, from+","+to+",40000,443,6,O,B,NX,0,0,0,0", from+","+to+",40000,443,6,O,C,NX,7,700,9,9000"),
		record(10, from+","+to+",40000,443,6,O,E,NX,1,10,2,20", from+","+to+",40001,443,6,O,B,NX,,,,", from+","+to+",40002,53,17,O,D,NX,0,0,0,0"),
	}}
	b.path = "flowLogResourceID=/S_RG/NW_LOG/" + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/macAddress=0022481C2F3F/PT1H.json"
	return b
}

// TestEvidence: from rows that went the whole way back to their bytes.
func TestEvidence(t *testing.T) {
	hour := time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)
	samples := []sampleBlob{ipv6Blob(hour)}
	for _, s := range sampleBlobs(t, hour) {
		if s.rows < 500 {
			samples = append(samples, s)
		}
	}
	b := newEvidenceBench(t, samples)

	t.Run("rows of every commit", func(t *testing.T) { b.commits(t, samples) })
	t.Run("windows", func(t *testing.T) { b.windows(t, hour) })
	t.Run("unknown addresses", b.unknown)
	t.Run("altered rows", b.altered)
	t.Run("blobs that are not what they were", func(t *testing.T) { b.lost(t, samples) })
}

func (b *evidenceBench) commits(t *testing.T, samples []sampleBlob) {
	const most = 40 // of a commit
	landed, read, formats := uint64(0), 0, map[string]int{}
	for _, text := range strings.Fields(b.Ask("SELECT DISTINCT batch_id FROM millrace.flows")) {
		var id pipeline.BatchID
		if _, err := fmt.Sscan(text, &id); err != nil {
			t.Fatal(err)
		}
		total, err := b.checker.Batch(t.Context(), id, most, func(f evidence.Finding) error {
			read++
			b.want(f, evidence.Verified, "")
			formats[f.Row["format"]]++
			content := b.content[f.Row["blob"]]
			if f.Tuple == "" || !strings.HasPrefix(content[f.TupleOffset:], f.Tuple+`"`) {
				t.Errorf("%s: tuple %q is not at byte %d of the blob", f.Address, f.Tuple, f.TupleOffset)
			}
			if record := content[f.Record.Offset:][:f.Record.Length]; record[0] != '{' || !strings.HasSuffix(record, "}") || !strings.Contains(record, f.Tuple) {
				t.Errorf("%s: record %q", f.Address, record)
			}
			if f.Range == nil || f.Range.Now != f.Range.Hash || len(f.Range.Hash) != 32 {
				t.Errorf("%s: byte range %+v", f.Address, f.Range)
			}
			return nil
		})
		if err != nil || total == 0 {
			t.Errorf("commit %v: %d rows, %v", id, total, err)
		}
		landed += total
	}
	want := 0
	for _, s := range samples {
		want += s.rows
	}
	if landed != uint64(want) || read < 100 || formats["vnet-4"] == 0 || formats["nsg-1"] == 0 || formats["nsg-2"] == 0 {
		t.Errorf("%d rows, %d of them read, want %d; formats %v", landed, read, want, formats)
	}

	six := b.at(b.address("src_ip = toIPv6('2001:db8::1') AND bytes_sent = 700"))
	b.want(six, evidence.Verified, "")
	if six.Row["dst_ip"] != "2001:db8:0:1::2" || !strings.HasSuffix(six.Tuple, ",2001:db8::1,2001:db8:0:1::2,40000,443,6,O,C,NX,7,700,9,9000") {
		t.Errorf("IPv6: %+v", six)
	}
	whole := 0
	a, err := reread.ParseAddress(strings.TrimSuffix(six.Address, ":1"))
	if err != nil {
		t.Fatal(err)
	}
	total, err := b.checker.Address(t.Context(), a, 1, func(f evidence.Finding) error { whole++; return nil })
	if err != nil || whole != 1 || total != 2 {
		t.Errorf("a record of two tuples, limit 1: %d of %d rows, %v", whole, total, err)
	}
	var found []evidence.Finding
	emit := func(f evidence.Finding) error { found = append(found, f); return nil }
	if total, err := b.checker.Batch(t.Context(), 77, 20, emit); err != nil || total != 0 || len(found) != 1 || found[0].Outcome != evidence.Unknown {
		t.Errorf("a commit that is none: %d rows, %+v, %v", total, found, err)
	}
}

func (b *evidenceBench) windows(t *testing.T, hour time.Time) {
	start := hour.Format(time.RFC3339)
	key := []string{"dst_ip=2001:db8:0:1::2", "dst_port=443", "protocol=6", "direction=outbound", "action=allowed"}
	w, found, total := b.window(3, "services_1m", start, key...)
	sums := map[string]uint64{"rows": 4, "packets_sent": 8, "bytes_sent": 710, "packets_received": 11, "bytes_received": 9020}
	if w.Outcome != evidence.Verified || total != 4 || len(found) != 3 {
		t.Errorf("window %+v, %d rows of %d", w, len(found), total)
	}
	if diff := cmp.Diff([]map[string]uint64{sums, sums}, []map[string]uint64{w.Landed, w.Flows}); diff != "" {
		t.Errorf("landed and flow rows (-want +got):\n%s", diff)
	}
	for _, f := range found {
		b.want(f, evidence.Verified, "")
	}

	// Every row of every merged table adds up.
	checked := 0
	for _, c := range b.cfg.Windows {
		columns := strings.Join(c.GroupBy, ", ")
		for row := range strings.Lines(b.Ask(fmt.Sprintf("SELECT formatDateTime(window_start, '%%FT%%TZ'), %s FROM millrace.windows_%s_merged ORDER BY rows DESC LIMIT 4 FORMAT TabSeparatedRaw", columns, c.Name))) {
			values := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
			var keys []string
			for i, name := range c.GroupBy {
				keys = append(keys, name+"="+values[i+1])
			}
			w, found, total := b.window(2, "windows_"+c.Name, values[0], keys...)
			if w.Outcome != evidence.Verified || total == 0 || total != w.Landed["rows"] || len(found) != int(min(total, 2)) {
				t.Errorf("window %+v with %d of %d rows", w, len(found), total)
			}
			checked++
		}
	}
	if checked != 4*len(b.cfg.Windows) {
		t.Errorf("%d windows checked", checked)
	}

	key[1] = "dst_port=1"
	if w, _, _ := b.window(3, "services_1m", start, key...); w.Outcome != evidence.Unknown || !strings.Contains(fmt.Sprint(w.Hints), "the window has dst_ip=") {
		t.Errorf("a key that no row has: %+v", w)
	}
}

func (b *evidenceBench) unknown(t *testing.T) {
	good := b.address("format = 'nsg-2'")
	colon := strings.LastIndexByte(good, ':')
	far := b.at(good[:colon] + ":4000")
	b.want(far, evidence.Unknown, "no row at this address")
	if want := "near it: " + good[:colon] + " has ordinals 0 to"; !strings.Contains(fmt.Sprint(far.Hints), want) {
		t.Errorf("hints %q, want %q", far.Hints, want)
	}
	nowhere := b.at("acc/logs/macAddress=000000000000/PT1H.json@0:12:0")
	b.want(nowhere, evidence.Unknown, "no row at this address")
	if !strings.Contains(fmt.Sprint(nowhere.Hints), "LIKE '%macAddress=000000000000/PT1H.json'") {
		t.Errorf("hints %q", nowhere.Hints)
	}
	b.Ask("INSERT INTO millrace.quarantine (time, reason, scope, blob, record_offset, ordinal, length) VALUES (now(), 'tuple_port', 'tuple', 'acc/logs/q', 12, 3, 5)")
	if refused := b.at("acc/logs/q@0:12:3"); !strings.Contains(fmt.Sprint(refused.Hints), "millrace quarantine show 'acc/logs/q@0:12:3'") {
		t.Errorf("hints %q", refused.Hints)
	}
}

func (b *evidenceBench) altered(t *testing.T) {
	alter := func(sql string) { b.Ask("ALTER TABLE millrace.flows " + sql + " SETTINGS mutations_sync = 1") }
	address := b.address("format = 'nsg-2'")
	a, err := reread.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	where := fmt.Sprintf(" WHERE blob = %s AND record_offset = %d AND ordinal = %d", schemas.QuoteString(a.Blob.String()), a.Offset, a.Ordinal)
	before := b.at(address).Row["dst_port"]
	alter("UPDATE dst_port = 1, encryption = 'E' " + where)
	f := b.at(address)
	b.want(f, evidence.Differs, "not what the bytes say")
	if diff := cmp.Diff([]evidence.Difference{{Column: "dst_port", Row: "1", Bytes: before}, {Column: "encryption", Row: "E", Bytes: ""}}, f.Differences); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	if f.Tuple == "" || f.Range.Now != f.Range.Hash {
		t.Errorf("the bytes of an altered row: %+v", f)
	}
	var text strings.Builder
	out := &evidence.Printer{Out: &text}
	if err := out.Finding(f); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DIFFERS  " + address, `dst_port: the row has "1", the bytes say "` + before + `"`, f.Tuple, "xxh3-128 " + f.Range.Hash + " as now"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, text.String())
		}
	}
	if out.AllVerified() {
		t.Error("a row that differs counts as verified")
	}

	twice := b.address("format = 'vnet-4' AND dst_port = 53")
	b.Ask("INSERT INTO millrace.flows SELECT * FROM millrace.flows WHERE format = 'vnet-4' AND dst_port = 53 ORDER BY blob, record_offset, ordinal LIMIT 1")
	b.want(b.at(twice), evidence.Differs, "2 rows have this address")

	// An ordinal that the record does not have, and an offset where none begins.
	alter("UPDATE ordinal = 900" + where)
	b.want(b.at(strings.TrimSuffix(address, fmt.Sprint(a.Ordinal))+"900"), evidence.Differs, "has no tuple 900")
	alter("UPDATE record_offset = record_offset + 1 WHERE ordinal = 900")
	b.want(b.at(fmt.Sprintf("%s@0:%d:900", a.Blob, a.Offset+1)), evidence.Differs, "no record begins at byte")

	// A window whose flow rows were deleted does not add up.
	six := b.address("src_ip = toIPv6('2001:db8::1') AND bytes_sent = 700")
	start := b.Ask("SELECT formatDateTime(window_start, '%FT%TZ') FROM millrace.windows_services_1m WHERE dst_ip = toIPv6('2001:db8:0:1::2') LIMIT 1")
	alter("DELETE WHERE bytes_sent = 700 AND src_ip = toIPv6('2001:db8::1')")
	w, _, total := b.window(1, "services_1m", start, "dst_ip=2001:db8:0:1::2", "dst_port=443", "protocol=6", "direction=outbound", "action=allowed")
	if w.Outcome != evidence.Differs || total != 3 || len(w.Differences) != 5 || w.Differences[0] != (evidence.Difference{Column: "rows", Row: "4", Bytes: "3"}) {
		t.Errorf("a window that lost a flow row: %+v", w)
	}
	b.want(b.at(six), evidence.Unknown, "")
}

func (b *evidenceBench) lost(t *testing.T, samples []sampleBlob) {
	rowOf := func(name string) (blob, address string) {
		for _, s := range samples {
			if s.name == name {
				blob = b.Account + "/" + s.container + "/" + s.path
				return blob, b.address("blob = " + schemas.QuoteString(blob))
			}
		}
		t.Fatalf("no sample %s", name)
		return "", ""
	}
	// A commit that the table batches does not have: the record alone is compared.
	_, address := rowOf("nsg-docs-v1-nested-records.json")
	b.Ask("ALTER TABLE millrace.batches DELETE WHERE blob LIKE '%NSG-DOCS-V1%' SETTINGS mutations_sync = 1")
	b.fresh()
	if f := b.at(address); f.Outcome != evidence.Verified || f.Range != nil || f.Tuple == "" {
		t.Errorf("without its byte range: %+v", f)
	}

	blob, address := rowOf("vnet-docs-v4-record.compact.json")
	content := b.content[blob]
	// One other byte behind the first record's first tuple: the range is another one.
	b.overwrite(blob, strings.Replace(content, `"flowLogVersion":4`, `"flowLogVersion": `, 1))
	b.fresh()
	f := b.at(address)
	b.want(f, evidence.Rewritten, "xxh3-128 differs")
	if f.Range == nil || f.Range.Now == "" || f.Range.Now == f.Range.Hash {
		t.Errorf("byte range %+v", f.Range)
	}
	b.overwrite(blob, content[:40])
	b.fresh()
	b.want(b.at(address), evidence.Rewritten, "the blob is shorter now")
	b.remove(blob)
	b.fresh()
	f = b.at(address)
	b.want(f, evidence.Expired, "the blob is gone")
	if f.Row["format"] != "vnet-4" || f.Tuple != "" || f.Record != nil {
		t.Errorf("a row without its source: %+v", f)
	}

	blob, address = rowOf("nsg-connector-v2-trailing-comma.json")
	b.Ask("INSERT INTO millrace.batches (batch_id, committed, blob, generation, offset, length) VALUES (1, now(), " + schemas.QuoteString(blob) + ", 1, 12, 100)")
	b.fresh()
	b.want(b.at(address), evidence.Rewritten, "generation 1 of the blob has been read since")
}
