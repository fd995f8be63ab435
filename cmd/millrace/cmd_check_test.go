package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runCheck gives what `millrace check` printed and its exit code.
func runCheck(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCommand()
	root.SetArgs(append([]string{"check"}, args...))
	root.SetOut(&out)
	err := root.ExecuteContext(t.Context())
	var e *exitError
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &e):
		return out.String(), e.code
	}
	t.Fatal(err)
	return "", 0
}

// Ten configurations that cannot work, and what is said to whoever wrote them.
func TestCheckTellsWhatToDo(t *testing.T) {
	t.Setenv("TEST_STORAGE_KEY", "aHVudGVyMg==")
	t.Setenv("TEST_EVENTHUBS", "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=x;SharedAccessKey=hunter2;UseDevelopmentEmulator=true")
	t.Setenv("TEST_PASSWORD", "hunter2")
	t.Chdir("testdata/check")
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) != 10 {
		t.Fatalf("%d configurations, want 10: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			args := []string{"-c", file, "--offline"}
			if strings.HasPrefix(file, "10_") {
				args = args[:2]
			}
			have, code := runCheck(t, args...)
			if code != exitFailed {
				t.Errorf("exit code %d, want %d", code, exitFailed)
			}
			if strings.Contains(have, "hunter2") || strings.Contains(have, "aHVudGVyMg") {
				t.Errorf("it shows a secret:\n%s", have)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(have), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), have); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckGood(t *testing.T) {
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	sample, err := os.ReadFile("../../deploy/millrace.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sample = bytes.Replace(sample, []byte("/var/lib/millrace"), []byte(t.TempDir()), 1)
	if err := os.WriteFile(file, sample, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MILLRACE_CLICKHOUSE_PASSWORD", "x")
	have, code := runCheck(t, "-c", file, "--offline", "-o", "json")
	var got struct {
		Findings []struct{ Level, Key string }
	}
	if err := json.Unmarshal([]byte(have), &got); err != nil || code != 0 || len(got.Findings) < 3 {
		t.Errorf("exit code %d, %v:\n%s", code, err, have)
	}
	for _, f := range got.Findings {
		if f.Level != "ok" {
			t.Errorf("the sample: %+v", f)
		}
	}
}

func TestCheckUsage(t *testing.T) {
	for _, args := range [][]string{{"-c", "none.yaml"}, {"-o", "xml"}, {"words"}} {
		if _, code := runCheck(t, args...); code != exitUsage {
			t.Errorf("check %v: exit code %d, want %d", args, code, exitUsage)
		}
	}
}
