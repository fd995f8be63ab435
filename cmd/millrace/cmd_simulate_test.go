package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/bench/traffic"
)

// simulate runs the command as the root would.
func simulate(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newSimulateCommand()
	cmd.GroupID = "" // The groups belong to the root.
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"files"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestSimulateFiles(t *testing.T) {
	var trees [2]map[string]string
	for i := range trees {
		dir := t.TempDir()
		out, err := simulate(t, "--dir", dir, "--nics", "5", "--hours", "2", "--tuples-per-minute", "20", "--nsg-v2", "0.5", "--malformed", "0.01", "--seed", "7")
		if err != nil {
			t.Fatal(err)
		}
		truth, err := traffic.ReadTruth(filepath.Join(dir, "truth.json"))
		if err != nil {
			t.Fatal(err)
		}
		trees[i] = readTree(t, dir)
		if len(truth.Blobs) != 10 || len(trees[i]) != 11 || !strings.HasPrefix(out, "10 files, ") {
			t.Errorf("%d blobs, %d files, said %q", len(truth.Blobs), len(trees[i]), out)
		}
		for name, b := range truth.Blobs {
			if n := len(trees[i][strings.TrimPrefix(name, truth.Account+"/")]); uint64(n) != b.Bytes {
				t.Errorf("%q has %d bytes, the truth says %d", name, n, b.Bytes)
			}
		}
	}
	for name, data := range trees[0] {
		if trees[1][name] != data {
			t.Errorf("%q differs from run to run", name)
		}
	}
}

func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSimulateFilesUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"dir":      {},
		"hours":    {"--dir", t.TempDir(), "--hours", "0"},
		"start":    {"--dir", t.TempDir(), "--start", "yesterday"},
		"nics":     {"--dir", t.TempDir(), "--nics", "-1"},
		"validate": {"--dir", t.TempDir(), "--malformed", "7"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := simulate(t, args...)
			var e *exitError
			if !errors.As(err, &e) || e.code != exitUsage {
				t.Errorf("error %v, want one of usage", err)
			}
		})
	}
}
