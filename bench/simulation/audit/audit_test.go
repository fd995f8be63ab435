package audit

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

const (
	noon = 1_767_225_600_000 // begins a minute
	a    = "acc/logs/a/PT1H.json"
	b    = "acc/logs/b/PT1H.json"
)

func id(shard int, seq uint64) uint64 { return 7<<48 | uint64(shard)<<36 | seq }

func tuple(n uint64, blob string, offset int64, ordinal int, ms int64) Tuple {
	return Tuple{
		Number: n, Blob: blob, Offset: offset, Ordinal: ordinal, TimeMS: noon + ms,
		MAC: "00155D" + blob[9:10], Src: "10.0.0.1", Dst: "10.0.0.2", SrcPort: 1000, DstPort: 443, Protocol: 6, Allowed: true,
		Packets: n, Bytes: 10 * n,
	}
}

// right is the book of a run without a fault, small enough to be counted by hand:
//
//	shard 0, blob a: batch 1 has tuples 1 and 2 of the first minute, batch 2 tuple 3 of
//	the second and the malformed 4, and its watermark closes the first minute; batch 3
//	brings tuple 5 of the first minute, late; batch 4 has no rows and ends the input
//	shard 1, blob b: tuple 6, then the blob is rewritten (8 is gone unread) and has 7
func right() Book {
	ts := []Tuple{
		tuple(1, a, 12, 0, 1000), tuple(2, a, 12, 1, 2000), tuple(3, a, 112, 0, 61_000),
		tuple(4, a, 112, 1, 62_000), tuple(5, a, 212, 0, 3000),
		tuple(6, b, 12, 0, 5000), tuple(7, b, 12, 0, 6000), tuple(8, b, 112, 0, 7000),
	}
	ts[3].Reason = "tuple_fields"
	ts[6].Generation = 1
	ts[7].Gone = true
	row := func(i int, batch uint64) Row {
		r := Row{Tuple: ts[i], BatchID: batch}
		r.Reason, r.Gone = "", false
		return r
	}
	rows := func() []Row {
		return []Row{row(0, id(0, 1)), row(1, id(0, 1)), row(2, id(0, 2)), row(4, id(0, 3)), row(5, id(1, 1)), row(6, id(1, 1))}
	}
	const end = math.MaxInt64
	return Book{
		Seed: 1, Written: ts, Landed: rows(), Topic: rows(), HasTopic: true,
		Rejected: []Rejected{{Blob: a, Offset: 112, Ordinal: 1, Reason: "tuple_fields", BatchID: id(0, 2)}},
		WindowDefs: []Window{
			{Table: "windows_m", SizeMS: 60_000, GroupBy: []string{"mac", "action"}},
			{Table: "windows_all", SizeMS: 120_000, LatenessMS: 60_000},
		},
		Windows: []WindowRow{
			{Table: "windows_m", StartMS: noon, Key: []string{"00155Da", "allowed"}, Rows: 2, Packets: 3, Bytes: 30, BatchID: id(0, 2)},
			{Table: "windows_m", StartMS: noon, Key: []string{"00155Da", "allowed"}, Rows: 1, Packets: 5, Bytes: 50, BatchID: id(0, 3), Late: true},
			{Table: "windows_m", StartMS: noon + 60_000, Key: []string{"00155Da", "allowed"}, Rows: 1, Packets: 3, Bytes: 30, BatchID: id(0, 4)},
			{Table: "windows_m", StartMS: noon, Key: []string{"00155Db", "allowed"}, Rows: 2, Packets: 13, Bytes: 130, BatchID: id(1, 1)},
			{Table: "windows_all", StartMS: noon, Rows: 4, Packets: 11, Bytes: 110, BatchID: id(0, 4)},
			{Table: "windows_all", StartMS: noon, Rows: 2, Packets: 13, Bytes: 130, BatchID: id(1, 1)},
		},
		Batches: []Batch{
			{ID: id(0, 1), Shard: 0, Seq: 1, WatermarkMS: noon, Units: []Unit{{Blob: a, Offset: 12, Length: 100, Rows: 2}}},
			{ID: id(0, 2), Shard: 0, Seq: 2, WatermarkMS: noon + 60_000, Units: []Unit{{Blob: a, Offset: 112, Length: 100, Rows: 1}}},
			{ID: id(0, 3), Shard: 0, Seq: 3, WatermarkMS: noon + 60_000, Units: []Unit{{Blob: a, Offset: 212, Length: 90, Rows: 1}}},
			{ID: id(0, 4), Shard: 0, Seq: 4, WatermarkMS: end},
			{ID: id(1, 1), Shard: 1, Seq: 1, WatermarkMS: end, Units: []Unit{
				{Blob: b, Offset: 12, Length: 100, Rows: 1}, {Blob: b, Generation: 1, Offset: 12, Length: 100, Rows: 1},
			}},
		},
		Acks:    []Ack{{Partition: 1, Offset: 5, AtMS: noon, Blob: a, Length: 302, DurableLength: 302}},
		Drained: true, DrainMS: 1000, EndOfInput: true, OutOfOrdernessMS: 1000,
	}
}

func TestRightBook(t *testing.T) {
	v := Audit(right())
	if !v.Clean() {
		t.Fatalf("findings in a run without a fault:\n%s", strings.Join(v.Findings, "\n"))
	}
	if got, want := fmt.Sprint(v.Written, v.Landed, v.Quarantined, v.Gone, v.Pending), "8 6 1 1 0"; got != want {
		t.Errorf("written, landed, quarantined, gone, pending: %s, want %s", got, want)
	}
}

// Each case breaks the right book in one way; the auditor must see it, count it under
// its kind, and say where.
func TestWrongBooks(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(*Book)
		kind  string // of the verdict's counts
		says  string
	}{
		{"a row is missing", func(b *Book) { b.Landed = b.Landed[1:] }, "lost", "lost: tuple 1 "},
		{"nothing landed", func(b *Book) { b.Landed = nil }, "lost", "lost: tuple 6 "},
		{"a row is there twice", func(b *Book) { b.Landed = append(b.Landed, b.Landed[2]) }, "dup", "tuple 3 (blob \"acc/logs/a/PT1H.json\", generation 0, byte 112, ordinal 0) for the 2. time"},
		{"twice under another batch", func(b *Book) { r := b.Landed[2]; r.BatchID = id(0, 3); b.Landed = append(b.Landed, r) }, "dup", "for the 2. time"},
		{"a gone tuple twice", func(b *Book) {
			r := Row{Tuple: b.Written[7], BatchID: id(1, 1)}
			b.Landed = append(b.Landed, r, r)
		}, "dup", "tuple 8 "},
		{"a row that nobody wrote", func(b *Book) { b.Landed[0].Number = 99 }, "altered", "nobody wrote it"},
		{"a malformed tuple landed", func(b *Book) { b.Landed = append(b.Landed, Row{Tuple: tuple(4, a, 112, 1, 62_000), BatchID: id(0, 2)}) }, "altered", "reason"},
		{"time", func(b *Book) { b.Landed[0].TimeMS++ }, "altered", "time"},
		{"blob", func(b *Book) { b.Landed[0].Blob = "x/y/z" }, "altered", "blob"},
		{"offset", func(b *Book) { b.Landed[0].Offset = 13 }, "altered", "record_offset 13, want 12"},
		{"ordinal", func(b *Book) { b.Landed[0].Ordinal = 1 }, "altered", "ordinal"},
		{"mac", func(b *Book) { b.Landed[0].MAC = "x" }, "altered", "mac"},
		{"source", func(b *Book) { b.Landed[0].Src = "10.0.0.9" }, "altered", "src_ip"},
		{"destination", func(b *Book) { b.Landed[0].Dst = "10.0.0.9" }, "altered", "dst_ip"},
		{"source port", func(b *Book) { b.Landed[0].SrcPort = 1 }, "altered", "src_port"},
		{"destination port", func(b *Book) { b.Landed[0].DstPort = 1 }, "altered", "dst_port"},
		{"protocol", func(b *Book) { b.Landed[0].Protocol = 17 }, "altered", "protocol"},
		{"action", func(b *Book) { b.Landed[0].Allowed = false }, "altered", "allowed"},
		{"packets", func(b *Book) { b.Landed[0].Packets++ }, "altered", "packets"},
		{"bytes", func(b *Book) { b.Landed[0].Bytes++ }, "altered", "bytes"},
		{"two numbers alike", func(b *Book) { b.Written = append(b.Written, b.Written[0]) }, "altered", "number 1 twice"},

		{"a generation ahead", func(b *Book) { b.Landed[5].Generation = 2 }, "altered", "not rewritten so often"},
		{"a generation not raised", func(b *Book) { b.Landed[5].Generation = 0 }, "altered", "content 1 of blob"},
		{"two generations of one content", func(b *Book) { b.Written[0].Generation, b.Written[1].Generation, b.Landed[1].Generation = 1, 1, 1 }, "altered", "others of the same content"},

		{"not in quarantine", func(b *Book) { b.Rejected = nil }, "lost", "belongs into quarantine"},
		{"in quarantine twice", func(b *Book) { b.Rejected = append(b.Rejected, b.Rejected[0]) }, "dup", "quarantine has tuple 4 "},
		{"another reason", func(b *Book) { b.Rejected[0].Reason = "syntax" }, "altered", "as \"syntax\", want \"tuple_fields\""},
		{"a good tuple in quarantine", func(b *Book) { b.Rejected = append(b.Rejected, Rejected{Blob: a, Offset: 12, Reason: "syntax"}) }, "altered", "tuple 1 "},
		{"quarantine of nothing", func(b *Book) { b.Rejected = append(b.Rejected, Rejected{Blob: a, Offset: 13, Reason: "syntax"}) }, "altered", "nobody wrote it"},
		{"quarantine of a later generation", func(b *Book) { b.Rejected[0].Generation = 1 }, "altered", "nobody wrote it"},
		{"quarantine under another batch", func(b *Book) { b.Rejected[0].BatchID = id(0, 1) }, "batches", "quarantine has tuple 4 "},

		{"the topic lacks a row", func(b *Book) { b.Topic = b.Topic[1:] }, "lost", "the topic has not"},
		{"the topic alone has it", func(b *Book) { b.Topic = append(b.Topic, Row{Tuple: b.Written[7], BatchID: id(1, 1)}) }, "lost", "the table has not"},
		{"the topic has a row twice", func(b *Book) { b.Topic = append(b.Topic, b.Topic[0]) }, "dup", "topic has tuple 1 "},
		{"the topic alters a row", func(b *Book) { b.Topic[0].Bytes = 0 }, "altered", "topic has tuple 1 "},
		{"the topic has another batch", func(b *Book) { b.Topic[0].BatchID = id(0, 2) }, "batches", "topic has tuple 1 "},

		{"a window counts too much", func(b *Book) { b.Windows[0].Rows++ }, "windows", "windows_m, window of 2026-01-01T00:00:00Z, group [\"00155Da\" \"allowed\"]: 4 rows, 8 packets, 80 bytes, the tuples give 3 rows"},
		{"wrong packets", func(b *Book) { b.Windows[0].Packets++ }, "windows", "9 packets"},
		{"wrong bytes", func(b *Book) { b.Windows[4].Bytes++ }, "windows", "windows_all"},
		{"a window is missing", func(b *Book) { b.Windows = b.Windows[1:] }, "windows", "the tuples give 3 rows"},
		{"a window is there twice", func(b *Book) { b.Windows = append(b.Windows, b.Windows[2]) }, "windows", "2 rows, 6 packets"},
		{"a window of nothing", func(b *Book) { b.Windows[2].StartMS += 60_000 }, "windows", "the tuples give 0 rows"},
		{"another group", func(b *Book) { b.Windows[0].Key[1] = "denied" }, "windows", "denied"},
		{"late said of rows in time", func(b *Book) { b.Windows[0].Late = true }, "windows", "late true"},
		{"in time said of late rows", func(b *Book) { b.Windows[1].Late = false }, "windows", "late false"},
		{"closed too late", func(b *Book) { b.Windows[0].BatchID = id(0, 3) }, "windows", "the watermarks give"},
		{"closed before its time", func(b *Book) { b.Windows[2].BatchID = id(0, 2) }, "windows", "the watermarks give"},
		{"late rows folded into the first", func(b *Book) {
			b.Windows[0].Rows, b.Windows[0].Packets, b.Windows[0].Bytes = 3, 8, 80
			b.Windows[1].Rows, b.Windows[1].Packets, b.Windows[1].Bytes = 0, 0, 0
		}, "windows", "the watermarks give"},
		{"one row in two parts", func(b *Book) {
			half := b.Windows[0]
			b.Windows[0].Rows, b.Windows[0].Packets, b.Windows[0].Bytes = 1, 1, 10
			half.Rows, half.Packets, half.Bytes = 1, 2, 20
			b.Windows = append(b.Windows, half)
		}, "windows", "wrote 2 rows"},
		{"the lateness is not respected", func(b *Book) {
			b.Windows[4].BatchID = id(0, 2)
			b.Batches[1].WatermarkMS, b.Batches[2].WatermarkMS = noon+150_000, noon+150_000
		}, "windows", "windows_all"},

		{"open at the end", func(b *Book) { b.Batches[3].WatermarkMS = noon + 60_000 }, "windows", "open at the end of the input"},

		{"a gap in the batches", func(b *Book) { b.Batches = append(b.Batches[:1], b.Batches[2:]...) }, "batches", "batch 3 stands where 2 is due"},
		{"no first batch", func(b *Book) { b.Batches = b.Batches[1:] }, "batches", "batch 2 stands where 1 is due"},
		{"a batch twice", func(b *Book) { b.Batches = append(b.Batches, b.Batches[3]) }, "batches", "that of another batch"},
		{"an ID of another shard", func(b *Book) { b.Batches[3].ID = id(2, 4) }, "batches", "says otherwise"},
		{"an ID of another number", func(b *Book) { b.Batches[3].ID = id(0, 5) }, "batches", "says otherwise"},
		{"the watermark goes back", func(b *Book) { b.Batches[2].WatermarkMS-- }, "batches", "takes the watermark back"},
		{"a hole between units", func(b *Book) { b.Batches[1].Units[0].Offset++; b.Batches[1].Units[0].Length-- }, "batches", "a hole"},
		{"units overlap", func(b *Book) { b.Batches[0].Units[0].Length++ }, "batches", "they overlap"},
		{"units out of order", func(b *Book) {
			b.Batches[1].Units, b.Batches[2].Units = b.Batches[2].Units, b.Batches[1].Units
		}, "batches", "a hole"},
		{"a unit without bytes", func(b *Book) { b.Batches[3].Units = []Unit{{Blob: a, Offset: 302}} }, "batches", "a range of 0 bytes"},
		{"a blob in two shards", func(b *Book) { b.Batches[4].Units[0].Blob = a; b.Batches[4].Units[0].Offset = 302 }, "batches", "belongs to shard 0"},
		{"a manifest with other rows", func(b *Book) { b.Batches[0].Units[0].Rows = 3 }, "batches", "hold 2 good tuples, the manifest says 3"},
		{"a unit that never landed", func(b *Book) { b.Batches[3].Units = []Unit{{Blob: a, Offset: 302, Length: 9, Rows: 1}} }, "batches", "hold 0 good tuples"},
		{"a watermark ahead of every row", func(b *Book) { b.OutOfOrdernessMS = 1001 }, "batches", "ahead of every event time"},
		{"a watermark that does not wait", func(b *Book) {
			b.Batches[1].Units = append(b.Batches[1].Units, b.Batches[4].Units...)
			b.Batches[4].Units = nil
		}, "batches", "past 1 streams, of which 0 are idle"},
		{"rows without a manifest", func(b *Book) { b.Batches = nil }, "batches", "no manifest covers"},
		{"a row of another batch", func(b *Book) { b.Landed[0].BatchID = id(0, 2) }, "batches", "its bytes belong to batch"},

		{"acknowledged early", func(b *Book) { b.Acks[0].DurableLength-- }, "acks", "durable up to byte 301"},
		{"no end", func(b *Book) { b.Drained = false }, "stuck", "has not come to an end"},
		{"an end after the limit", func(b *Book) { b.DrainMS = MaxDrainMS + 1 }, "stuck", "the limit is 600000 ms"},
		{"no start", func(b *Book) { b.Unstartable = "manifest 3 is missing" }, "stuck", "manifest 3 is missing"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			book := right()
			c.spoil(&book)
			v := Audit(book)
			count := map[string]int{
				"lost": v.Lost, "dup": v.Dup, "altered": v.Altered, "windows": v.Windows,
				"batches": v.Batches, "acks": v.Acks, "stuck": v.Stuck,
			}
			if count[c.kind] == 0 {
				t.Errorf("nothing counted as %s: %v", c.kind, count)
			}
			if text := strings.Join(v.Findings, "\n"); !strings.Contains(text, c.says) {
				t.Errorf("no finding says %q:\n%s", c.says, text)
			}
		})
	}
}

// What is still under way in a run that did not end is pending, not lost.
func TestPending(t *testing.T) {
	book := right()
	book.Drained, book.HasTopic, book.Landed = false, false, book.Landed[1:]
	if v := Audit(book); v.Lost != 0 || v.Pending != 1 || v.Stuck != 1 {
		t.Errorf("lost %d, pending %d, stuck %d; want 0, 1, 1", v.Lost, v.Pending, v.Stuck)
	}
}

// A content that nobody saw makes the numbers of later ones lower than the truth's.
func TestContentThatNobodySaw(t *testing.T) {
	book := right()
	book.Written[6].Generation = 3
	if v := Audit(book); !v.Clean() {
		t.Errorf("findings:\n%s", strings.Join(v.Findings, "\n"))
	}
}

// An idle stream is not waited for, and hours of one interface are one stream.
func TestIdleStreamIsNotWaitedFor(t *testing.T) {
	book := right()
	book.Batches[1].Units = append(book.Batches[1].Units, book.Batches[4].Units...)
	book.Batches[4].Units, book.Batches[1].Idle = nil, 1
	if text := strings.Join(Audit(book).Findings, "\n"); strings.Contains(text, "streams") {
		t.Errorf("findings:\n%s", text)
	}
	one, two := "a/c/x/y=2026/m=11/d=23/h=06/m=00/macAddress=00/PT1H.json", "a/c/x/y=2026/m=11/d=23/h=07/m=00/macAddress=00/PT1H.json"
	if got := streamOf(one); got != streamOf(two) || got != "a/c/x/macAddress=00/PT1H.json" {
		t.Errorf("stream %q", got)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	book := right()
	for range 2 * MaxFindings {
		book.Landed = append(book.Landed, book.Landed[0])
	}
	if v := Audit(book); len(v.Findings) != MaxFindings || v.More < MaxFindings {
		t.Errorf("%d findings and %d more", len(v.Findings), v.More)
	}
}

// The same book gives the same verdict, word for word: findings stand in traces.
func TestVerdictIsDeterministic(t *testing.T) {
	broken := func() Verdict {
		book := right()
		book.Landed, book.Windows, book.Batches = book.Landed[2:], book.Windows[1:3], book.Batches[1:]
		return Audit(book)
	}
	first := fmt.Sprintf("%+v", broken())
	for range 20 {
		if again := fmt.Sprintf("%+v", broken()); again != first {
			t.Fatalf("two verdicts:\n%s\n%s", first, again)
		}
	}
}
