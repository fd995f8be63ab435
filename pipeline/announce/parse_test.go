package announce

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
)

const (
	flowContainer = "insights-logs-flowlogflowevent"
	flowPath      = "flowLogResourceID=/SUB_NETWORKWATCHERRG/NETWORKWATCHER_WESTUS_LOG/y=2026/m=11/d=23/h=06/m=00/macAddress=000D3A1B2C3D/PT1H.json"
	flowURL       = "https://flowlogs.blob.core.windows.net/" + flowContainer + "/" + flowPath
	topic         = "/subscriptions/0/resourceGroups/Storage/providers/Microsoft.Storage/storageAccounts/flowlogs"
)

func newParser(t testing.TB) *Parser {
	t.Helper()
	p, err := New([]Account{
		{Name: "flowlogs", Containers: DefaultContainers()},
		{Name: "local", Endpoint: "http://127.0.0.1:10000/local", Containers: []string{flowContainer}, PathSuffix: "/PT1H.json", PathPrefix: "flowLog"},
		{Name: "my-storage-account", Containers: []string{"test-container", "testcontainer", "my-file-system"}},
		{Name: "german", Endpoint: "https://german.blob.core.cloudapi.de", Aliases: []string{"https://logs.example.org/"}, Containers: []string{flowContainer}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fields are what the tests change in an event.
type fields map[string]any

// body makes one event in either schema; a nil value leaves the member out.
func body(t testing.TB, cloud bool, change fields) []byte {
	t.Helper()
	data := fields{
		"api": "PutBlockList", "clientRequestId": "1", "requestId": "2", "eTag": "\"0x8D4BCC2E4835CD0\"",
		"contentType": "application/octet-stream", "contentLength": 524288, "blobType": "BlockBlob", "url": flowURL,
		"sequencer": "00000000000004420000000000028963", "storageDiagnostics": fields{"batchId": "3"},
	}
	event := fields{
		"topic": topic, "subject": "/blobServices/default/containers/" + flowContainer + "/blobs/" + flowPath,
		"eventType": "Microsoft.Storage.BlobCreated", "eventTime": "2026-11-23T06:41:00.9584103Z", "id": "4",
		"data": data, "dataVersion": "", "metadataVersion": "1",
	}
	for k, v := range change {
		to := event
		if name, ok := strings.CutPrefix(k, "data."); ok {
			to, k = data, name
		}
		if to[k] = v; v == nil {
			delete(to, k)
		}
	}
	if cloud {
		for from, to := range map[string]string{"topic": "source", "eventType": "type", "eventTime": "time"} {
			if v, ok := event[from]; ok {
				event[to] = v
				delete(event, from)
			}
		}
		delete(event, "dataVersion")
		delete(event, "metadataVersion")
		event["specversion"] = "1.0"
	}
	out, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func want(length int64) pipeline.Announcement {
	return pipeline.Announcement{
		Blob:          pipeline.BlobID{Account: "flowlogs", Container: flowContainer, Path: flowPath},
		ContentLength: length,
		Sequencer:     strings.Repeat("0", 32) + "00000000000004420000000000028963",
		EventTime:     time.Date(2026, 11, 23, 6, 41, 0, 958410300, time.UTC),
	}
}

func TestBothSchemasInEveryFraming(t *testing.T) {
	p := newParser(t)
	for _, cloud := range []bool{false, true} {
		one := string(body(t, cloud, nil))
		for name, c := range map[string]struct {
			text string
			n    int
		}{
			"object":              {one, 1},
			"array of one":        {"[" + one + "]", 1},
			"array of three":      {"[" + one + "," + one + ",\n" + one + "]", 3},
			"concatenated":        {one + one, 2},
			"lines":               {one + "\r\n" + one + "\n", 2},
			"arrays concatenated": {"[" + one + "]\n[" + one + "," + one + "][]", 3},
			"mixed":               {"[" + one + "]" + one, 2},
			"mark and space":      {"\xef\xbb\xbf \n\t" + one + " \n", 1},
			"empty array":         {"[]", 0},
		} {
			got, counts := p.Parse([]byte(c.text))
			var all []pipeline.Announcement
			for range c.n {
				all = append(all, want(524288))
			}
			if diff := cmp.Diff(all, got); diff != "" || counts != nil {
				t.Errorf("cloud events %v, %s: counts %v (-want +got):\n%s", cloud, name, counts, diff)
			}
		}
	}
}

func TestEventsAreJudged(t *testing.T) {
	long := strings.Repeat("x", 2000)
	subject := func(container, path string) string {
		return "/blobServices/default/containers/" + container + "/blobs/" + path
	}
	at := func(container, path string) fields {
		return fields{"subject": subject(container, path), "data.url": "https://flowlogs.blob.core.windows.net/" + container + "/" + path}
	}
	for _, c := range []struct {
		name   string
		change fields
		reason Reason // "" means announced
	}{
		{"PutBlob", fields{"data.api": "PutBlob"}, ""},
		{"CopyBlob", fields{"data.api": "CopyBlob"}, ""},
		{"FlushWithClose", fields{"data.api": "FlushWithClose"}, ""},
		{"SftpCommit", fields{"data.api": "SftpCommit"}, ""},
		{"append blob", fields{"data.blobType": "AppendBlob"}, ""},
		{"no blob type", fields{"data.blobType": nil}, ""},
		{"no topic", fields{"topic": nil}, ""},
		{"topic in other case", fields{"topic": strings.ToUpper(topic)}, ""},
		{"dfs endpoint", fields{"data.url": strings.Replace(flowURL, ".blob.", ".dfs.", 1)}, ""},
		{"encoded URL", fields{"data.url": strings.ReplaceAll(flowURL, "=", "%3D")}, ""},
		{"unknown members", fields{"more": fields{"data": []any{1, nil, "x", fields{"url": "y"}}}, "data.x": []int{}}, ""},
		{"CreateFile", fields{"data.api": "CreateFile", "data.contentLength": 0}, ReasonAPI},
		{"SftpCreate", fields{"data.api": "SftpCreate"}, ReasonAPI},
		{"api in other case", fields{"data.api": "putblocklist"}, ReasonAPI},
		{"api of tomorrow", fields{"data.api": "PutMoon"}, ReasonAPI},
		{"page blob", fields{"data.blobType": "PageBlob"}, ReasonBlobType},
		{"deleted", fields{"eventType": "Microsoft.Storage.BlobDeleted"}, ReasonType},
		{"renamed", fields{"eventType": "Microsoft.Storage.BlobRenamed"}, ReasonType},
		{"directory", fields{"eventType": "Microsoft.Storage.DirectoryCreated"}, ReasonType},
		{"tier", fields{"eventType": "Microsoft.Storage.BlobTierChanged"}, ReasonType},
		{"inventory", fields{"eventType": "Microsoft.Storage.BlobInventoryPolicyCompleted"}, ReasonType},
		{"validation", fields{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": fields{"validationCode": "x", "validationUrl": "https://169.254.169.254"}}, ReasonType},
		{"subscription gone", fields{"eventType": "Microsoft.EventGrid.SubscriptionDeletedEvent"}, ReasonType},
		{"type in other case", fields{"eventType": "microsoft.storage.blobcreated"}, ReasonType},
		{"no type", fields{"eventType": nil}, ReasonShape},
		{"no data", fields{"data": nil}, ReasonShape},
		{"data is a text", fields{"data": "{}"}, ReasonShape},
		{"no URL", fields{"data.url": nil}, ReasonShape},
		{"no subject", fields{"subject": nil}, ReasonShape},
		{"no api", fields{"data.api": nil}, ReasonShape},
		{"URL is a number", fields{"data.url": 5}, ReasonShape},
		{"URL is an object", fields{"data.url": fields{"x": 1}}, ReasonShape},
		{"length is a text", fields{"data.contentLength": "12"}, ReasonShape},
		{"length negative", fields{"data.contentLength": -1}, ReasonShape},
		{"length broken", fields{"data.contentLength": 1.5}, ReasonShape},
		{"length too large", fields{"data.contentLength": json.Number("9223372036854775808")}, ReasonShape},
		{"length with exponent", fields{"data.contentLength": json.Number("1e3")}, ReasonShape},
		{"both schemas at once", fields{"type": "Microsoft.Storage.BlobCreated"}, ReasonShape},
		{"subject of a container", fields{"subject": "/blobServices/default/containers/" + flowContainer}, ReasonShape},
		{"other topic", fields{"topic": topic + "2"}, ReasonDisagree},
		{"topic of another thing", fields{"topic": "/subscriptions/0/resourceGroups/x"}, ReasonDisagree},
		{"other path", fields{"data.url": flowURL + "x"}, ReasonDisagree},
		{"path in other case", fields{"data.url": strings.Replace(flowURL, "WESTUS", "westus", 1)}, ReasonDisagree},
		{"other container", fields{"subject": subject("other", flowPath)}, ReasonDisagree},
		{"container not allowed", at("other", flowPath), ReasonContainer},
		{"container in other case", at(strings.ToUpper(flowContainer), flowPath), ReasonContainer},
		{"dots", at(flowContainer, "../x"), ReasonPath},
		{"dots within", at(flowContainer, "a/../../x"), ReasonPath},
		{"dot", at(flowContainer, "./x"), ReasonPath},
		{"dots at the end", at(flowContainer, "a/.."), ReasonPath},
		{"encoded dots", at(flowContainer, "a/%2e%2E/x"), ReasonPath},
		{"half encoded dots", at(flowContainer, "a/.%2e/x"), ReasonPath},
		{"twice encoded dots", at(flowContainer, "a/%252e%252e/x"), ReasonPath},
		{"encoded slash", at(flowContainer, "a/..%2fx"), ReasonPath},
		{"encoded line break", at(flowContainer, "a%0d%0aHost: x"), ReasonURL}, // the space
		{"encoded line break alone", at(flowContainer, "a%0d%0aHost:x"), ReasonPath},
		{"encoded NUL", at(flowContainer, "a%00"), ReasonPath},
		{"encoded backslash", at(flowContainer, "a%5c..%5cx"), ReasonPath},
		{"bad escape", at(flowContainer, "a%zz"), ReasonPath},
		{"too long", at(flowContainer, long+long+long), ReasonPath},
		{"replacement character", at(flowContainer, "a\ufffd"), ReasonPath},
		{"other scheme", fields{"data.url": "http" + flowURL[5:]}, ReasonAccount},
		{"other account", fields{"data.url": strings.Replace(flowURL, "flowlogs", "other", 1)}, ReasonAccount},
		{"no URL at all", fields{"data.url": "blob"}, ReasonURL},
		{"host alone", fields{"data.url": "https://flowlogs.blob.core.windows.net"}, ReasonURL},
		{"SAS in the URL", fields{"data.url": flowURL + "?sig=x"}, ReasonURL},
	} {
		for _, cloud := range []bool{false, true} {
			if cloud && (c.name == "both schemas at once" || strings.HasPrefix(c.name, "topic") && c.reason == "") {
				continue
			}
			got, counts := newParser(t).Parse(body(t, cloud, c.change))
			if c.reason == "" {
				if diff := cmp.Diff([]pipeline.Announcement{want(524288)}, got); diff != "" || counts != nil {
					t.Errorf("%s: counts %v (-want +got):\n%s", c.name, counts, diff)
				}
				continue
			}
			if diff := cmp.Diff(Counts{c.reason: 1}, counts); diff != "" || len(got) != 0 {
				t.Errorf("%s: %d announced, counts (-want +got):\n%s", c.name, len(got), diff)
			}
		}
	}
}

func TestFieldsAreNormalised(t *testing.T) {
	at := want(524288)
	for _, c := range []struct {
		name   string
		change fields
		edit   func(a *pipeline.Announcement)
	}{
		{"48 digits", fields{"data.sequencer": "000000000000000000000000000089A4000000000018d6ea"}, func(a *pipeline.Announcement) {
			a.Sequencer = strings.Repeat("0", 16) + "000000000000000000000000000089a4000000000018d6ea"
		}},
		{"no sequencer", fields{"data.sequencer": nil}, func(a *pipeline.Announcement) { a.Sequencer = "" }},
		{"odd sequencer", fields{"data.sequencer": "xyz"}, func(a *pipeline.Announcement) { a.Sequencer = "" }},
		{"long sequencer", fields{"data.sequencer": strings.Repeat("a", 65)}, func(a *pipeline.Announcement) { a.Sequencer = "" }},
		{"no time", fields{"eventTime": nil}, func(a *pipeline.Announcement) { a.EventTime = time.Time{} }},
		{"odd time", fields{"eventTime": "yesterday"}, func(a *pipeline.Announcement) { a.EventTime = time.Time{} }},
		{"other zone", fields{"eventTime": "2026-11-23T07:41:00.9584103+01:00"}, func(*pipeline.Announcement) {}},
		{"no length", fields{"data.contentLength": nil}, func(a *pipeline.Announcement) { a.ContentLength = -1 }},
		{"length zero", fields{"data.contentLength": 0}, func(a *pipeline.Announcement) { a.ContentLength = 0 }},
		{"length zero, SFTP", fields{"data.contentLength": 0, "data.api": "SftpCommit"}, func(a *pipeline.Announcement) { a.ContentLength = -1 }},
		{"length zero, flush", fields{"data.contentLength": 0, "data.api": "FlushWithClose"}, func(a *pipeline.Announcement) { a.ContentLength = -1 }},
		{"length zero, copy", fields{"data.contentLength": 0, "data.api": "CopyBlob"}, func(a *pipeline.Announcement) { a.ContentLength = -1 }},
		{"emulator", fields{"topic": nil, "data.url": "http://127.0.0.1:10000/local/" + flowContainer + "/" + flowPath}, func(a *pipeline.Announcement) { a.Blob.Account = "local" }},
		{"alias", fields{"topic": nil, "data.url": "https://logs.example.org/" + flowContainer + "/" + flowPath}, func(a *pipeline.Announcement) { a.Blob.Account = "german" }},
		{"sovereign cloud, dfs", fields{"topic": nil, "data.url": "https://german.dfs.core.cloudapi.de/" + flowContainer + "/" + flowPath}, func(a *pipeline.Announcement) { a.Blob.Account = "german" }},
	} {
		got, counts := newParser(t).Parse(body(t, false, c.change))
		a := at
		c.edit(&a)
		if diff := cmp.Diff([]pipeline.Announcement{a}, got); diff != "" || counts != nil {
			t.Errorf("%s: counts %v (-want +got):\n%s", c.name, counts, diff)
		}
	}
}

// A subject is not URL-encoded: what looks like an escape or a plus stays, and a
// URL that is encoded names the same blob.
func TestNamesAreKept(t *testing.T) {
	for _, name := range []string{"a b/ü+&=/PT1H.json", "Ünïcode/日本/x", "a//b", "a/blobs/b", "...", "a%20b"} {
		for _, raw := range []string{name, strings.NewReplacer("%", "%25", " ", "%20", "ü", "%C3%BC").Replace(name)} {
			if strings.Contains(raw, " ") {
				continue
			}
			got, counts := newParser(t).Parse(body(t, false, fields{
				"subject":  "/blobServices/default/containers/" + flowContainer + "/blobs/" + name,
				"data.url": "https://flowlogs.blob.core.windows.net/" + flowContainer + "/" + raw,
			}))
			if len(got) != 1 || got[0].Blob.Path != name {
				t.Errorf("%q as %q: %v, %v", name, raw, got, counts)
			}
		}
	}
}

func TestPathFilter(t *testing.T) {
	for path, ok := range map[string]bool{
		"flowLog/PT1H.json": true, "flowLog/PT1H.jsonl": false, "other/PT1H.json": false, "flowLog/x": false,
	} {
		got, counts := newParser(t).Parse(body(t, false, fields{
			"topic":    nil,
			"subject":  "/blobServices/default/containers/" + flowContainer + "/blobs/" + path,
			"data.url": "http://127.0.0.1:10000/local/" + flowContainer + "/" + path,
		}))
		if (len(got) == 1) != ok || !ok && counts[ReasonFilter] != 1 {
			t.Errorf("%q: %v, %v", path, got, counts)
		}
	}
}

func TestPublishedSamples(t *testing.T) {
	for name, c := range map[string]struct {
		reason Reason
		fixed  *strings.Replacer // what the page got wrong
	}{
		"blobcreated-eventgrid.json":                  {ReasonDisagree, strings.NewReplacer("net/testcontainer/", "net/test-container/")},
		"blobcreated-cloudevents.json":                {ReasonDisagree, strings.NewReplacer("net/testcontainer/", "net/test-container/")},
		"blobcreated-sftpcommit-eventgrid.json":       {"", nil},
		"blobcreated-createfile-dfs-cloudevents.json": {ReasonAPI, strings.NewReplacer(`"CreateFile"`, `"FlushWithClose"`)},
		"blobdeleted-eventgrid.json":                  {ReasonType, nil},
		"blobtierchanged-eventgrid-object.json":       {ReasonType, nil},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", "eventgrid", name))
		if err != nil {
			t.Fatal(err)
		}
		got, counts := newParser(t).Parse(text)
		if c.reason == "" && (len(got) != 1 || counts != nil) || c.reason != "" && (len(got) != 0 || counts[c.reason] != 1) {
			t.Errorf("%s: %v, %v, want %q", name, got, counts, c.reason)
		}
		if c.fixed == nil {
			continue
		}
		got, counts = newParser(t).Parse([]byte(c.fixed.Replace(string(text))))
		if len(got) != 1 || counts != nil || got[0].Blob.Account != "my-storage-account" || got[0].Blob.Path != "new-file.txt" {
			t.Errorf("%s, corrected: %v, %v", name, got, counts)
		}
	}
}

func TestMalformedAndOversizedBodies(t *testing.T) {
	one := string(body(t, false, nil))
	nested := func(n int) string {
		return one[:len(one)-1] + `,"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}"
	}
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"m%d":%d`, i, i)
		}
		return one[:len(one)-1] + b.String() + "}"
	}
	const have = 8 // members of the event itself
	for _, c := range []struct {
		name, text string
		announced  int
		counts     Counts
	}{
		{"empty", "", 0, Counts{ReasonSyntax: 1}},
		{"space", " \n", 0, Counts{ReasonSyntax: 1}},
		{"text", "hello", 0, Counts{ReasonSyntax: 1}},
		{"cut", one[:len(one)/2], 0, Counts{ReasonSyntax: 1}},
		{"good, then cut", one + one[:100], 1, Counts{ReasonSyntax: 1}},
		{"good, cut array", "[" + one + "," + one[:50], 1, Counts{ReasonSyntax: 1}},
		{"good, array not closed", "[" + one, 1, Counts{ReasonSyntax: 1}},
		{"two commas", "[" + one + ",," + one + "]", 1, Counts{ReasonSyntax: 1}},
		{"invalid UTF-8", strings.Replace(one, "PutBlockList", "Put\xffBlockList", 1), 0, Counts{ReasonSyntax: 1}},
		{"lone surrogate in the name", strings.ReplaceAll(one, "PT1H", `\ud800`), 0, Counts{ReasonPath: 1}},
		{"other values", `[1,"x",null,true,[{}],{}]`, 0, Counts{ReasonShape: 6}},
		{"values at the top", `1 "x" null`, 0, Counts{ReasonShape: 3}},
		{"duplicate member", one[:len(one)-1] + `,"subject":"x"}`, 0, Counts{ReasonLimit: 1}},
		{"duplicate member, escaped", one[:len(one)-1] + `,"\u0073ubject":"x"}`, 0, Counts{ReasonLimit: 1}},
		{"depth at the limit", nested(MaxDepth - 2), 1, nil},
		{"depth over the limit", nested(MaxDepth - 1), 0, Counts{ReasonLimit: 1}},
		{"depth far over", nested(100_000), 0, Counts{ReasonLimit: 1}},
		{"depth at the top", strings.Repeat("[", 100_000), 0, Counts{ReasonLimit: 1}},
		{"members at the limit", members(MaxMembers - have), 1, nil},
		{"members over", members(MaxMembers - have + 1), 0, Counts{ReasonLimit: 1}},
		{"string at the limit", one[:len(one)-1] + `,"x":"` + strings.Repeat("x", MaxStringBytes) + `"}`, 1, nil},
		{"string over", one[:len(one)-1] + `,"x":"` + strings.Repeat("x", MaxStringBytes+1) + `"}`, 0, Counts{ReasonLimit: 1}},
		{"URL over", strings.Replace(one, flowURL, flowURL+strings.Repeat("x", MaxStringBytes), 1), 0, Counts{ReasonLimit: 1}},
		{"events at the limit", "[" + strings.Repeat("1,", MaxEvents-1) + one + "]", 1, Counts{ReasonShape: MaxEvents - 1}},
		{"events over", "[" + strings.Repeat("1,", MaxEvents) + one + "]", 0, Counts{ReasonShape: MaxEvents, ReasonLimit: 1}},
		{"body over", one + strings.Repeat(" ", MaxBodyBytes), 0, Counts{ReasonLimit: 1}},
		{"number of a million digits", one[:len(one)-1] + `,"x":` + strings.Repeat("9", 1_000_000) + `}`, 1, nil},
	} {
		got, counts := newParser(t).Parse([]byte(c.text))
		if diff := cmp.Diff(c.counts, counts); diff != "" || len(got) != c.announced {
			t.Errorf("%s: %d announced, want %d; counts (-want +got):\n%s", c.name, len(got), c.announced, diff)
		}
	}
}

func TestAccountFaultsAreReportedAtOnce(t *testing.T) {
	_, err := New([]Account{
		{Name: "", Containers: []string{"c"}, Endpoint: "https://a.example"},
		{Name: "none"},
		{Name: "bad", Containers: []string{"a/b"}},
		{Name: "query", Containers: []string{"c"}, Endpoint: "https://x.example/?sig=CANARY"},
		{Name: "user", Containers: []string{"c"}, Endpoint: "https://CANARY@x.example"},
		{Name: "scheme", Containers: []string{"c"}, Endpoint: "ftp://x.example"},
		{Name: "deep", Containers: []string{"c"}, Endpoint: "https://x.example/a/b"},
		{Name: "url", Containers: []string{"c"}, Endpoint: "https://CANARY\x7f"},
		{Name: "same", Containers: []string{"c"}},
		{Name: "other", Containers: []string{"c"}, Aliases: []string{"https://same.blob.core.windows.net"}},
	})
	if err == nil || strings.Count(err.Error(), "\n") != 8 || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("%v", err)
	}
	if _, err := New(nil); err == nil {
		t.Error("no account")
	}
}
