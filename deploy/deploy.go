// Package deploy carries the files of this folder that programs print.
package deploy

import _ "embed"

// Schema is the JSON Schema of the configuration, for editors.
//
//go:embed millrace.schema.json
var Schema []byte
