//go:build !mutants

package mutant_test

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"testing"

	_ "github.com/millrace/millrace/operators/window" // rooms with seeded bugs
	_ "github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/mutant"
	_ "github.com/millrace/millrace/pipeline/shard"
)

func TestOrdinaryBuildHasNoMutant(t *testing.T) {
	for id := range mutant.ID(1000) {
		if mutant.On(id) {
			t.Errorf("mutant %d is on", id)
		}
	}
	programs := []string{executable(t)}
	if path := os.Getenv("MILLRACE_BIN"); path != "" {
		programs = append(programs, path)
	}
	_, descriptions := told(t)
	for _, path := range programs {
		checkProgram(t, path, descriptions)
	}
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func checkProgram(t *testing.T, path string, descriptions []string) {
	t.Helper()
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range descriptions {
		if bytes.Contains(program, []byte(what)) {
			t.Errorf("%s has a mutant that %q", path, what)
		}
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			t.Errorf("%s is built with the tags %q", path, s.Value)
		}
	}
}
