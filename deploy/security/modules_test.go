package security

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ask runs the go command at the root of the tree.
func ask(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// moduleFiles are those of the product and of its tools.
var moduleFiles = []string{"go.mod", "deploy/tools/go.mod"}

// Modules are what the files of sums say, and no path of somebody's machine takes the
// place of one.
func TestModulesAreFixed(t *testing.T) {
	for _, name := range moduleFiles {
		var file struct {
			Replace []struct {
				Old, New struct{ Path, Version string }
			}
			Exclude []any
		}
		if err := json.Unmarshal([]byte(ask(t, "mod", "edit", "-json", name)), &file); err != nil {
			t.Fatal(err)
		}
		for _, r := range file.Replace {
			if r.New.Version == "" {
				t.Errorf("%s: %s is replaced by the path %s", name, r.Old.Path, r.New.Path)
			}
		}
	}
	ask(t, "list", "-mod=readonly", "-deps", "-test", "./...") // go.mod and go.sum are complete
	ask(t, "list", "-mod=readonly", "-modfile=deploy/tools/go.mod", "-deps", "tool")
}

// Tools and parts have their versions in the tree: nothing is "the latest".
func TestToolsArePinned(t *testing.T) {
	floating := regexp.MustCompile(`@latest|@master|@main\b|go install |npx |curl |wget `)
	files := []string{"Makefile", ".ci/run"}
	err := filepath.WalkDir(filepath.Join(root, "deploy", "local"), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasSuffix(path, "_test.go") {
			rel, _ := filepath.Rel(root, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if m := floating.Find(data); m != nil {
			t.Errorf("%s: %q takes whatever version there is", name, m)
		}
	}
}

// programs are what a release holds.
var programs = []string{"./cmd/millrace", "./cmd/millrace-clickhouse"}

// module is one that is linked into a program.
type module struct{ Path, Version, Dir string }

// linked gives the modules of both programs but our own, sorted.
func linked(t *testing.T) []module {
	t.Helper()
	args := append([]string{"list", "-mod=readonly", "-deps", "-json=Module"}, programs...)
	found := map[string]module{}
	for d := json.NewDecoder(strings.NewReader(ask(t, args...))); ; {
		var p struct {
			Module *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if m := p.Module; m != nil && !m.Main {
			found[m.Path] = module{m.Path, m.Version, m.Dir}
		}
	}
	var all []module
	for _, m := range found {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	if len(all) < 20 {
		t.Fatalf("%d modules, want all", len(all))
	}
	return all
}

// permitted are the licences that may be linked, by their names of SPDX, with words
// that stand in each and not in the ones above it.
var permitted = []struct{ name, words string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License, version 2.0"}, // linked unchanged, as its section 3.2 asks
	{"BSD-3-Clause", "Neither the name of"},
	{"BSD-3-Clause", "may be used to endorse or promote products"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted"},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby granted"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"Unlicense", "This is free and unencumbered software released into the public domain"},
}

// refused are licences that must not be: their words may stand beside those of others.
var refused = []string{"GNU GENERAL PUBLIC LICENSE", "GNU AFFERO", "GNU LESSER", "Server Side Public License", "Business Source License", "Commons Clause", "Elastic License"}

// elsewhere are modules whose licence stands in another file.
var elsewhere = map[string]string{"github.com/JohnCGriffin/overflow": "README.md"}

const licenses = "deploy/security/licenses.txt"

// license gives a module's licence and what its files hash to: a licence that changes
// is to be read again.
func license(m module) (name, hash string, err error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return "", "", err
	}
	sum := sha256.New()
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(upper, "LICEN") && !strings.HasPrefix(upper, "COPYING") && !strings.HasPrefix(upper, "UNLICENSE") && e.Name() != elsewhere[m.Path] {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return "", "", err
		}
		sum.Write(text)
		words := strings.Join(strings.Fields(string(text)), " ")
		for _, bad := range refused {
			if strings.Contains(words, bad) && name == "" {
				return "", "", fmt.Errorf("%s: its licence is %q", m.Path, bad)
			}
		}
		for _, p := range permitted {
			if strings.Contains(strings.ToLower(words), strings.ToLower(p.words)) {
				if name == "" {
					name = p.name
				}
				break
			}
		}
	}
	if name == "" {
		return "", "", fmt.Errorf("%s: its licence is none of those that may be linked", m.Path)
	}
	return name, hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// Every module that is linked has a licence that permits it, and stands in the list
// with the licence that was read. A new one, or another licence, fails here.
func TestLicenses(t *testing.T) {
	var b strings.Builder
	b.WriteString("# The modules that are linked into the programs: licence, and a hash of its text.\n# go test ./deploy/security -run TestLicenses -update writes it; read what has changed.\n")
	for _, m := range linked(t) {
		name, hash, err := license(m)
		if err != nil {
			t.Error(err)
			continue
		}
		fmt.Fprintf(&b, "%s %s %s\n", m.Path, name, hash)
	}
	path := filepath.Join(root, licenses)
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (-want +got), -update writes it once it was read:\n%s", licenses, diff)
	}
}
