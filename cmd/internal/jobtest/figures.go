package jobtest

import (
	"encoding/json"
	"os"
	"testing"
)

// EnvFigures names the file that takes the figures of a proof; the Makefile prints
// it as the last line.
const EnvFigures = "MILLRACE_FIGURES"

// Figures reports what a proof measured: one line of JSON.
func Figures(t *testing.T, figures any) {
	t.Helper()
	line, err := json.Marshal(figures)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	file := os.Getenv(EnvFigures)
	if file == "" {
		return
	}
	if err := os.WriteFile(file, append(line, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}
