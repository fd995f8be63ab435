package jobtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// AddressesTwice answers 0 when no tuple address is twice in flows, which is what
// "exactly once" means for the table.
const AddressesTwice = "SELECT count() - uniqExact(blob, generation, record_offset, ordinal) FROM millrace.flows"

// Command runs millrace with the world's configuration and gives what it printed.
func (w *World) Command(args ...string) (out string, code int) {
	w.T.Helper()
	file := filepath.Join(w.T.TempDir(), "millrace.yaml")
	if err := os.WriteFile(file, []byte(w.YAML), 0o600); err != nil {
		w.T.Fatal(err)
	}
	cmd := exec.Command(pipelinetest.RequirePart(w.T, EnvProgram), append(args, "--config", file)...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.T.Fatal(err)
	}
	w.T.Logf("millrace %s: exit code %d\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), text)
	return string(text), cmd.ProcessState.ExitCode()
}

// Must is Command that has to go well.
func (w *World) Must(args ...string) string {
	w.T.Helper()
	out, code := w.Command(args...)
	if code != 0 {
		w.T.Fatalf("millrace %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// More waits until so many further rows have landed.
func (w *World) More(rows uint64) {
	w.T.Helper()
	before := w.Number("SELECT count() FROM millrace.flows")
	w.WaitUntil("more rows", func() bool { return w.Number("SELECT count() FROM millrace.flows") > before+rows })
}

// Exact compares everything with the truth.
func (w *World) Exact(tuples uint64) {
	w.T.Helper()
	for what, c := range map[string]struct {
		sql  string
		want uint64
	}{
		"rows":                                 {"SELECT count() FROM millrace.flows", tuples},
		"tuple addresses that are there twice": {AddressesTwice, 0},
		"rows in windows":                      {"SELECT sum(rows) FROM millrace.windows_traffic_1m", tuples},
		"rows in windows of 5 min":             {"SELECT sum(rows) FROM millrace.windows_rules_5m", tuples},
		"groups whose windows differ":          {windowsDiffer(windows[0][0], windows[0][1], windows[0][2]), 0},
		"rows in batches":                      {"SELECT sum(rows) FROM millrace.batches FINAL", tuples},
	} {
		if got := w.Number(c.sql); got != c.want {
			w.T.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

// Ask gives the answer to a query, TabSeparated.
func (w *World) Ask(sql string) string {
	w.T.Helper()
	text, err := w.Tables.Exec(w.T.Context(), sql)
	if err != nil {
		w.T.Fatalf("%s: %v", sql, err)
	}
	return strings.TrimSpace(text)
}

// WaitFor asks until the answer is the wanted one.
func (w *World) WaitFor(sql, want string) {
	w.T.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		got := w.Ask(sql)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("%s: %s, want %s, after %v", sql, got, want, Patience)
		}
	}
}

// Number asks for one.
func (w *World) Number(sql string) uint64 {
	w.T.Helper()
	n, err := w.Count(sql)
	if err != nil {
		w.T.Fatalf("%s: %v", sql, err)
	}
	return n
}

// Count is Number of a server that may be away.
func (w *World) Count(sql string) (n uint64, err error) {
	text, err := w.Tables.Exec(w.T.Context(), sql)
	if err == nil {
		_, err = fmt.Sscan(text, &n)
	}
	return n, err
}

// WaitUntil asks until the condition holds.
func (w *World) WaitUntil(what string, holds func() bool) {
	w.T.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.T.Fatalf("no %s within %v", what, Patience)
		}
	}
}
