package security

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// copySources copies what a build needs to a folder of another name.
func copySources(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel != "." && strings.HasPrefix(e.Name(), ".") || e.Name() == "node_modules" || rel == "bin" {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if !e.Type().IsRegular() || strings.HasSuffix(rel, "_test.go") || strings.Contains(rel, "testdata") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Two builds in two folders are equal, byte for byte, and say which version and
// commit they are. With MILLRACE_BUILD_ANEW the second one takes nothing from the
// cache of the first.
func TestBuildsAreEqual(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the programs twice")
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	var sums [2]map[string]string
	from := root
	for i := range sums {
		dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 3*i)+"tree")
		copySources(t, from, dir)
		from = dir // somebody may be writing in the tree
		cmd := exec.Command("make", "-s", "build", "VERSION=v9.8.7", "COMMIT="+commit)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "GOFLAGS=")
		if os.Getenv("MILLRACE_BUILD_ANEW") != "" {
			cmd.Env = append(cmd.Env, "GOCACHE="+filepath.Join(t.TempDir(), "cache"))
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		sums[i] = map[string]string{}
		for _, p := range programs {
			name := filepath.Base(p)
			data, err := os.ReadFile(filepath.Join(dir, "bin", name))
			if err != nil {
				t.Fatal(err)
			}
			sums[i][name] = fmt.Sprintf("%x", sha256.Sum256(data))
			if bytes.Contains(data, []byte(dir)) {
				t.Errorf("%s holds the path of the folder that it was built in", name)
			}
		}
		said, err := exec.Command(filepath.Join(dir, "bin", "millrace"), "version").Output()
		if want := "millrace v9.8.7, commit " + commit + ", go"; err != nil || !strings.HasPrefix(string(said), want) {
			t.Errorf("the program says it is %q, %v, want %q", said, err, want)
		}
	}
	if diff := cmp.Diff(sums[0], sums[1]); diff != "" {
		t.Errorf("hashes of two builds: %s", diff)
	}
	t.Logf("%v", sums[0])
}
