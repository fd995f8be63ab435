package announce

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
)

// reference reads a body the slow and obvious way: decode everything into maps,
// then look. It knows no limits and no duplicate members.
func reference(p *Parser, body []byte) (found []pipeline.Announcement, counts Counts) {
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))
	dec.UseNumber()
	for first := true; ; first = false {
		var v any
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) && !first {
			return found, counts
		}
		if err != nil {
			counts.add(ReasonSyntax)
			return found, counts
		}
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, item := range list {
			m, ok := item.(map[string]any)
			e := event{bad: !ok}
			if ok {
				referenceEvent(m, &e)
			}
			if e.bad {
				counts.add(ReasonShape)
			} else if a, reason := p.announcement(e); reason != "" {
				counts.add(reason)
			} else {
				found = append(found, a)
			}
		}
	}
}

func referenceEvent(m map[string]any, e *event) {
	text := func(from map[string]any, to **string, names ...string) {
		for _, n := range names {
			switch v := from[n].(type) {
			case nil:
			case string:
				e.bad = e.bad || *to != nil
				*to = &v
			default:
				e.bad = true
			}
		}
	}
	text(m, &e.kind, "eventType", "type")
	text(m, &e.source, "topic", "source")
	text(m, &e.subject, "subject")
	text(m, &e.time, "eventTime", "time")
	data, ok := m["data"].(map[string]any)
	if !ok {
		e.bad = e.bad || m["data"] != nil
		return
	}
	text(data, &e.api, "api")
	text(data, &e.url, "url")
	text(data, &e.blobType, "blobType")
	text(data, &e.sequencer, "sequencer")
	switch v := data["contentLength"].(type) {
	case nil:
	case json.Number:
		s := v.String()
		e.length = &s
	default:
		e.bad = true
	}
}

func seeds(f *testing.F) {
	files, err := filepath.Glob("testdata/eventgrid/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, change := range []fields{
		nil,
		{"data.url": "https://flowlogs.blob.core.windows.net@evil.example/x"},
		{"data.contentLength": json.Number("1e9")},
		{"type": "x"},
		{"data.url": "http://127.0.0.1:10000/local/" + flowContainer + "/" + flowPath, "topic": nil},
		{"subject": "/blobServices/default/containers/a/blobs/../b"},
	} {
		f.Add(body(f, false, change))
		f.Add(append([]byte("\xef\xbb\xbf["), append(body(f, true, change), "] 5 {}"...)...))
	}
	f.Add([]byte(strings.Repeat("[", 50)))
	f.Add([]byte(`{"data":{"url":"\ud800","url":1}}`))
}

// No panic; only blobs of configured accounts and allowed containers, with plain
// names; what the slow reference finds, unless a limit ended the body.
func FuzzEvent(f *testing.F) {
	seeds(f)
	p := newParser(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		got, counts := p.Parse(body)
		for _, a := range got {
			acc := p.endpoints["https://"+a.Blob.Account+".blob.core.windows.net"]
			if acc == nil && a.Blob.Account == "local" {
				acc = p.endpoints["http://127.0.0.1:10000/local"]
			}
			if acc == nil && a.Blob.Account == "german" {
				acc = p.endpoints["https://logs.example.org"]
			}
			if acc == nil || acc.Name != a.Blob.Account || !slices.Contains(acc.Containers, a.Blob.Container) || !plain(a.Blob.Path) || a.ContentLength < -1 {
				t.Fatalf("announced %+v", a)
			}
			if len(a.Sequencer) != 0 && len(a.Sequencer) != sequencerLen {
				t.Fatalf("sequencer %q", a.Sequencer)
			}
		}
		for r, n := range counts {
			if !slices.Contains(Reasons(), r) || n <= 0 {
				t.Fatalf("counts %v", counts)
			}
		}
		if counts[ReasonLimit] > 0 || !bytes.Equal(body, bytes.ToValidUTF8(body, nil)) {
			return
		}
		wantFound, wantCounts := reference(p, body)
		if counts[ReasonSyntax] > 0 {
			// The reference drops an array that breaks off, the parser keeps its beginning.
			if wantCounts[ReasonSyntax] == 0 || len(wantFound) > len(got) {
				t.Fatalf("syntax: got %v, reference %v", counts, wantCounts)
			}
			return
		}
		if diff := cmp.Diff(wantFound, got); diff != "" {
			t.Fatalf("announcements (-reference +got):\n%s", diff)
		}
		if diff := cmp.Diff(wantCounts, counts); diff != "" {
			t.Fatalf("counts (-reference +got):\n%s", diff)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p := newParser(b)
	text := append(append([]byte("["), body(b, false, nil)...), ']')
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if got, _ := p.Parse(text); len(got) != 1 {
			b.Fatal(got)
		}
	}
}
