// Command generate writes the schema and the table of the configuration's keys. Its
// argument is the root of the source tree.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/cmd/internal/configdoc"
)

func main() {
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(root string) error {
	s, err := configdoc.Read(root)
	if err != nil {
		return err
	}
	schema, err := configdoc.Schema(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, configdoc.SchemaFile), schema, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, configdoc.TableFile), configdoc.Table(s), 0o644)
}
