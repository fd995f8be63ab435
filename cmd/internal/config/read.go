package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// reader fills a Config out of a syntax tree. It goes on behind a fault, which is
// why it is not the YAML library's own decoder: that one ends at the first.
type reader struct {
	faults  Faults
	places  map[string]Place // of every key path in the file; nil when it is no YAML
	anchors map[string]ast.Node
	meant   map[string]bool // key paths that an unknown key was probably meant to be
}

// read fills v, a pointer to a struct. What the text does not name stays as it is.
func read(data []byte, v any) *reader {
	r := &reader{anchors: map[string]ast.Node{}, meant: map[string]bool{}}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		f := explain("", err)
		f.Text = "not readable as YAML: " + f.Text
		r.faults = append(r.faults, f)
		return r
	}
	r.places = map[string]Place{}
	documents := 0
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if documents++; documents > 1 {
			r.fault("", d.Body, "a second document in one file: keep one")
			break
		}
		r.value("", d.Body, reflect.ValueOf(v).Elem())
	}
	return r
}

func (r *reader) fault(key string, at ast.Node, format string, args ...any) {
	r.faults = append(r.faults, Fault{Place: placeOf(at), Key: key, Text: fmt.Sprintf(format, args...)})
}

// placeOf gives a node's first letter.
func placeOf(n ast.Node) Place {
	var t *token.Token
	switch n := n.(type) {
	case *ast.MappingNode:
		if t = n.GetToken(); len(n.Values) > 0 && !n.IsFlowStyle {
			t = n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		t = n.Key.GetToken()
	default:
		t = n.GetToken()
	}
	if t == nil || t.Position == nil {
		return Place{}
	}
	return Place{t.Position.Line, t.Position.Column}
}

// value fills v out of a node.
func (r *reader) value(path string, n ast.Node, v reflect.Value) {
	if _, seen := r.places[path]; !seen && path != "" {
		r.places[path] = placeOf(n)
	}
	switch node := n.(type) {
	case *ast.AnchorNode:
		r.value(path, node.Value, v)
		r.anchors[node.Name.GetToken().Value] = node.Value // behind it: it cannot hold itself
		return
	case *ast.AliasNode:
		if target := r.anchors[node.Value.GetToken().Value]; target != nil {
			r.value(path, target, v)
		} else {
			r.fault(path, n, "no anchor of this name stands above")
		}
		return
	case *ast.NullNode:
		return // the default
	}
	switch {
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		r.value(path, n, fresh.Elem())
		v.Set(fresh)
	case isLeaf(v.Type()):
		r.leaf(path, n, v)
	case v.Kind() == reflect.Struct:
		r.mapping(path, n, v)
	case v.Kind() == reflect.Slice:
		r.sequence(path, n, v)
	default:
		r.leaf(path, n, v)
	}
}

// isLeaf says whether a type is one value: neither a section nor a list.
func isLeaf(t reflect.Type) bool {
	return ReadsItself(t) || t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Pointer
}

// ReadsItself says whether a type of a field makes its value out of a text by
// itself, whatever is in it.
func ReadsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) || p.Implements(reflect.TypeFor[yaml.BytesUnmarshaler]()) ||
		p.Implements(reflect.TypeFor[yaml.InterfaceUnmarshaler]())
}

func (r *reader) leaf(path string, n ast.Node, v reflect.Value) {
	if err := yaml.NodeToValue(n, v.Addr().Interface(), yaml.Strict()); err != nil {
		f := explain(path, err)
		if f.Place == (Place{}) {
			f.Place = placeOf(n)
		}
		r.faults = append(r.faults, f)
	}
}

func (r *reader) sequence(path string, n ast.Node, v reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fault(path, n, "want a list: each entry begins with a dash, or [A, B]")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values))
	for i, item := range list.Values {
		r.value(fmt.Sprintf("%s[%d]", path, i), item, out.Index(i))
	}
	v.Set(out)
}

// pairs gives the entries of a mapping.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func (r *reader) mapping(path string, n ast.Node, v reflect.Value) {
	entries, ok := pairs(n)
	switch {
	case !ok && v.Type() == reflect.TypeFor[Reference]():
		r.fault(path, n, "%s", unexpected(n.Type()))
		return
	case !ok:
		r.fault(path, n, "want keys and values, one of %s", strings.Join(keysOf(v.Type()), ", "))
		return
	}
	for _, e := range entries {
		if _, merge := e.Key.(*ast.MergeKeyNode); merge {
			r.value(path, e.Value, v)
			continue
		}
		name := e.Key.GetToken().Value
		key := join(path, name)
		i := slices.IndexFunc(reflect.VisibleFields(v.Type()), func(f reflect.StructField) bool { return keyOf(f) == name })
		if i < 0 {
			r.faults = append(r.faults, Fault{Place: placeOf(e), Key: key, Text: "unknown key" + r.hint(path, name, v.Type())})
			continue
		}
		r.places[key] = placeOf(e.Value)
		if _, block := pairs(e.Value); block || e.Value.Type() == ast.SequenceType {
			r.places[key] = placeOf(e)
		}
		r.value(key, e.Value, v.FieldByIndex(reflect.VisibleFields(v.Type())[i].Index))
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// keyOf gives the key of a field, "" when it has none.
func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if !f.IsExported() || name == "-" {
		return ""
	}
	return name
}

// keysOf gives the keys of a struct in its order.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		if k := keyOf(f); k != "" {
			keys = append(keys, k)
		}
	}
	return keys
}

// hint says what an unknown key may have been meant to be.
func (r *reader) hint(path, name string, in reflect.Type) string {
	keys := keysOf(in)
	if near, ok := nearest(name, keys); ok {
		r.meant[join(path, near)] = true
		return ", did you mean " + near + "?"
	}
	if paths := pathsOf(name, reflect.TypeFor[Config](), ""); len(paths) > 0 {
		return ", it belongs to " + strings.Join(paths, " or ")
	}
	return "; known here: " + strings.Join(keys, ", ")
}

// pathsOf finds the places at which a key of this name is known.
func pathsOf(name string, t reflect.Type, path string) []string {
	var found []string
	for _, f := range reflect.VisibleFields(t) {
		key := keyOf(f)
		if key == "" {
			continue
		}
		if key == name {
			found = append(found, join(path, key))
		}
		inner, at := f.Type, join(path, key)
		for inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
			if inner.Kind() == reflect.Slice {
				at += "[]"
			}
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && !isLeaf(inner) {
			found = append(found, pathsOf(name, inner, at)...)
		}
	}
	return found
}

// nearest finds the word that differs least, if one differs little.
func nearest(word string, among []string) (string, bool) {
	if len(among) == 0 {
		return "", false
	}
	best := slices.MinFunc(among, func(a, b string) int { return cmp.Compare(distance(word, a), distance(word, b)) })
	d := distance(word, best)
	return best, d <= max(1, len(best)/3)
}

// distance counts the letters to insert, delete, change or swap with a neighbour.
//
// Source: optimal string alignment, Boytsov, "Indexing methods for approximate
// dictionary searching", ACM JEA 16, 2011, section 2.1.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// place puts a fault of Validate where its key stands, or the nearest one above it.
func (r *reader) place(f Fault) Fault {
	for key := f.Key; key != "" && f.Line == 0; key = parent(key) {
		f.Place = r.places[key]
	}
	return f
}

// parent cuts the last part of a key path off.
func parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// merge adds the faults of Validate to those of the text. Where a value could not
// be read, or its key was misspelled, what Validate says of the default in its place,
// or of the section around it, is left out.
func (r *reader) merge(err error) error {
	unread, within := map[string]bool{}, map[string]bool{}
	for _, f := range r.faults {
		unread[f.Key] = true
		for above := parent(f.Key); above != ""; above = parent(above) {
			within[above] = true
		}
	}
	all := r.faults
	for _, f := range flatten(err) {
		under := f.Key
		for under != "" && !unread[under] && !r.meant[under] {
			under = parent(under)
		}
		if under == "" && !within[f.Key] {
			all = append(all, r.place(f))
		}
	}
	slices.SortStableFunc(all, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Column, b.Column))
	})
	if len(all) == 0 {
		return nil
	}
	return all
}

// order puts what stands nowhere behind what stands in the file.
func order(f Fault) int {
	if f.Line == 0 {
		return int(^uint(0) >> 1)
	}
	return f.Line
}

// FaultsOf gives the faults in an error of Load or Parse; nil when it is none of
// theirs, such as a file that is not there.
func FaultsOf(err error) Faults {
	var f Faults
	errors.As(err, &f)
	return f
}

// quoteList gives `A, B or C` for messages.
func quoteList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	return strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
}

// Places gives where a key, or the section around it, stands in a text.
func Places(data []byte) func(key string) Place {
	c := Default()
	r := read(data, &c)
	return func(key string) Place { return r.place(Fault{Key: key}).Place }
}
