// Package configdoc makes the JSON Schema of the configuration, for editors, and
// the table of its keys, for people, out of the Go structs and the comments of
// their fields. A section that somebody adds is in both at the next `go generate`.
//
// It reads Go sources, so it serves the generator and the tests only; programs
// carry what was generated (package deploy).
package configdoc

//go:generate go run ./generate ../../..

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
)

// Where the generated files are, from the root of the source tree.
const (
	SchemaFile = "deploy/millrace.schema.json"
	TableFile  = "deploy/docs/configuration.md"
)

const module = "github.com/millrace/millrace"

// Section is one struct of the configuration.
type Section struct {
	Doc  string
	Keys []Key
}

// Key is one field.
type Key struct {
	Name     string
	Doc      string // comment, one line
	Type     string // for people: text, whole number, time, yes or no, list of …
	Kind     reflect.Kind
	Enum     []string
	Required bool
	Default  any      // as it is written in YAML; nil when there is none
	Section  *Section // of a struct, or of the entries of a list
	List     bool
	goType   reflect.Type
}

// Read describes the configuration. root is the folder of the source tree.
//
// Errors: every field without a comment that says what it must, all at once.
func Read(root string) (*Section, error) {
	r := &reader{root: root, docs: map[reflect.Type]structDoc{}}
	s := r.section(reflect.TypeFor[config.Config](), reflect.ValueOf(config.Default()), "")
	return s, errors.Join(r.faults...)
}

type reader struct {
	root   string
	docs   map[reflect.Type]structDoc
	faults []error
}

// structDoc holds the comments of a type and of its fields by Go name.
type structDoc struct {
	doc    string
	fields map[string]string
}

func (r *reader) section(t reflect.Type, defaults reflect.Value, path string) *Section {
	docs := r.doc(t)
	s := &Section{Doc: docs.doc}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" || name == "" {
			continue
		}
		key := Key{Name: name, Doc: docs.fields[f.Name], Kind: f.Type.Kind(), goType: f.Type}
		if f.Tag.Get("reload") == "live" {
			key.Doc += " Taken over while the pipeline runs."
		}
		key.Required = strings.Contains(key.Doc, "Required") && !strings.Contains(key.Doc, "Required with")
		if e := f.Tag.Get("enum"); e != "" {
			key.Enum = strings.Split(e, ",")
		}
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			key.List = key.List || inner.Kind() == reflect.Slice
			inner = inner.Elem()
		}
		var value reflect.Value
		if defaults.IsValid() {
			value = defaults.FieldByIndex(f.Index)
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		if inner.Kind() == reflect.Struct && !config.ReadsItself(inner) {
			below := value
			if key.List || f.Type.Kind() == reflect.Pointer {
				below = reflect.Value{}
			}
			key.Section = r.section(inner, below, at)
		}
		key.Type = typeName(f.Type)
		key.Default = defaultOf(value, key)
		if err := lacks(key); err != nil {
			r.faults = append(r.faults, fmt.Errorf("%s (field %s of %v): %w", at, f.Name, t, err))
		}
		s.Keys = append(s.Keys, key)
	}
	return s
}

var (
	saysDefault = regexp.MustCompile(`(?i)\bdefaults?\b|\brequired\b|\boptional\b|\bone of\b|\bempty means\b|\b0 means\b`)
	saysBounds  = regexp.MustCompile(`(?i)\bat least\b|\bat most\b|\d [a-z]* ?to \d|\bwhole seconds\b|\d to \d`)
)

// lacks says what a comment does not tell and must.
func lacks(k Key) error {
	number := k.Kind >= reflect.Int && k.Kind <= reflect.Float64
	switch {
	case k.Doc == "":
		return errors.New("no comment: say meaning, unit, default and bounds above the field")
	case k.Section == nil && k.Default == nil && !saysDefault.MatchString(k.Doc):
		return fmt.Errorf("the comment %q names no default: say Default …, Required or Optional", k.Doc)
	case number && !saysBounds.MatchString(k.Doc):
		return fmt.Errorf("the comment %q names no bounds: say such as 1 to 64, or at least 1s", k.Doc)
	}
	return nil
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "time"
	case t == reflect.TypeFor[config.Reference]():
		return "secret"
	case config.ReadsItself(t):
		return "text"
	}
	switch k := t.Kind(); {
	case k == reflect.Pointer:
		return typeName(t.Elem())
	case k == reflect.Slice:
		return "list"
	case k == reflect.Struct:
		return "section"
	case k == reflect.Map:
		return "keys and values"
	case k == reflect.Bool:
		return "true or false"
	case k >= reflect.Int && k <= reflect.Uint64:
		return "whole number"
	case k == reflect.Float32 || k == reflect.Float64:
		return "number"
	}
	return "text"
}

// defaultOf writes a default as YAML does; sections and lists tell theirs in words.
func defaultOf(v reflect.Value, k Key) any {
	if !v.IsValid() || v.IsZero() || k.Section != nil || k.List || v.Kind() == reflect.Pointer {
		return nil
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return duration(d)
	}
	return v.Interface()
}

// duration gives 10m for 10m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// doc reads the comments of a struct out of the sources of its package.
func (r *reader) doc(t reflect.Type) structDoc {
	if d, known := r.docs[t]; known {
		return d
	}
	dir := filepath.Join(r.root, filepath.FromSlash(strings.TrimPrefix(strings.TrimPrefix(t.PkgPath(), module), "/")))
	d, err := structComments(dir, t.Name())
	if err != nil {
		r.faults = append(r.faults, err)
	}
	r.docs[t] = d
	return d
}

func structComments(dir, name string) (structDoc, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return structDoc{}, err
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return structDoc{}, err
		}
		for _, decl := range file.Decls {
			if d, ok := commentsOf(set.File(file.FileStart), decl, name); ok {
				return d, nil
			}
		}
	}
	return structDoc{}, fmt.Errorf("type %s in %q: %w", name, dir, fs.ErrNotExist)
}

func commentsOf(source *token.File, decl ast.Decl, name string) (structDoc, bool) {
	g, ok := decl.(*ast.GenDecl)
	if !ok || g.Tok != token.TYPE {
		return structDoc{}, false
	}
	for _, spec := range g.Specs {
		t, ok := spec.(*ast.TypeSpec)
		if !ok || t.Name.Name != name {
			continue
		}
		s, ok := t.Type.(*ast.StructType)
		if !ok {
			continue
		}
		doc := t.Doc
		if doc == nil {
			doc = g.Doc
		}
		d := structDoc{doc: firstParagraph(doc), fields: map[string]string{}}
		above, end := "", -1
		for _, f := range s.Fields.List {
			text := oneLine(f.Doc)
			if text == "" {
				text = oneLine(f.Comment)
			}
			// A comment above several lines is for all of them.
			if line := source.Line(f.Pos()); text == "" && line == end+1 {
				text = above
			}
			above, end = text, source.Line(f.End())
			for _, n := range f.Names {
				d.fields[n.Name] = withoutName(text, n.Name)
			}
		}
		return d, true
	}
	return structDoc{}, false
}

func oneLine(c *ast.CommentGroup) string {
	if c == nil {
		return ""
	}
	return strings.Join(strings.Fields(c.Text()), " ")
}

// firstParagraph of a type's comment is for users, the rest for us.
func firstParagraph(c *ast.CommentGroup) string {
	if c == nil {
		return ""
	}
	text, _, _ := strings.Cut(c.Text(), "\n\n")
	return strings.Join(strings.Fields(text), " ")
}

// withoutName takes the Go name off the front of a comment where a verb follows:
// readers know keys only. "Name of the account" stays.
func withoutName(text, name string) string {
	rest, ok := strings.CutPrefix(text, name+" ")
	if !ok {
		return text
	}
	verb, object, _ := strings.Cut(rest, " ")
	switch {
	case verb == "is" || verb == "are":
		rest = object
	case !strings.HasSuffix(verb, "s"):
		return text
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}
