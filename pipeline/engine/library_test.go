package engine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A program outside of this module assembles a pipeline of its own source, detector
// and sink, and proves its sink with the conformance suite. It can import nothing
// internal, so what it needs is public.
func TestLibraryFromAnotherModule(t *testing.T) {
	if testing.Short() {
		t.Skip("builds another module: run without -short")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/library")); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mod", "edit", "-replace=github.com/millrace/millrace=" + root, "-require=github.com/millrace/millrace@v0.0.0"},
		{"vet", "-mod=mod", "./..."},
		{"test", "-mod=mod", "./..."},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		// Whatever it needs is in the cache already: it is what this module needs.
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
		t.Logf("go %v\n%s", args, out)
	}
}
