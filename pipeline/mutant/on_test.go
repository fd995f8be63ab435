//go:build mutants

package mutant_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/millrace/millrace/pipeline/mutant"
)

func TestOneMutantAtATime(t *testing.T) {
	defer mutant.Choose(mutant.None)
	for _, chosen := range mutant.All {
		mutant.Choose(chosen.ID)
		if mutant.Reached() != 0 {
			t.Errorf("%s was reached before it was asked for", chosen.Name)
		}
		for _, m := range mutant.All {
			if on := mutant.On(m.ID); on != (m.ID == chosen.ID) {
				t.Errorf("with %s chosen, %s is on: %t", chosen.Name, m.Name, on)
			}
		}
		if mutant.Reached() != 1 {
			t.Errorf("%s was reached %d times, want 1", chosen.Name, mutant.Reached())
		}
	}
	mutant.Choose(mutant.None)
	for _, m := range mutant.All {
		if mutant.On(m.ID) {
			t.Errorf("%s is on, and none was chosen", m.Name)
		}
	}
}

func TestNamed(t *testing.T) {
	for _, want := range mutant.All {
		if got, err := mutant.Named(want.Name); err != nil || got != want {
			t.Errorf("%s: %v %v", want.Name, got, err)
		}
	}
	if _, err := mutant.Named("Nobody"); err == nil {
		t.Error("a mutant that nobody knows was found")
	}
}

// The control of TestOrdinaryBuildHasNoMutant: here the descriptions are found.
func TestDescriptionsAreInTheProgram(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, descriptions := told(t)
	for _, what := range descriptions {
		if !bytes.Contains(program, []byte(what)) {
			t.Errorf("the description %q is not found in %s", what, path)
		}
	}
}
