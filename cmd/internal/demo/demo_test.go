package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const firstRows = `^first rows after`

// An interrupt drains, reconciles and ends within 15 s; SIGTERM is one too. The
// queries that the demo prints work when they are pasted.
func TestInterruptDrainsAndReconciles(t *testing.T) {
	t.Parallel()
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			r := startDemo(t, t.TempDir(), nil, "-o", "json")
			r.waitFor(firstRows)
			if s == os.Interrupt {
				tryQuestions(t, r)
			}
			r.signal(s)
			r.good()
			if _, took := r.wait(); took > 15*time.Second {
				t.Errorf("the end took %v, want at most 15 s", took)
			}
			if got := r.text(); !strings.Contains(got, "interrupted: draining") || !strings.Contains(got, "every tuple is in the tables exactly once") {
				t.Errorf("said:\n%s", got)
			}
		})
	}
}

// tryQuestions pastes the printed commands into a shell, and posts their queries.
func tryQuestions(t *testing.T, r *demoRun) {
	t.Helper()
	commands := regexp.MustCompile(`(?m)^  (curl -s '(.*)' --data-binary "(.*)")$`).FindAllStringSubmatch(r.text(), -1)
	if len(commands) != 3 {
		t.Fatalf("%d queries, want 3:\n%s", len(commands), r.text())
	}
	for _, c := range commands {
		// A table of PrettyCompact: a frame, names, and at least one row.
		table := server{url: c[2]}.query(t, c[3])
		if strings.Count(table, "\n") < 2 || !strings.Contains(table, "│") {
			t.Errorf("%s answers %q", c[3], table)
		}
		if _, err := exec.LookPath("curl"); err != nil {
			continue
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", c[1]).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "│") {
			t.Errorf("%s: %v: %s", c[1], err, out)
		}
	}
}

// A second interrupt kills what runs and says that nothing was compared.
func TestSecondInterruptKills(t *testing.T) {
	t.Parallel()
	r := startDemo(t, t.TempDir(), nil, "-o", "json", "--rate", "0")
	r.waitFor(firstRows)
	pids := childrenOf(t, r.cmd.Process.Pid)
	r.signal(os.Interrupt)
	r.waitFor("interrupted: draining")
	r.signal(os.Interrupt)
	code, took := r.wait()
	if code != 1 || took > 5*time.Second {
		t.Errorf("exit code %d after %v, want 1 at once", code, took)
	}
	if got := r.text(); !strings.Contains(got, "not reconciled") {
		t.Errorf("said:\n%s", got)
	}
	if got := strings.TrimSpace(r.out.String()); !strings.HasPrefix(got, `{"reconciled":false,"error":`) {
		t.Errorf("last line %q", got)
	}
	if left := alive(pids); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// An interrupt while the parts are starting ends the demo as well.
func TestInterruptWhileStarting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := startDemo(t, dir, nil)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "logs", "clickhouse.log")); err == nil {
			break // the first child is there
		}
		if time.Now().After(deadline) {
			t.Fatal("no child was started")
		}
	}
	pids := childrenOf(t, r.cmd.Process.Pid)
	r.signal(os.Interrupt)
	code, took := r.wait()
	if code != 1 || took > 15*time.Second || !strings.Contains(r.text(), "not reconciled: interrupted while starting") {
		t.Errorf("exit code %d after %v, said:\n%s", code, took, r.text())
	}
	if left := alive(pids); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// No child outlives a demo that was killed by more than two seconds, and the next
// one on the same folder works, with the tables kept too. A clean run after that
// begins with empty tables.
func TestKilledDemo(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT RUN: children are looked up in /proc")
	}
	t.Parallel()
	dir := t.TempDir()
	r := startDemo(t, dir, nil)
	r.waitFor(firstRows)
	pids := childrenOf(t, r.cmd.Process.Pid)
	if len(pids) != 4 {
		t.Fatalf("children %v, want ClickHouse, Azurite, the estate and the pipeline", pids)
	}
	r.signal(syscall.SIGKILL)
	time.Sleep(2 * time.Second)
	if left := alive(pids); len(left) > 0 {
		t.Fatalf("still running 2 s after kill -9: %v", left)
	}

	kept := startDemo(t, dir, nil, "--keep", "--for", "1s", "-o", "json")
	kept.waitFor(`^kept: [1-9][0-9,]* rows`)
	first := kept.good()

	again := startDemo(t, dir, nil, "--keep", "--for", "1s", "-o", "json")
	rows := again.waitFor(`^kept: ([0-9,]+) rows`)[1]
	again.good()
	if n := strings.ReplaceAll(rows, ",", ""); len(n) < 3 || first.RowsLanded == 0 {
		t.Errorf("%s rows kept after %d more had landed", rows, first.RowsLanded)
	}

	clean := startDemo(t, dir, nil, "--for", "1s", "-o", "json")
	clean.waitFor(firstRows)
	url := clean.waitFor(`^ClickHouse: (http\S+)`)[1]
	ledgers := server{url: url}.query(t, "SELECT uniqExact(bitShiftRight(batch_id, 48)) FROM millrace.flows")
	if ledgers != "1" {
		t.Errorf("rows of %s ledgers, want those of one", ledgers)
	}
	clean.good()
}

// Tables with the blobs of a seed cannot take them a second time.
func TestKeepRefusesTheSameSeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startDemo(t, dir, nil, "--seed", "7", "--for", "1s", "-o", "json").good()
	r := startDemo(t, dir, nil, "--seed", "7", "--keep")
	if code, _ := r.wait(); code != 1 || !strings.Contains(r.text(), "choose another --seed") {
		t.Errorf("exit code %d, said:\n%s", code, r.text())
	}
}

// A row that somebody took away and one that somebody doubled are found, and the
// exit code says so.
func TestDamageIsTheExitCode(t *testing.T) {
	t.Parallel()
	r := startDemo(t, t.TempDir(), nil, "-o", "json")
	r.waitFor(firstRows)
	s := server{url: r.waitFor(`^ClickHouse: (http\S+)`)[1]}
	rows := strings.Split(s.query(t, `SELECT format('blob = \'{}\' AND record_offset = {} AND ordinal = {}', blob, toString(record_offset), toString(ordinal))
		FROM millrace.flows LIMIT 2 FORMAT TSVRaw`), "\n")
	s.query(t, "INSERT INTO millrace.flows SELECT * FROM millrace.flows WHERE "+rows[0])
	s.query(t, "ALTER TABLE millrace.flows DELETE WHERE "+rows[1]+" SETTINGS mutations_sync = 2")
	r.signal(os.Interrupt)
	code, _ := r.wait()
	if res := r.result(); code != 1 || res.Lost != 1 || res.Duplicated != 1 || !res.Reconciled {
		t.Errorf("exit code %d, result %+v, want 1 lost and 1 duplicated", code, res)
	}
	if !strings.Contains(r.text(), "THE TABLES DO NOT MATCH") {
		t.Errorf("said:\n%s", r.text())
	}
}

// Two demos that start in the same moment both work, on ports and in folders of
// their own.
func TestTwoDemosAtOnce(t *testing.T) {
	t.Parallel()
	cache := t.TempDir() // without parts: their places are in the environment
	var runs [2]*demoRun
	for i := range runs {
		runs[i] = startDemo(t, "", []string{"MILLRACE_CACHE=" + cache}, "-o", "json")
	}
	urls := map[string]bool{}
	for _, r := range runs {
		for _, pattern := range []string{`^ClickHouse: (http\S+)`, `^blobs: +(http\S+)`, `estate: (http\S+)`, `^pipeline: +(http\S+)`} {
			urls[r.waitFor(pattern)[1]] = true
		}
		r.waitFor(firstRows)
	}
	if len(urls) != 8 {
		t.Errorf("addresses %v, want 8 different ones", urls)
	}
	for _, r := range runs {
		r.signal(os.Interrupt)
	}
	for _, r := range runs {
		r.good()
	}
	said := runs[0].text() + runs[1].text()
	if !strings.Contains(said, "is busy: ") || !strings.Contains(said, "another demo is running: this one uses the folder "+filepath.Join(cache, "demo-2")) {
		t.Error("nobody said that a port and a folder had moved")
	}
}

// A folder in which a demo runs is refused.
func TestBusyFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := LockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	r := startDemo(t, dir, nil)
	if code, _ := r.wait(); code != 1 || !strings.Contains(r.text(), "another demo is running in it: stop that one, or name another folder with --dir") {
		t.Errorf("exit code %d, said:\n%s", code, r.text())
	}
}

// The pipeline is killed twenty times, and nothing is lost or doubled.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: takes a minute")
	}
	t.Parallel()
	r := startDemo(t, t.TempDir(), nil, "--chaos", "--kills", "20", "--for", "20s", "--rate", "3000", "-o", "json")
	if res := r.good(); res.Kills != 20 || !res.FetchedIsAbout {
		t.Errorf("result %+v, want 20 kills", res)
	}
	text := r.text()
	for _, want := range []string{"chaos 1 of 20: pipeline ", "killed with SIGKILL, starting it again", "chaos 20 of 20: recovered and live after", "fetched about"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in what was said", want)
		}
	}
}

// When a child ends, the demo says which, with its last words.
func TestChildDies(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT RUN: children are looked up in /proc")
	}
	t.Parallel()
	for _, c := range []struct{ program, want string }{
		{"node", "millrace: demo: azurite ended: signal: killed"},
		{"millrace", "millrace: demo: (estate|pipeline) ended: signal: killed"},
		{"millrace-clickhouse", "millrace: demo: clickhouse ended: signal: killed"},
	} {
		t.Run(c.program, func(t *testing.T) {
			r := startDemo(t, t.TempDir(), nil)
			r.waitFor(firstRows)
			pids := childrenOf(t, r.cmd.Process.Pid)
			for pid, name := range pids {
				if name == c.program {
					_ = syscall.Kill(pid, syscall.SIGKILL) // seen a moment ago
					break
				}
			}
			code, _ := r.wait()
			if code != 1 || !regexp.MustCompile(c.want).MatchString(r.text()) || !strings.Contains(r.text(), "logs of all parts: "+r.dir) {
				t.Errorf("exit code %d, children %v, said:\n%s", code, pids, r.text())
			}
			if left := alive(pids); len(left) > 0 {
				t.Errorf("still running: %v", left)
			}
		})
	}
}

// A ClickHouse that aborts under load comes again on the same ports, and the
// pipeline finds out what had landed.
func TestAbortedServerComesAgain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT RUN: children are looked up in /proc")
	}
	t.Parallel()
	r := startDemo(t, t.TempDir(), nil, "--for", "6s", "-o", "json")
	r.waitFor(firstRows)
	for pid, name := range childrenOf(t, r.cmd.Process.Pid) {
		if name == "millrace-clickhouse" {
			_ = syscall.Kill(pid, syscall.SIGABRT) // seen a moment ago
		}
	}
	r.waitFor("^ClickHouse aborted, starting it again")
	r.good()
}

// A server of the user's gets a database of its own, by user and password from the
// environment, and keeps what it had.
func TestOwnServer(t *testing.T) {
	t.Parallel()
	const password = "a password: with 'signs'"
	s := startServer(t, password)
	s.query(t, "CREATE DATABASE mine ENGINE = Atomic")
	s.query(t, "CREATE TABLE mine.flows (n UInt8) ENGINE = MergeTree ORDER BY n")
	dir := t.TempDir()
	env := []string{EnvClickHouseUser + "=" + s.user, EnvClickHousePassword + "=" + password}
	r := startDemo(t, dir, env, "--clickhouse", s.url, "--for", "1s", "-o", "json")
	database := r.waitFor(`^ClickHouse: \S+   database (millrace_demo_\w+), your server, user from ` + EnvClickHouseUser)[1]
	r.good()
	if strings.Contains(r.text(), password) {
		t.Error("the password was printed")
	}
	startDemo(t, dir, env, "--clickhouse", s.url, "--for", "1s", "-o", "json").good()
	kept := startDemo(t, dir, env, "--clickhouse", s.url, "--keep", "--for", "1s", "-o", "json")
	kept.waitFor(`^kept: [1-9]`)
	kept.good()
	if got := s.query(t, "SELECT count() FROM system.databases WHERE name LIKE 'millrace_demo_%'"); got != "2" {
		t.Errorf("%s databases of demos, want 2", got)
	}
	if got := s.query(t, "SELECT count() FROM mine.flows"); got != "0" {
		t.Errorf("the user's own table answers %q", got)
	}
	if got := s.query(t, "SELECT count() > 0 FROM "+database+".flows"); got != "1" {
		t.Errorf("the database of the first demo answers %q", got)
	}
	config, err := os.ReadFile(filepath.Join(dir, configName))
	if err != nil || strings.Contains(string(config), password) {
		t.Errorf("the configuration holds the password, or is not there: %v", err)
	}
	wrong := startDemo(t, t.TempDir(), []string{EnvClickHouseUser + "=" + s.user, EnvClickHousePassword + "=wrong"}, "--clickhouse", s.url)
	if code, _ := wrong.wait(); code != 1 || !strings.Contains(wrong.text(), EnvClickHousePassword) {
		t.Errorf("exit code %d with a wrong password, said:\n%s", code, wrong.text())
	}
}
