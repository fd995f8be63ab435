package config

import (
	"fmt"
	"reflect"
)

// walk visits every value of a configuration with its key path, outer before inner,
// until visit says not to go further in. live is what reload:"live" says of it.
func walk(path string, live bool, v reflect.Value, visit func(path string, live bool, v reflect.Value) (deeper bool)) {
	if v.Kind() == reflect.Pointer {
		if !v.IsNil() {
			walk(path, live, v.Elem(), visit)
		}
		return
	}
	if !visit(path, live, v) {
		return
	}
	switch {
	case v.Kind() == reflect.Struct && !isLeaf(v.Type()):
		for _, f := range reflect.VisibleFields(v.Type()) {
			if key := keyOf(f); key != "" {
				walk(join(path, key), live || isLive(f), v.FieldByIndex(f.Index), visit)
			}
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			walk(fmt.Sprintf("%s[%d]", path, i), live, v.Index(i), visit)
		}
	}
}

func eachReference(c *Config, found func(Named)) {
	walk("", false, reflect.ValueOf(c), func(path string, live bool, v reflect.Value) bool {
		r, ok := v.Interface().(Reference)
		if ok && r.Set() {
			found(Named{path, live, r})
		}
		return !ok
	})
}
