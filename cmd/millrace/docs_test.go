package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// docs are what users read.
var docs = []string{"../../README.md", "../../deploy/docs/*.md"}

// fence is a block of code in a document.
type fence struct {
	file string
	line int
	lang string
	run  bool // marked <!-- run -->: it is run against a demo
	text string
}

func (f fence) String() string { return fmt.Sprintf("%s:%d", f.file, f.line) }

// fences reads the blocks of all documents.
func fences(t *testing.T) []fence {
	t.Helper()
	var out []fence
	for _, pattern := range docs {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no document %q: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fencesOf(file, string(text))...)
		}
	}
	return out
}

func fencesOf(file, text string) (out []fence) {
	var open *fence
	mark := ""
	for i, line := range strings.Split(text, "\n") {
		switch lang, isFence := strings.CutPrefix(line, "```"); {
		case open != nil && isFence:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case isFence:
			open = &fence{file: filepath.Base(file), line: i + 1, lang: lang, run: mark == "<!-- run -->"}
			mark = ""
		case strings.TrimSpace(line) != "":
			mark = strings.TrimSpace(line)
		}
	}
	return out
}

// commandLines gives the commands of a block of shell text, continued lines joined.
func commandLines(text string) []string {
	var out []string
	for _, line := range strings.Split(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// words splits a simple command and drops what stands before and behind it:
// variables, a comment, a pipe, a redirection.
func words(line string) []string {
	var out []string
	for _, w := range regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`).FindAllString(line, -1) {
		if w == "|" || w == ">" || w == "<" || w == "&&" || w == "&" || strings.HasPrefix(w, "#") {
			break
		}
		if len(out) == 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(w) {
			continue
		}
		out = append(out, strings.Trim(w, `"'`))
	}
	return out
}

// Every command that a document names exists, with its flags and arguments, and so
// does every target of make.
func TestDocumentedCommandsExist(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range fences(t) {
		if f.lang != "sh" {
			continue
		}
		for _, line := range commandLines(f.text) {
			args := words(line)
			switch {
			case len(args) == 0:
			case args[0] == "make" && len(args) > 1:
				if !bytes.Contains(makefile, []byte("\n"+args[1]+":")) {
					t.Errorf("%v: make has no target %q", f, args[1])
				}
			case args[0] == "millrace":
				found++
				if err := exists(args[1:]); err != nil {
					t.Errorf("%v: %s: %v", f, line, err)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no document names a command")
	}
}

// exists parses a command line without running it.
func exists(args []string) error {
	root := newRootCommand()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if cmd == root && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("no command %q", args[0])
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateArgs(cmd.Flags().Args()))
}

// Every piece of configuration in a document has keys and values that exist.
func TestDocumentedConfigurationsAreKnown(t *testing.T) {
	for _, f := range fences(t) {
		if f.lang != "yaml" {
			continue
		}
		c := config.Default()
		if err := yaml.UnmarshalWithOptions([]byte(f.text), &c, yaml.Strict()); err != nil {
			t.Errorf("%v: %v", f, err)
		}
	}
}

// Blocks marked <!-- run --> do what they say, beside a running demo whose
// configuration is millrace.yaml in the working folder. Afterwards the demo still
// reconciles.
func TestDocumentedCommandsRun(t *testing.T) {
	program := pipelinetest.RequirePart(t, "MILLRACE_BIN")
	pipelinetest.RequirePart(t, localtest.EnvAzurite)
	pipelinetest.RequirePart(t, localtest.EnvLibrary)
	dir := t.TempDir()
	var result, log bytes.Buffer
	demo := exec.CommandContext(t.Context(), program, "demo", "--nics", "4", "--tuples-per-minute", "60", "--rate", "8000", "--dir", dir, "-o", "json")
	demo.Stdout, demo.Stderr = &result, &log
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- demo.Wait() }()
	waitUntilLive(t, dir, ended)
	ran := 0
	for _, f := range fences(t) {
		if f.run {
			ran++
			runBlock(t, f, dir, program)
		}
	}
	if ran == 0 {
		t.Error("no document marks a block to be run")
	}
	if err := demo.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the demo ends with %v\n%s\n%.3000s", err, result.String(), log.String())
	}
}

// waitUntilLive waits until the demo has landed its past hour, or most of it.
func waitUntilLive(t *testing.T, dir string, ended chan error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	address := regexp.MustCompile(`listen: "([^"]+)"`)
	for {
		select {
		case err := <-ended:
			t.Fatalf("the demo ended: %v", err)
		case <-ctx.Done():
			t.Fatal("the demo does not come up")
		case <-time.After(200 * time.Millisecond):
		}
		text, err := os.ReadFile(filepath.Join(dir, "millrace.yaml"))
		if err != nil {
			continue
		}
		m := address.FindSubmatch(text)
		if m == nil {
			continue
		}
		out, err := exec.CommandContext(ctx, "curl", "-sf", "http://"+string(m[1])+"/status").Output()
		if err == nil && regexp.MustCompile(`"landed":[1-9]\d{3}`).Match(out) {
			return
		}
	}
}

func runBlock(t *testing.T, f fence, dir, program string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", f.text)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s%.3000s", f, err, f.text, out)
	} else {
		t.Logf("%v\n%s%.2000s", f, f.text, out)
	}
}
