//go:build unix

package servers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// envHelper makes this test binary a parent that starts servers and waits to
// be killed.
const envHelper = "MILLRACE_SERVERS_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envHelper); dir != "" {
		helperParent(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func helperParent(dir string) {
	ctx := context.Background()
	ch, err := StartClickHouse(ctx, ClickHouseOptions{
		Bin: os.Getenv("MILLRACE_CLICKHOUSE_BIN"), Lib: os.Getenv("MILLRACE_LIBCHDB"), Dir: filepath.Join(dir, "clickhouse"),
	})
	if err == nil {
		var a *Azurite
		if a, err = StartAzurite(ctx, AzuriteOptions{Script: os.Getenv("MILLRACE_AZURITE"), Dir: dir}); err == nil {
			fmt.Printf("%d %d\n", ch.Pid(), a.Pid())
			select {}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func clickHouseOptions(t *testing.T) ClickHouseOptions {
	t.Helper()
	return ClickHouseOptions{
		Bin: pipelinetest.RequirePart(t, "MILLRACE_CLICKHOUSE_BIN"),
		Lib: pipelinetest.RequirePart(t, "MILLRACE_LIBCHDB"),
		Dir: t.TempDir(),
	}
}

func mustStart(t *testing.T, o ClickHouseOptions) *ClickHouse {
	t.Helper()
	ch, err := StartClickHouse(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ch.Kill)
	return ch
}

// ask returns the answer and the HTTP status of a query.
func ask(t *testing.T, url, user, password, sql string) (string, int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(user, password)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body)), resp.StatusCode
}

func TestServersDieWithAKilledParent(t *testing.T) {
	clickHouseOptions(t)
	pipelinetest.RequirePart(t, "MILLRACE_AZURITE")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	parent, err := process.Start(process.Config{
		Name: "parent", Path: os.Args[0], Env: []string{envHelper + "=" + t.TempDir()}, Stdout: in,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Kill()
	go func() { // End of output: the parent failed.
		<-parent.Done()
		in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, parent.Tail())
	}
	var pids []int
	for _, field := range strings.Fields(line) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	killed := time.Now()
	if err := syscall.Kill(parent.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		for running(pid) {
			if time.Since(killed) > 2*time.Second {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				t.Fatalf("server %d lives 2 s after kill -9 of its parent", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// running is false for a process that has ended, reaped or not.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestTwoServersPreferTheSamePorts(t *testing.T) {
	o := clickHouseOptions(t)
	first := mustStart(t, o)
	o.Dir, o.HTTPPort, o.TCPPort = t.TempDir(), first.HTTPPort, first.TCPPort
	second := mustStart(t, o)
	if !second.PortsMoved || second.HTTPPort == first.HTTPPort || second.TCPPort == first.TCPPort {
		t.Errorf("ports %d %d after %d %d, moved %t", second.HTTPPort, second.TCPPort, first.HTTPPort, first.TCPPort, second.PortsMoved)
	}
	for _, ch := range []*ClickHouse{first, second} {
		if got, _ := ask(t, ch.HTTPURL, "default", "", "SELECT 1"); got != "1" {
			t.Errorf("%s: SELECT 1 = %q", ch.HTTPURL, got)
		}
	}
}

func TestStopIsCleanAndKeepsThePort(t *testing.T) {
	o := clickHouseOptions(t)
	first := mustStart(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := first.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.Err(); err != nil {
		t.Errorf("exit after SIGTERM: %v, want code 0", err)
	}
	o.HTTPPort = first.HTTPPort
	if second := mustStart(t, o); second.HTTPPort != first.HTTPPort {
		t.Errorf("a restart moved from port %d to %d", first.HTTPPort, second.HTTPPort)
	}
}

// TestStopWithAnOpenConnection: an idle client must not hold the server back
// for long, nor make its end look like a failure.
func TestStopWithAnOpenConnection(t *testing.T) {
	ch := mustStart(t, clickHouseOptions(t))
	conn, err := net.Dial("tcp", ch.TCPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(ch.HTTPURL + "/ping")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	if err := ch.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := ch.Err(); err != nil {
		t.Errorf("exit with an idle connection: %v, want code 0", err)
	}
}

func TestPasswordIsAsked(t *testing.T) {
	o := clickHouseOptions(t)
	o.Password = "not so secret"
	ch := mustStart(t, o)
	if got, code := ask(t, ch.HTTPURL, ch.User, o.Password, "SELECT 1"); got != "1" {
		t.Errorf("with the password: %d %s", code, got)
	}
	ask(t, ch.HTTPURL, ch.User, o.Password, "CREATE DATABASE d ENGINE = Atomic")
	ask(t, ch.HTTPURL, ch.User, o.Password, "CREATE TABLE d.t ENGINE = MergeTree ORDER BY () AS SELECT 1 AS n")
	if got, code := ask(t, ch.HTTPURL, ch.User, o.Password, "SELECT n FROM d.t"); got != "1" {
		t.Errorf("own table with the password: %d %s", code, got)
	}
	for _, user := range []string{"default", ch.User, "millrace_keeper", ""} {
		for _, sql := range []string{"SELECT n FROM d.t", "INSERT INTO d.t SELECT 2", "DROP TABLE d.t", "CREATE DATABASE e"} {
			if got, code := ask(t, ch.HTTPURL, user, "", sql); code == http.StatusOK {
				t.Errorf("%q without the password: %s: %d %s, want a refusal", user, sql, code, got)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(o.Dir, "etc", "users.xml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), o.Password) {
		t.Error("the password stands in users.xml")
	}
}

// TestFilesOfTheMachineAreOutOfReach: the port has no password by default, so
// whoever reaches it must not read the user's files.
func TestFilesOfTheMachineAreOutOfReach(t *testing.T) {
	ch := mustStart(t, clickHouseOptions(t))
	secret := filepath.Join(t.TempDir(), "secret.txt")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(t, ch.HTTPURL, "default", "", "CREATE DATABASE d ENGINE = Atomic")
	for _, sql := range []string{
		fmt.Sprintf("SELECT * FROM file('%s', 'LineAsString')", secret),
		fmt.Sprintf("SELECT * FROM default.`%s`", secret),
		fmt.Sprintf("CREATE TABLE d.f (s String) ENGINE = File(LineAsString, '%s')", secret),
		"SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
		"BACKUP DATABASE d TO File('/tmp/backup')",
		"SYSTEM SHUTDOWN",
		"CREATE USER guest",
	} {
		got, code := ask(t, ch.HTTPURL, "default", "", sql)
		if code == http.StatusOK || !strings.Contains(got, "ACCESS_DENIED") {
			t.Errorf("%s: %d %s, want a refusal", sql, code, got)
		}
	}
}

func TestStartErrorsNameTheCause(t *testing.T) {
	o := clickHouseOptions(t)
	mustStart(t, o)
	used := o.Dir
	tests := []struct {
		name   string
		change func(*ClickHouseOptions)
		want   string
	}{
		{"folder in use", func(o *ClickHouseOptions) { o.Dir = used }, "already running"},
		{"no library", func(o *ClickHouseOptions) { o.Lib = "/no/such/libchdb.so" }, "/no/such/libchdb.so"},
		{"no program", func(o *ClickHouseOptions) { o.Bin = "/no/such/program" }, "/no/such/program"},
		{"bad configuration", func(o *ClickHouseOptions) { o.ExtraConfig = "/no/such.xml" }, "/no/such.xml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := o
			bad.Dir = t.TempDir()
			tt.change(&bad)
			ch, err := StartClickHouse(t.Context(), bad)
			if err == nil {
				ch.Kill()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want it to name %q", err, tt.want)
			}
		})
	}
}

func TestExtraConfigIsMerged(t *testing.T) {
	o := clickHouseOptions(t)
	o.ExtraConfig = filepath.Join(t.TempDir(), "mine.xml")
	text := "<clickhouse><macros><shard>s7</shard></macros></clickhouse>"
	if err := os.WriteFile(o.ExtraConfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ch := mustStart(t, o)
	if got, _ := ask(t, ch.HTTPURL, "default", "", "SELECT getMacro('shard')"); got != "s7" {
		t.Errorf("getMacro('shard') = %q, want s7", got)
	}
}

func TestMemoryLimitHolds(t *testing.T) {
	o := clickHouseOptions(t)
	o.MemoryLimit = 1 << 30
	ch := mustStart(t, o)
	got, _ := ask(t, ch.HTTPURL, "default", "", "SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage'")
	if got != strconv.Itoa(1<<30) {
		t.Errorf("max_server_memory_usage = %q, want %d", got, 1<<30)
	}
}
