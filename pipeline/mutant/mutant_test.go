package mutant_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// declared gives the names of the mutants, as mutant.go has them.
func declared(t *testing.T) []string {
	t.Helper()
	var names []string
	ast.Inspect(parse(t, "mutant.go"), func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for _, name := range spec.Names {
				names = append(names, name.Name)
			}
		}
		return true
	})
	return slices.DeleteFunc(names, func(name string) bool { return name == "None" })
}

// told gives the names and descriptions of the list All.
func told(t *testing.T) (names, descriptions []string) {
	t.Helper()
	ast.Inspect(parse(t, "on.go"), func(n ast.Node) bool {
		entry, ok := n.(*ast.CompositeLit)
		if !ok || len(entry.Elts) != 3 {
			return true
		}
		id, ok := entry.Elts[0].(*ast.Ident)
		if !ok {
			return true
		}
		name, what := text(t, entry.Elts[1]), text(t, entry.Elts[2])
		if name != id.Name {
			t.Errorf("the mutant %s calls itself %q", id.Name, name)
		}
		names, descriptions = append(names, name), append(descriptions, what)
		return true
	})
	return names, descriptions
}

func text(t *testing.T, e ast.Expr) string {
	t.Helper()
	s, err := strconv.Unquote(e.(*ast.BasicLit).Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// seeded gives the names that code asks for, tests left out.
func seeded(t *testing.T) []string {
	t.Helper()
	hook := regexp.MustCompile(`\bmutant\.On\(mutant\.([A-Za-z0-9]+)\)`)
	var names []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && path != root:
			return fs.SkipDir
		case e.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		for _, m := range hook.FindAllStringSubmatch(string(source), -1) {
			names = append(names, m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A mutant without a place in the code, or one that nobody is told of, proves nothing.
func TestEveryMutantIsSeededAndTold(t *testing.T) {
	names, hooks := declared(t), seeded(t)
	list, _ := told(t)
	if len(names) < 30 {
		t.Errorf("%d mutants, want at least 30", len(names))
	}
	for _, name := range names {
		if !slices.Contains(hooks, name) {
			t.Errorf("mutant %s is nowhere in the code", name)
		}
		if !slices.Contains(list, name) {
			t.Errorf("mutant %s is not in the list All", name)
		}
	}
	if len(list) != len(names) {
		t.Errorf("%d mutants in the list All, %d are declared", len(list), len(names))
	}
}
