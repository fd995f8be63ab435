package config

import (
	"fmt"
	"reflect"
)

// walk visits every value of a configuration with its key path, outer before inner,
// until visit says not to go further in.
func walk(path string, v reflect.Value, visit func(path string, v reflect.Value) (deeper bool)) {
	if v.Kind() == reflect.Pointer {
		if !v.IsNil() {
			walk(path, v.Elem(), visit)
		}
		return
	}
	if !visit(path, v) {
		return
	}
	switch {
	case v.Kind() == reflect.Struct && !isLeaf(v.Type()):
		for _, f := range reflect.VisibleFields(v.Type()) {
			if key := keyOf(f); key != "" {
				walk(join(path, key), v.FieldByIndex(f.Index), visit)
			}
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i), visit)
		}
	}
}

func eachReference(c *Config, found func(Named)) {
	walk("", reflect.ValueOf(c), func(path string, v reflect.Value) bool {
		r, ok := v.Interface().(Reference)
		if ok && r.Set() {
			found(Named{path, r})
		}
		return !ok
	})
}
