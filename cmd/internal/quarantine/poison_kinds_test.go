package quarantine

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"

	"github.com/millrace/millrace/pipeline"
)

// poison is one kind of bad input.
type poison struct {
	name string
	// scope says what text is: a tuple (its JSON), what stands in a record where a
	// good one has white space, what stands between two records, or a whole blob.
	scope  string
	text   string
	old    string // what text takes the place of in a record, if not of white space
	reason pipeline.Reason
	// records of the two beside it that survive, when text is in between or a blob.
	survive int
	entry   string // scope of the entry, when it is another one
}

func (p poison) entryScope() string {
	if p.entry != "" {
		return p.entry
	}
	return p.scope
}

// tupleKinds stand between two good tuples, which survive.
func tupleKinds() []poison {
	good := strings.Split(numbered(7, 90), ",")
	with := func(at int, value string) string {
		f := append([]string{}, good...)
		f[at] = value
		return `"` + strings.Join(f, ",") + `"`
	}
	ms := testHour.UnixMilli()
	tuple := func(name, text string, reason pipeline.Reason) poison {
		return poison{name: name, scope: scopeTuple, text: text, reason: reason}
	}
	return []poison{
		tuple("a field too few", `"`+strings.Join(good[:12], ",")+`"`, pipeline.ReasonFieldCount),
		tuple("a field too many", `"`+strings.Join(good, ",")+`,0"`, pipeline.ReasonFieldCount),
		tuple("empty", `""`, pipeline.ReasonFieldCount),
		tuple("spaces", `"    "`, pipeline.ReasonFieldCount),
		tuple("semicolons", `"`+strings.Join(good, ";")+`"`, pipeline.ReasonFieldCount),
		tuple("port 65536", with(4, "65536"), pipeline.ReasonPort),
		tuple("negative port", with(3, "-1"), pipeline.ReasonPort),
		tuple("port with a fraction", with(4, "443.5"), pipeline.ReasonPort),
		tuple("port with a space", with(4, " 443"), pipeline.ReasonPort),
		tuple("protocol by name", with(5, "tcp"), pipeline.ReasonProtocol),
		tuple("protocol 256", with(5, "256"), pipeline.ReasonProtocol),
		tuple("negative counter", with(9, "-1"), pipeline.ReasonCounter),
		tuple("counter 2^64", with(10, "18446744073709551616"), pipeline.ReasonCounter),
		tuple("counter with an exponent", with(11, "1e3"), pipeline.ReasonCounter),
		tuple("counter with a fraction", with(12, "1.0"), pipeline.ReasonCounter),
		tuple("unknown direction", with(6, "X"), pipeline.ReasonDirection),
		tuple("unknown state", with(7, "Q"), pipeline.ReasonState),
		tuple("IPv6 zone", with(1, "fe80::1%eth0"), pipeline.ReasonAddress),
		tuple("octal IPv4", with(1, "010.0.0.1"), pipeline.ReasonAddress),
		tuple("IPv4 of three parts", with(2, "10.0.1"), pipeline.ReasonAddress),
		tuple("host name", with(2, "example.com"), pipeline.ReasonAddress),
		tuple("time is a word", with(0, "noon"), pipeline.ReasonTime),
		tuple("negative time", with(0, "-1"), pipeline.ReasonTime),
		tuple("time of 21 digits", with(0, "100000000000000000000"), pipeline.ReasonTime),
		tuple("1970", with(0, "1"), pipeline.ReasonTimeRange),
		tuple("2106", with(0, "4294967296000"), pipeline.ReasonTimeRange),
		tuple("year 9999", with(0, "253402300799999"), pipeline.ReasonTimeRange),
		tuple("two hours after its hour", with(0, fmt.Sprint(ms+7_200_000)), pipeline.ReasonTimeRange),
		tuple("before its hour's hour", with(0, fmt.Sprint(ms-3_600_001)), pipeline.ReasonTimeRange),
		tuple("invalid UTF-8", with(8, "N\xff"), pipeline.ReasonEncoding),
		tuple("NUL", with(8, `N\u0000`), pipeline.ReasonEncoding),
		tuple("lone surrogate", with(8, `\ud800`), pipeline.ReasonEncoding),
		tuple("number", `17`, pipeline.ReasonShape),
		tuple("object", `{"time":1}`, pipeline.ReasonShape),
		tuple("null", `null`, pipeline.ReasonShape),
	}
}

// recordKinds make a record bad that would be good with white space in their place.
func recordKinds() []poison {
	record := func(name, text string, reason pipeline.Reason) poison {
		return poison{name: name, scope: "record", text: text, reason: reason}
	}
	instead := func(name, old, text string, reason pipeline.Reason) poison {
		return poison{name: name, scope: "record", text: text, old: old, reason: reason}
	}
	const version, target = `"flowLogVersion":4`, `"targetResourceID":"/T"`
	many := ""
	for i := range 300 {
		many += fmt.Sprintf(`"m%d":1,`, i)
	}
	return []poison{
		record("a word without quotes", `"x":nonsense,`, pipeline.ReasonSyntax),
		record("doubled comma", `"x":1,,`, pipeline.ReasonSyntax),
		record("comment", `/* why */`, pipeline.ReasonSyntax),
		record("NaN", `"x":NaN,`, pipeline.ReasonSyntax),
		record("number with a leading zero", `"x":007,`, pipeline.ReasonSyntax),
		record("single quotes", `'x':1,`, pipeline.ReasonSyntax),
		record("member without a colon", `"x" 1,`, pipeline.ReasonSyntax),
		record("byte order mark", "\xef\xbb\xbf", pipeline.ReasonSyntax),
		record("NUL byte", "\x00", pipeline.ReasonSyntax),
		record("control character in a text", "\"x\":\"a\x01b\",", pipeline.ReasonSyntax),
		record("depth bomb", `"x":`+strings.Repeat("[", 500)+strings.Repeat("]", 500)+`,`, pipeline.ReasonLimit),
		instead("text of 64 KiB and one", target, `"targetResourceID":"`+strings.Repeat("a", 64<<10+1)+`"`, pipeline.ReasonLimit),
		record("300 members", many, pipeline.ReasonLimit),
		record("member twice", `"category":"FlowLogFlowEvent",`, pipeline.ReasonShape),
		instead("wrong type", `"macAddress":"00000000000A"`, `"macAddress":17`, pipeline.ReasonShape),
		instead("unknown category", `"FlowLogFlowEvent"`, `"FlowLogFloodEvent"`, pipeline.ReasonShape),
		instead("no flows", `"flows"`, `"flaws"`, pipeline.ReasonShape),
		instead("unknown version", version, `"flowLogVersion":5`, pipeline.ReasonVersion),
		instead("version is a text", version, `"flowLogVersion":"four"`, pipeline.ReasonVersion),
		instead("version 1e999", version, `"flowLogVersion":1e999`, pipeline.ReasonVersion),
		instead("version of 5,000 digits", version, `"flowLogVersion":`+strings.Repeat("9", 5000), pipeline.ReasonVersion),
		instead("invalid UTF-8 in a member", target, "\"targetResourceID\":\"a\xffb\"", pipeline.ReasonEncoding),
		instead("NUL in a member", target, `"targetResourceID":"a\u0000b"`, pipeline.ReasonEncoding),
		instead("lone surrogate in a member", target, `"targetResourceID":"\udc00"`, pipeline.ReasonEncoding),
	}
}

// placeKinds break the array of records, or are no such thing at all.
func placeKinds() []poison {
	between := func(name, text string, reason pipeline.Reason, survive int, entry string) poison {
		return poison{name: name, scope: "between", text: text, reason: reason, survive: survive, entry: entry}
	}
	whole := func(name, text string, reason pipeline.Reason, survive int) poison {
		return poison{name: name, scope: "blob", text: text, reason: reason, survive: survive, entry: "range"}
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprint(z, blobHeader+recordText(numbered(1, 0))+"]}")
	z.Close()
	return []poison{
		between("number between records", `17`, pipeline.ReasonShape, 2, "record"),
		between("text between records", `"record"`, pipeline.ReasonShape, 2, "record"),
		between("null between records", `null`, pipeline.ReasonShape, 2, "record"),
		between("record without a category", `{"flowLogVersion":4}`, pipeline.ReasonShape, 2, "record"),
		between("record of another category", `{"category":"AuditEvent","records":[]}`, pipeline.ReasonShape, 2, "record"),
		between("footer in the middle", `]}`, pipeline.ReasonSyntax, 1, "range"),
		between("record that is cut", `{"category":"FlowLogFlowEvent","x":{`, pipeline.ReasonTruncated, 1, "range"),
		between("text that does not end", `{"category":"FlowLogFlow`, pipeline.ReasonTruncated, 1, "range"),
		whole("gzip", zipped.String(), pipeline.ReasonShape, 0),
		whole("page of HTML", "<!DOCTYPE html><html><body><h1>503 Service Unavailable</h1></body></html>", pipeline.ReasonShape, 0),
		whole("binary", string([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0xff, 0xfe, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}), pipeline.ReasonShape, 0),
		whole("error as JSON", `{"error":{"code":"AuthorizationFailure"}}`, pipeline.ReasonShape, 0),
		whole("array without its object", `[`+recordText(numbered(1, 0))+`]`, pipeline.ReasonShape, 0),
	}
}

// eventKinds are messages that announce nothing.
var eventKinds = map[string]string{
	"no JSON":          `{"eventType":`,
	"HTML":             `<html>502</html>`,
	"binary":           "\x00\xff\xfe",
	"unknown type":     `[{"id":"1","eventType":"Microsoft.Storage.BlobRenamed","topic":"t","subject":"s","eventTime":"2026-11-23T06:00:00Z","data":{"api":"RenameFile","url":"https://acc.blob.core.windows.net/logs/x"},"dataVersion":"","metadataVersion":"1"}]`,
	"another account":  `[{"id":"1","eventType":"Microsoft.Storage.BlobCreated","topic":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/foe","subject":"/blobServices/default/containers/logs/blobs/PT1H.json","eventTime":"2026-11-23T06:00:00Z","data":{"api":"PutBlockList","contentLength":9,"blobType":"BlockBlob","url":"https://foe.blob.core.windows.net/logs/PT1H.json"},"dataVersion":"","metadataVersion":"1"}]`,
	"metadata service": `[{"id":"1","eventType":"Microsoft.Storage.BlobCreated","topic":"t","subject":"/blobServices/default/containers/logs/blobs/x","eventTime":"2026-11-23T06:00:00Z","data":{"api":"PutBlockList","contentLength":9,"blobType":"BlockBlob","url":"http://169.254.169.254/logs/x"},"dataVersion":"","metadataVersion":"1"}]`,
}

// padding fills the excerpt of a record, so that a store that mended the record
// behind it shows the same.
var padding = `"note":"` + strings.Repeat("-", excerptBytes) + `",`

// spoiled gives a record with the poison in it, and the good one of the same length.
func (p poison) spoiled(tuples ...string) (bad, good string) {
	length := max(len(p.old), len(p.text))
	fill := func(s string) string { return s + strings.Repeat(" ", length-len(s)) }
	text := strings.Replace(recordText(tuples...), `{"time"`, `{`+padding+`"time"`, 1)
	old := p.old
	if old == "" {
		old = `"time"`
		return strings.Replace(text, old, fill(p.text)+old, 1), strings.Replace(text, old, fill("")+old, 1)
	}
	return strings.Replace(text, old, fill(p.text), 1), strings.Replace(text, old, fill(old), 1)
}
