// Command securityctl runs the tests of the security checklist and prints what came
// of them, the last line as JSON. Run it at the root of the tree: `make security`.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/millrace/millrace/deploy/security"
)

// Result is the last line.
type result struct {
	Lines         int `json:"lines"`
	Covered       int `json:"covered"` // whose tests have all passed
	NotApplicable int `json:"not_applicable"`
	Tests         int `json:"tests"` // that passed
	Failed        int `json:"failed"`
}

func main() {
	outcomes, err := runTests()
	if err != nil {
		fmt.Fprintln(os.Stderr, "securityctl:", err)
		os.Exit(1)
	}
	r := judge(os.Stdout, outcomes)
	line, err := json.Marshal(r)
	if err != nil {
		fmt.Fprintln(os.Stderr, "securityctl:", err)
		os.Exit(1)
	}
	fmt.Println(string(line))
	if r.Failed > 0 || r.Covered+r.NotApplicable < r.Lines {
		os.Exit(1)
	}
}

// judge says of every line what became of its tests. A test that was skipped, or that
// nobody ran, has not passed.
func judge(out io.Writer, outcomes map[string]string) result {
	r := result{Lines: len(security.Checklist)}
	seen := map[string]bool{}
	for _, line := range security.Checklist {
		if !line.Applies() {
			r.NotApplicable++
			fmt.Fprintf(out, "%-4s not yet  %s\n", line.ID, line.Later)
			continue
		}
		var bad []string
		for _, test := range line.Tests {
			passed := outcomes[test] == "pass"
			if !passed {
				bad = append(bad, fmt.Sprintf("%s: %s", test, outcomes[test]))
			}
			if seen[test] {
				continue
			}
			seen[test] = true
			if passed {
				r.Tests++
			} else {
				r.Failed++
			}
		}
		if len(bad) > 0 {
			fmt.Fprintf(out, "%-4s FAILED   %s\n", line.ID, strings.Join(bad, "; "))
			continue
		}
		r.Covered++
		fmt.Fprintf(out, "%-4s ok       %d tests: %s\n", line.ID, len(line.Tests), line.Rule)
	}
	return r
}

// runTests runs every test of the list once and gives its outcome: pass, fail, skip.
func runTests() (map[string]string, error) {
	var folders, names []string
	for _, line := range security.Checklist {
		for _, test := range line.Tests {
			folder, name := security.Place(test)
			folders, names = append(folders, "./"+folder), append(names, name)
		}
	}
	slices.Sort(folders)
	slices.Sort(names)
	args := []string{"test", "-count=1", "-json", "-timeout=15m", "-run", "^(" + strings.Join(slices.Compact(names), "|") + ")$"}
	cmd := exec.Command("go", append(args, slices.Compact(folders)...)...)
	cmd.Stderr = os.Stderr
	out, failed := cmd.Output()
	outcomes, err := outcomesOf(out)
	if err == nil && len(outcomes) == 0 {
		err = failed
	}
	return outcomes, err
}

const module = "github.com/millrace/millrace/"

// outcomesOf reads what `go test -json` says, and shows the output of what failed.
func outcomesOf(out []byte) (map[string]string, error) {
	outcomes, said := map[string]string{}, map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var e struct{ Action, Package, Test, Output string }
		if err := d.Decode(&e); err != nil {
			return nil, err
		}
		top, _, _ := strings.Cut(e.Test, "/")
		key := strings.TrimPrefix(e.Package, module) + "." + top
		switch e.Action {
		case "output":
			said[key] += e.Output
		case "pass", "skip", "fail":
			if e.Action == "fail" && (top == e.Test) {
				fmt.Print(said[key])
			}
			if e.Test == top && e.Test != "" {
				outcomes[key] = e.Action
			}
		}
	}
	return outcomes, nil
}
