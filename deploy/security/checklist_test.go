package security

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table of the page, and the list of licences; read them before you commit")

// root of the source tree, seen from this package's folder.
var root = filepath.Join("..", "..")

// Every rule has its number, and tests unless it is about something to come.
func TestChecklistIsWhole(t *testing.T) {
	for i, line := range Checklist {
		if want := fmt.Sprintf("S%d", i+1); line.ID != want {
			t.Errorf("line %q stands where %q belongs", line.ID, want)
		}
		if line.Rule == "" || !line.Applies() && line.Later == "" {
			t.Errorf("%s: neither tests nor a reason why there are none", line.ID)
		}
	}
	if len(Checklist) != 33 {
		t.Errorf("%d lines, want 33", len(Checklist))
	}
}

// functions gives the names of a folder's tests and fuzz targets.
func functions(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

// A test that the table names is there.
func TestChecklistTestsExist(t *testing.T) {
	known := map[string]map[string]bool{}
	for _, line := range Checklist {
		for _, test := range line.Tests {
			folder, name := Place(test)
			if known[folder] == nil {
				known[folder] = functions(t, folder)
			}
			if !known[folder][name] || !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") {
				t.Errorf("%s: there is no test %s", line.ID, test)
			}
		}
	}
}

const (
	page  = "deploy/docs/security.md"
	begin = "<!-- checklist -->\n"
	end   = "<!-- end of checklist -->\n"
)

// table is the checklist for people.
func table() string {
	var b strings.Builder
	b.WriteString("| | rule | tests |\n|---|---|---|\n")
	for _, line := range Checklist {
		var tests []string
		for _, test := range line.Tests {
			tests = append(tests, "`"+test+"`")
		}
		text := strings.Join(tests, " ")
		if line.Later != "" {
			text = strings.TrimSpace("*" + line.Later + "* " + text)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", line.ID, line.Rule, text)
	}
	return b.String()
}

// The page for users has the same table.
func TestPageHasTheChecklist(t *testing.T) {
	path := filepath.Join(root, page)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	have, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s: want a table between %q and %q", page, begin, end)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table(), have); diff != "" {
		t.Errorf("%s: -update writes the table (-want +got):\n%s", page, diff)
	}
}
