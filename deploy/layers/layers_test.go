// Package layers holds the shape of the source tree: which room may import
// which, what the core and the operators must not touch, and what stands at
// the top of the tree. There is no program in it, only tests that read what
// the go command knows.
package layers

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/millrace/millrace"

// root of the source tree, seen from this package's folder.
var root = filepath.Join("..", "..")

// rule says what the packages at or below a folder may import of ours, besides
// packages below themselves. The longest folder that fits decides.
type rule struct {
	folder string
	// exact keeps the rule from the folder's children.
	exact bool
	may   []string
	// why explains an import that the general direction does not allow.
	why string
}

// with adds the leaves, which may be imported by anyone above them, to the
// folders a rule names.
func with(folders ...string) []string {
	return append(folders, "operators/sketch", "pipeline/secret", "pipeline/mutant", "schemas/...")
}

// rules, general direction first: cmd -> bench -> (pipeline/*, operators,
// sinks) -> pipeline -> schemas. "pipeline" alone means that package; a folder
// followed by "/..." everything below it too.
var rules = []rule{
	{folder: "schemas"},
	{folder: "pipeline", exact: true, may: []string{"schemas/...", "pipeline/mutant"}},
	{folder: "pipeline/secret"},
	{folder: "pipeline/mutant"},
	{folder: "pipeline", may: with("pipeline")},
	{folder: "pipeline/source", may: with("pipeline", "pipeline/source/lowwater")},
	{folder: "pipeline/source/lowwater", may: []string{"pipeline/mutant"}},
	{folder: "pipeline/source/kafka", may: with("pipeline", "pipeline/broker", "pipeline/source/lowwater"), why: "the Kafka sink connects in the same way"},
	{folder: "pipeline/source/eventhubs/emulator", why: "a mistake shared with its client would cancel out"},
	{folder: "pipeline/shard", may: with("pipeline", "pipeline/ledger"), why: "the state machine speaks in manifests"},
	{
		folder: "pipeline/engine",
		may:    with("pipeline", "pipeline/announce", "pipeline/blob", "pipeline/decode", "pipeline/ledger", "pipeline/shard"),
		why:    "it assembles a pipeline from these parts",
	},
	{
		folder: "pipeline/ledger/azureblob", may: with("pipeline", "pipeline/blob", "pipeline/ledger"),
		why: "a container of an account, with the account's credentials",
	},
	{folder: "pipeline/ledger/ledgertest", may: with("pipeline", "pipeline/ledger"), why: "it is imported by tests only"},
	{folder: "pipeline/broker", may: with()},
	{folder: "operators", may: with("pipeline")},
	{folder: "operators/sketch"},
	{folder: "sinks", may: with("pipeline")},
	{folder: "sinks/kafka", may: with("pipeline", "pipeline/broker"), why: "the Kafka source connects in the same way"},
	{folder: "bench", may: with("bench/...", "pipeline/...", "operators/...", "sinks/...")},
	{folder: "bench/traffic", why: "a mistake shared with the decoders would cancel out"},
	{folder: "bench/simulation/table", why: "it is a model: it knows no more than what a server shows"},
	{
		folder: "bench/simulation/table/proof", may: with("bench/simulation/table", "pipeline", "sinks/clickhouse", "deploy/local/servers"),
		why: "it starts the engine that the model is compared with",
	},
	{folder: "bench/simulation/audit", why: "a mistake shared with the core would cancel out"},
	{folder: "deploy"},
	{folder: "deploy/local", may: []string{"deploy/local/..."}},
	{folder: "deploy/local/localtest", may: []string{"deploy/local/...", "pipeline/pipelinetest"}, why: "it is imported by tests only"},
	{folder: "cmd", may: with("cmd/internal/...", "bench/...", "pipeline/...", "operators/...", "sinks/...", "deploy", "deploy/local/...")},
	{folder: "cmd/millrace-clickhouse", why: "it is loaded with half a gigabyte of library; keep it small"},
}

// testRooms are judged by tests and may therefore import nothing of ours even
// in tests, except the helpers that find the outside world.
var testRooms = []string{"pipeline/source/eventhubs/emulator", "bench/simulation/audit"}

var testHelpers = []string{"pipeline/pipelinetest", "deploy/local/localtest"}

// foreign lists, per room, the parts of other people's import paths that must
// not even come in indirectly.
var foreign = []struct {
	folder string
	banned []string
	why    string
}{
	{"pipeline/decode", []string{"/Azure/", "/azure-sdk", "clickhouse", "franz-go", "amqp"}, "decoders are usable as a library"},
	{"pipeline/shard", []string{"/Azure/", "/azure-sdk", "clickhouse", "franz-go", "amqp"}, "the core does no I/O"},
	{"pipeline/ledger", []string{"clickhouse", "franz-go", "amqp"}, "a ledger knows stores, not targets"},
	{"operators", []string{"/Azure/", "/azure-sdk", "clickhouse", "franz-go", "amqp"}, "operators only compute"},
	{"pipeline/source/eventhubs/emulator", []string{"/Azure/", "/azure-sdk", "amqp"}, "the SDKs judge it, so it must not be made of them"},
	{"bench/traffic", []string{"arrow/go", "clickhouse"}, "the simulator makes bytes, as the cloud does"},
	{"bench/simulation/audit", []string{"."}, "the auditor is made of the standard library alone"},
	{"schemas", []string{"/Azure/", "/azure-sdk", "clickhouse", "franz-go", "amqp"}, "schemas only say what a row is"},
	{"cmd/millrace", []string{"purego"}, "bin/millrace is static"},
}

// pkg is what `go list -json` says of one package.
type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Error        *struct{ Err string }
}

func (p pkg) folder() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

var list = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports,Deps,Error", "./...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var packages []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
})

func packages(t *testing.T) []pkg {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 2 {
		t.Fatalf("go list knows %d packages, want the whole tree", len(all))
	}
	return all
}

// ours strips the module's path and drops everybody else's imports.
func ours(imports []string) []string {
	var folders []string
	for _, path := range imports {
		if rest, ok := strings.CutPrefix(path, module+"/"); ok {
			folders = append(folders, rest)
		}
	}
	return folders
}

func below(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

// ruleFor returns the rule of the longest folder, an exact one before others.
func ruleFor(folder string) (rule, bool) {
	var best rule
	found := false
	for _, r := range rules {
		if r.exact && folder != r.folder || !below(folder, r.folder) {
			continue
		}
		if !found || len(r.folder) > len(best.folder) || len(r.folder) == len(best.folder) && r.exact {
			best, found = r, true
		}
	}
	return best, found
}

func (r rule) allows(from, to string) bool {
	if below(to, from) && !r.exact { // The children of "pipeline" are not its own.
		return true
	}
	return slices.ContainsFunc(r.may, func(may string) bool {
		if parent, ok := strings.CutSuffix(may, "/..."); ok {
			return below(to, parent)
		}
		return to == may
	})
}

// parentOf allows packages below a room's own package to import it:
// decode/internal/reference may import decode's types.
func parentOf(from, to string) bool {
	r, _ := ruleFor(from)
	return below(from, to) && to != "pipeline" && below(to, r.folder) && to != r.folder
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from := p.folder()
		r, ok := ruleFor(from)
		if !ok {
			t.Errorf("%s: no rule for this folder: say in this test what it may import", from)
			continue
		}
		for _, to := range ours(p.Imports) {
			if !r.allows(from, to) && !parentOf(from, to) {
				t.Errorf("%s imports %s; the rule for %q allows %v %s", from, to, r.folder, r.may, r.why)
			}
		}
	}
}

// TestTestsLookDownToo: tests may use any room to judge their own, but not the
// programs above; some rooms are judged from outside only.
func TestTestsLookDownToo(t *testing.T) {
	for _, p := range packages(t) {
		from := p.folder()
		for _, to := range ours(slices.Concat(p.TestImports, p.XTestImports)) {
			if below(to, "cmd") && !below(from, "cmd") {
				t.Errorf("a test of %s imports %s: nobody imports cmd", from, to)
			}
			for _, room := range testRooms {
				if below(from, room) && !below(to, room) && !slices.Contains(testHelpers, to) {
					t.Errorf("a test of %s imports %s, want only %v", from, to, testHelpers)
				}
			}
		}
	}
}

func TestTestHelpersStayInTests(t *testing.T) {
	helpers := []string{"pipeline/pipelinetest", "sinks/sinktest", "deploy/local/localtest", "pipeline/blob/blobtest", "pipeline/ledger/ledgertest", "cmd/internal/jobtest"}
	for _, p := range packages(t) {
		from := p.folder()
		for _, to := range ours(p.Imports) {
			if slices.Contains(helpers, to) && !slices.Contains(helpers, from) {
				t.Errorf("%s imports %s outside of its tests", from, to)
			}
		}
	}
}

func TestForeignImportsStayInTheirRooms(t *testing.T) {
	for _, p := range packages(t) {
		for _, room := range foreign {
			if !below(p.folder(), room.folder) {
				continue
			}
			for _, dep := range p.Deps {
				if strings.HasPrefix(dep, module) {
					continue
				}
				for _, banned := range room.banned {
					if strings.Contains(strings.ToLower("/"+dep), strings.ToLower(banned)) {
						t.Errorf("%s comes to depend on %s: %s", p.folder(), dep, room.why)
					}
				}
			}
		}
	}
}

// TestPureRoomsHaveNoClockGoroutineOrIO reads the source: the core and the
// operators are functions of their input, or a replay would differ.
func TestPureRoomsHaveNoClockGoroutineOrIO(t *testing.T) {
	impure := []string{"net", "net/http", "os", "os/exec", "math/rand", "math/rand/v2", "crypto/rand", "sync", "log/slog"}
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTicker", "NewTimer"}
	// A random seed keeps an attacker from choosing colliding keys; the rows
	// that come out do not depend on it.
	excused := map[string]string{"operators/window": "math/rand/v2"}
	for _, p := range packages(t) {
		if !below(p.folder(), "pipeline/shard") && !below(p.folder(), "operators") {
			continue
		}
		for _, path := range p.Imports {
			if slices.Contains(impure, path) && excused[p.folder()] != path {
				t.Errorf("%s imports %q", p.folder(), path)
			}
		}
		for _, name := range p.GoFiles {
			inspect(t, filepath.Join(p.Dir, name), clock)
		}
	}
}

func inspect(t *testing.T, path string, clock []string) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: starts a goroutine", files.Position(n.Pos()))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				t.Errorf("%s: reads the clock with time.%s", files.Position(n.Pos()), n.Sel.Name)
			}
		}
		return true
	})
}

// TestTopOfTheTree keeps the first thing a reader sees short.
func TestTopOfTheTree(t *testing.T) {
	allowed := []string{
		"cmd", "pipeline", "operators", "sinks", "schemas", "deploy", "bench",
		"go.mod", "go.sum", "Makefile", "README.md", "LICENSE",
		"bin", // Build output, ignored by git.
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, ".") && !slices.Contains(allowed, name) {
			t.Errorf("%s stands at the top of the tree: move it into a room", name)
		}
	}
	for _, name := range []string{"README.md", "LICENSE", "Makefile", "go.mod", ".ci", ".golangci.yml"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// TestRulesAreAlive: a rule for a folder that does not exist misleads.
func TestRulesAreAlive(t *testing.T) {
	for _, r := range rules {
		if _, err := os.Stat(filepath.Join(root, r.folder)); err != nil {
			t.Errorf("rule for %q: %v", r.folder, err)
		}
	}
}

// TestRules tries the rules on imports that must and must not be.
func TestRules(t *testing.T) {
	tests := []struct {
		from, to string
		want     bool
	}{
		{"pipeline", "schemas", true},
		{"pipeline", "pipeline/decode", false},
		{"pipeline", "operators/sketch", false},
		{"pipeline", "pipeline/mutant", true},
		{"pipeline/mutant", "pipeline", false},
		{"schemas", "pipeline", false},
		{"pipeline/decode", "pipeline", true},
		{"pipeline/decode", "schemas", true},
		{"pipeline/decode", "pipeline/blob", false},
		{"pipeline/decode", "operators/sketch", true},
		{"pipeline/decode", "pipeline/decode/internal/reference", true},
		{"pipeline/decode/internal/reference", "pipeline", true},
		{"pipeline/decode", "cmd/internal/config", false},
		{"pipeline/engine", "pipeline/shard", true},
		{"pipeline/engine", "sinks/clickhouse", false},
		{"pipeline/shard", "pipeline/engine", false},
		{"pipeline/shard", "pipeline/ledger/azureblob", false},
		{"pipeline/ledger", "pipeline/blob", false},
		{"pipeline/source/eventhubs", "pipeline", true},
		{"pipeline/source/eventhubs", "pipeline/source/kafka", false},
		{"pipeline/source/eventhubs", "pipeline/source/lowwater", true},
		{"pipeline/source/lowwater", "pipeline", false},
		{"pipeline/source/eventhubs/emulator", "pipeline", false},
		{"pipeline/source/eventhubs/emulator", "schemas", false},
		{"pipeline/source/eventhubs/emulator", "pipeline/source/eventhubs/emulator/internal/wire", true},
		{"operators/window", "operators/sketch", true},
		{"operators/window", "operators/filter", false},
		{"operators/sketch", "pipeline", false},
		{"sinks/clickhouse", "sinks/kafka", false},
		{"sinks/clickhouse", "pipeline/broker", false},
		{"sinks/kafka", "pipeline/broker", true},
		{"bench/traffic", "pipeline/decode", false},
		{"bench/traffic", "schemas", false},
		{"bench/simulation", "pipeline/engine", true},
		{"bench/simulation/audit", "pipeline", false},
		{"bench/simulation/audit", "bench/simulation/table", false},
		{"cmd/internal/demo", "bench/traffic", true},
		{"cmd/internal/demo", "cmd/millrace", false},
		{"cmd/millrace-clickhouse", "deploy/local", false},
		{"deploy/local", "pipeline", false},
	}
	for _, tt := range tests {
		r, ok := ruleFor(tt.from)
		if !ok {
			t.Errorf("no rule for %s", tt.from)
			continue
		}
		if got := r.allows(tt.from, tt.to) || parentOf(tt.from, tt.to); got != tt.want {
			t.Errorf("%s -> %s: allowed %t, want %t", tt.from, tt.to, got, tt.want)
		}
	}
}
