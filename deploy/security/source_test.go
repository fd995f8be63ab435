package security

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source is one file that is linked into a program, or could be.
type source struct {
	folder string // from the root
	name   string
	files  *token.FileSet
	file   *ast.File
}

// helpers are packages that only tests import.
var helpers = []string{"pipeline/blob/blobtest", "pipeline/pipelinetest", "pipeline/ledger/ledgertest", "sinks/sinktest", "deploy/local/localtest", "cmd/internal/telemetry/telemetrytest", "cmd/internal/jobtest"}

// sources parses everything but tests.
func sources(t *testing.T) (all []source) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "node_modules") {
			return fs.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		folder = filepath.ToSlash(folder)
		// Of bench only the simulated traffic is linked into a program. A simulation kills
		// its processes by panics, and measurements serve nobody.
		measures := strings.HasPrefix(folder, "bench/") && !strings.HasPrefix(folder, "bench/traffic")
		if err != nil || measures || slices.Contains(helpers, folder) {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		all = append(all, source{folder, name, files, file})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 200 {
		t.Fatalf("%d files, want the whole tree", len(all))
	}
	return all
}

// name gives pkg.Name of a selector, "" for everything else.
func name(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + s.Sel.Name
}

// wanted are the fields that a literal of a type must set: a client that is not told
// otherwise follows redirects with whatever is in its headers, and a server waits for
// its clients for ever.
var wanted = map[string][]string{
	"http.Client":    {"Transport", "CheckRedirect"},
	"http.Transport": {"Proxy", "IdleConnTimeout|DisableKeepAlives", "TLSHandshakeTimeout|Proxy=nil"},
	"http.Server":    {"ReadHeaderTimeout", "ReadTimeout", "IdleTimeout", "MaxHeaderBytes"},
	"tls.Config":     {"MinVersion"},
}

// banned are shortcuts past those: clients and servers of no limits, calls without a
// context.
var banned = []string{
	"http.Get", "http.Head", "http.Post", "http.PostForm", "http.DefaultClient", "http.DefaultTransport", "http.NewRequest",
	"http.ListenAndServe", "http.ListenAndServeTLS", "http.Serve", "http.ServeTLS", "http.DefaultServeMux", "http.Handle", "http.HandleFunc",
	"net.Dial", "tls.Dial", "tls.DialWithDialer", "rpc.Dial", "smtp.SendMail",
}

// Nowhere in the tree is a client, a server or a configuration of TLS made that has
// no limits, and nothing can switch the verification of certificates off.
func TestClientsAndServersHaveLimits(t *testing.T) {
	found := map[string]int{}
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				what := name(n.Type)
				if fields, ok := wanted[what]; ok {
					found[what]++
					for _, field := range fields {
						if !sets(n, field) {
							t.Errorf("%s: %s without %s", s.files.Position(n.Pos()), what, field)
						}
					}
				}
			case *ast.SelectorExpr:
				if slices.Contains(banned, name(n)) {
					t.Errorf("%s: %s", s.files.Position(n.Pos()), name(n))
				}
			case *ast.Ident:
				if n.Name == "InsecureSkipVerify" {
					t.Errorf("%s: certificates are not verified", s.files.Position(n.Pos()))
				}
			}
			return true
		})
	}
	for what := range wanted {
		if found[what] == 0 {
			t.Errorf("no %s was found: does the test still look at what is there?", what)
		}
	}
}

// sets says whether a literal sets one of the fields, told apart by "|", or to nil
// with "=nil".
func sets(lit *ast.CompositeLit, fields string) bool {
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, ok := kv.Key.(*ast.Ident)
		if !ok {
			continue
		}
		for field := range strings.SplitSeq(fields, "|") {
			want, null := strings.CutSuffix(field, "=nil")
			v, isIdent := kv.Value.(*ast.Ident)
			if key.Name == want && (!null || isIdent && v.Name == "nil") {
				return true
			}
		}
	}
	return false
}

// allowed are the places that may do what nobody else may, and why.
var allowed = map[string]map[string]string{
	"recover": {
		"pipeline/decode/record.go": "a defect of the decoder costs one record; everywhere else a panic ends the program",
	},
	"unsafe": {
		"pipeline/decode/tuple_vnet.go":      "loads of eight bytes within a slice whose length was checked",
		"cmd/millrace-clickhouse/library.go": "the arguments of a C function",
	},
	"encoding/gob": {}, "plugin": {}, "net/http/pprof": {}, "expvar": {}, "text/template": {}, "crypto/md5": {}, "crypto/sha1": {}, "crypto/des": {}, "crypto/rc4": {}, "net/rpc": {},
}

// Nothing decodes foreign bytes by reflection, profiles itself over HTTP, or goes on
// after a panic, but in the places that say why.
func TestFewPlacesMayDoMore(t *testing.T) {
	for _, s := range sources(t) {
		at := s.folder + "/" + s.name
		for _, i := range s.file.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if places, ok := allowed[path]; ok && places[at] == "" {
				t.Errorf("%s imports %q", at, path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.Ident); ok && f.Name == "recover" && allowed["recover"][at] == "" {
				t.Errorf("%s: recovers from a panic", s.files.Position(n.Pos()))
			}
			return true
		})
	}
	for _, places := range allowed {
		for at := range places {
			if _, err := os.Stat(filepath.Join(root, at)); err != nil {
				t.Errorf("the test allows what is not there: %v", err)
			}
		}
	}
}
