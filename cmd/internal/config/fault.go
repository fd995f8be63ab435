package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// explain says in users' words what is wrong with a YAML text, and where. It quotes
// no line of the file: somebody may have written a secret there.
func explain(err error) error {
	var fault yaml.Error
	if !errors.As(err, &fault) || fault.GetToken() == nil || fault.GetToken().Position == nil {
		return err
	}
	at := fault.GetToken().Position
	return fmt.Errorf("[%d:%d] %s", at.Line, at.Column, message(fault))
}

func message(fault yaml.Error) string {
	switch f := fault.(type) {
	case *yaml.UnknownFieldError:
		return strings.Replace(f.Message, "unknown field", "unknown key", 1)
	case *yaml.TypeError:
		if want := wanted(f.DstType); want != "" {
			return "want " + want
		}
	case *yaml.OverflowError:
		return f.SrcNum + " is too large or too small"
	case *yaml.UnexpectedNodeTypeError:
		if f.Expected == ast.MappingType {
			return fmt.Sprintf("%s was used where keys and values are expected; a secret is named, never written: {env: NAME} or {file: PATH}", f.Actual.YAMLName())
		}
	}
	return fault.GetMessage()
}

// wanted names what a field takes.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a time with its unit, such as 5s or 10m"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Slice:
		return "a list"
	}
	return ""
}
