// Package jsonline writes what commands print with -o json, the same wherever one
// does.
package jsonline

import (
	"encoding/json"
	"io"
)

// Write writes one object on a line of its own. Characters that HTML would want
// escaped stay as they are.
func Write(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
