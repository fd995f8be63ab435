//go:build !mutants

package main

import (
	"fmt"
	"io"
)

// mutants needs a build that has some.
func mutants(_ []string, _ hunt, _, log io.Writer) int {
	fmt.Fprintln(log, "simulation: this program is built without mutants: run make mutants")
	return 2
}
