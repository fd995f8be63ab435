package announce

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// The URL is compared, never followed: the package imports nothing that opens
// connections.
func TestNothingHereOpensConnections(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			switch i.Path.Value {
			case `"net"`, `"net/http"`, `"syscall"`, `"os/exec"`:
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}

// No hostile URL becomes an announcement, alone or with a subject that agrees with
// it and no topic to contradict.
func TestHostileURLsAnnounceNothing(t *testing.T) {
	urls := pipelinetest.HostileURLs(flowContainer, flowPath)
	if len(urls) < 200 {
		t.Fatalf("%d URLs, want at least 200", len(urls))
	}
	p := newParser(t)
	for _, u := range urls {
		for name, change := range map[string]fields{
			"subject as usual":  {"data.url": u},
			"without topic":     {"data.url": u, "topic": nil},
			"subject that fits": {"data.url": u, "topic": nil, "subject": pipelinetest.HostileSubject(u)},
		} {
			for _, cloud := range []bool{false, true} {
				got, counts := p.Parse(body(t, cloud, change))
				if len(got) != 0 && !harmless(got) {
					t.Errorf("%q, %s: announced %v", u, name, got)
				}
				if len(got) == 0 && len(counts) != 1 {
					t.Errorf("%q, %s: counts %v", u, name, counts)
				}
				for r := range counts {
					if !slices.Contains(Reasons(), r) {
						t.Errorf("%q, %s: reason %q is not in the list", u, name, r)
					}
				}
			}
		}
	}
	t.Logf("%d URLs", len(urls))
}

// harmless allows the few URLs of the table that are a plain, if odd, name in an
// allowed container of a configured account once the subject says the same.
func harmless(got []pipeline.Announcement) bool {
	odd := map[string]bool{"/" + flowPath: true, flowPath + "/": true}
	return len(got) == 1 && got[0].Blob.Account == "flowlogs" && got[0].Blob.Container == flowContainer && odd[got[0].Blob.Path]
}

// What arrives as account comes out of the configuration, never out of the event.
func TestAccountsKeepTheirConfiguredName(t *testing.T) {
	p, err := New([]Account{{Name: "Named", Endpoint: "https://flowlogs.blob.core.windows.net/", Containers: []string{flowContainer}}})
	if err != nil {
		t.Fatal(err)
	}
	got, counts := p.Parse(body(t, false, fields{"topic": strings.Replace(topic, "flowlogs", "nAMED", 1)}))
	if len(got) != 1 || got[0].Blob.Account != "Named" {
		t.Errorf("%v, %v", got, counts)
	}
	if got, counts = p.Parse(body(t, false, nil)); len(got) != 0 || counts[ReasonDisagree] != 1 {
		t.Errorf("%v, %v", got, counts)
	}
}
