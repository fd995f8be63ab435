package config

import (
	"fmt"
	"reflect"
)

// Change is a key whose value differs between two configurations.
type Change struct {
	Key string
	// Live: a running pipeline can take the new value over. Its field, or one above it,
	// has the tag reload:"live"; or it is an element of a list of things with names, and
	// has come or gone. Whether that can be is for the pipeline to say.
	Live bool
}

// Changes compares two configurations, in the order of the fields. What is live is
// named as a whole, everything else by the innermost key.
func Changes(old, fresh Config) []Change {
	var found []Change
	changes("", reflect.ValueOf(old), reflect.ValueOf(fresh), &found)
	return found
}

// named is an element of a list that is known by its name, whatever its place.
type named interface{ listName() string }

func (a Account) listName() string { return a.Name }

func isLive(f reflect.StructField) bool { return f.Tag.Get("reload") == "live" }

func changes(path string, old, fresh reflect.Value, found *[]Change) {
	for _, f := range reflect.VisibleFields(old.Type()) {
		key := keyOf(f)
		a, b := old.FieldByIndex(f.Index), fresh.FieldByIndex(f.Index)
		if key == "" || reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		at := join(path, key)
		if a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil() {
			a, b = a.Elem(), b.Elem()
		}
		switch {
		case isLive(f):
			*found = append(*found, Change{at, true})
		case a.Kind() == reflect.Struct && !isLeaf(a.Type()):
			changes(at, a, b, found)
		case a.Kind() == reflect.Slice && a.Type().Elem().Implements(reflect.TypeFor[named]()):
			changedList(at, a, b, found)
		default:
			*found = append(*found, Change{at, false})
		}
	}
}

// changedList compares elements of one name.
func changedList(path string, old, fresh reflect.Value, found *[]Change) {
	was := map[string]reflect.Value{}
	for i := range old.Len() {
		was[old.Index(i).Interface().(named).listName()] = old.Index(i)
	}
	for i := range fresh.Len() {
		name, at := fresh.Index(i).Interface().(named).listName(), fmt.Sprintf("%s[%d]", path, i)
		if before, there := was[name]; there {
			changes(at, before, fresh.Index(i), found)
			delete(was, name)
			continue
		}
		*found = append(*found, Change{at, true})
	}
	if len(was) > 0 {
		*found = append(*found, Change{path, true})
	}
}
