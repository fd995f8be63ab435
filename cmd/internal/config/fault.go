package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Place is where something stands in the file, both counted from 1; the zero value
// means nowhere.
type Place struct{ Line, Column int }

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	Place
	Key  string // path, such as accounts[0].name; "" for the text as a whole
	Text string // what is wrong and what to write instead
}

// Error gives place, key and text.
func (f Fault) Error() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "[%d:%d] ", f.Line, f.Column)
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Text
}

// Faults are all that is wrong with a configuration, in the order of the file.
type Faults []Fault

// Error gives one line a fault, each on a line of its own when there are several.
func (f Faults) Error() string {
	if len(f) == 1 {
		return f[0].Error()
	}
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return "\n  " + strings.Join(lines, "\n  ")
}

// keyPath is how a fault of Validate begins.
var keyPath = regexp.MustCompile(`^([a-z][a-z0-9_]*(?:\[\d+\])?(?:\.[a-z][a-z0-9_]*(?:\[\d+\])?)*): `)

// Split takes the faults of one section's files apart, as OpenFilters and OpenEnrich
// give them, each with its key.
func Split(err error) Faults { return flatten(err) }

// flatten takes joined errors apart and finds the key path of each.
func flatten(err error) Faults {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all Faults
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	var f Fault
	if errors.As(err, &f) {
		return Faults{f}
	}
	text := err.Error()
	if m := keyPath.FindStringSubmatch(text); m != nil {
		return Faults{{Key: m[1], Text: text[len(m[0]):]}}
	}
	return Faults{{Text: text}}
}

// explain says in users' words what is wrong with a YAML text, and where. It quotes
// no line of the file: somebody may have written a secret there.
func explain(key string, err error) Fault {
	var fault yaml.Error
	if !errors.As(err, &fault) || fault.GetToken() == nil || fault.GetToken().Position == nil {
		return Fault{Key: key, Text: err.Error()}
	}
	at := fault.GetToken().Position
	return Fault{Place: Place{at.Line, at.Column}, Key: key, Text: message(fault)}
}

func message(fault yaml.Error) string {
	switch f := fault.(type) {
	case *yaml.TypeError:
		if want := wanted(f.DstType); want != "" {
			return "want " + want
		}
	case *yaml.OverflowError:
		return f.SrcNum + " is too large or too small"
	case *yaml.UnexpectedNodeTypeError:
		return unexpected(f.Actual)
	}
	return fault.GetMessage()
}

// unexpected is said where keys and values are wanted and something else stands.
func unexpected(found ast.NodeType) string {
	return fmt.Sprintf("%s was used where keys and values are expected; a secret is named, never written: {env: NAME} or {file: PATH}", found.YAMLName())
}

// wanted names what a field takes.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a time with its unit, such as 5s or 10m"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	case t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Struct:
		return "keys and values"
	}
	return ""
}
