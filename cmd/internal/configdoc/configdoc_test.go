package configdoc_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/cmd/internal/configdoc"
)

const root = "../../.."

// Every field of every section has a comment with meaning, default and bounds, and
// what is generated of them is up to date.
func TestGeneratedFiles(t *testing.T) {
	s, err := configdoc.Read(root)
	if err != nil {
		t.Fatalf("fields of the configuration whose comments lack something:\n%v", err)
	}
	schema, err := configdoc.Schema(s)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]byte{configdoc.SchemaFile: schema, configdoc.TableFile: configdoc.Table(s)} {
		have, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is not up to date: run go generate ./cmd/internal/configdoc (-have +want):\n%s", file, cmp.Diff(strings.Split(string(have), "\n"), strings.Split(string(want), "\n")))
		}
	}
}

// The schema is one that an editor can use: known keys, closed lists, and no others.
func TestSchema(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, configdoc.SchemaFile))
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Type       string            `json:"type"`
		Pattern    string            `json:"pattern"`
		Additional any               `json:"additionalProperties"` // a map has the schema of its values here
		Properties map[string]schema `json:"properties"`
		Items      *schema           `json:"items"`
		Enum       []string          `json:"enum"`
		Default    any               `json:"default"`
		Required   []string          `json:"required"`
		Max        int               `json:"maxProperties"`
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	hub := s.Properties["eventhubs"].Items.Properties
	for what, ok := range map[string]bool{
		"no other keys":                s.Additional == false,
		"start is required":            strings.Contains(strings.Join(s.Required, " "), "start"),
		"max_batch_age is a time":      s.Properties["max_batch_age"].Pattern != "" && s.Properties["max_batch_age"].Default == "5s",
		"transport is a closed list":   cmp.Equal(hub["transport"].Enum, []string{"amqp", "websocket"}),
		"a secret is one of two names": hub["connection_string"].Max == 1 && len(hub["connection_string"].Properties) == 2,
		"names are a list":             s.Properties["windows"].Items.Properties["sums"].Items.Type == "string",
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}
