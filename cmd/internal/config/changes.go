package config

import (
	"reflect"
)

// Change is a key whose value differs between two configurations.
type Change struct {
	Key string
	// Live: a running pipeline can take the new value over. Its field, or one above it,
	// has the tag reload:"live".
	Live bool
}

// Changes compares two configurations, in the order of the fields. What is live is
// named as a whole, everything else by the innermost key.
func Changes(old, fresh Config) []Change {
	var found []Change
	changes("", reflect.ValueOf(old), reflect.ValueOf(fresh), &found)
	return found
}

func changes(path string, old, fresh reflect.Value, found *[]Change) {
	for _, f := range reflect.VisibleFields(old.Type()) {
		key := keyOf(f)
		a, b := old.FieldByIndex(f.Index), fresh.FieldByIndex(f.Index)
		if key == "" || reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		live := f.Tag.Get("reload") == "live"
		if !live && f.Type.Kind() == reflect.Struct && !isLeaf(f.Type) {
			changes(join(path, key), a, b, found)
			continue
		}
		*found = append(*found, Change{join(path, key), live})
	}
}
