//go:build unix

package servers

import (
	"context"
	"database/sql"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// pythonClient writes rows, reads them back as columns and prints the sum.
const pythonClient = `
import sys
import clickhouse_connect
host, port, user, password = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
client = clickhouse_connect.get_client(host=host, port=port, username=user, password=password)
client.command("CREATE TABLE d.python (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
client.insert("d.python", [[i, "row %d" % i] for i in range(1000)], column_names=["n", "s"])
rows = client.query("SELECT n, s FROM d.python ORDER BY n").result_rows
assert rows[999] == (999, "row 999"), rows[999]
print(sum(n for n, _ in rows))
client.close()
`

// TestClientsOfOthers lets the clients people use judge the embedded server:
// clickhouse-go on both protocols, Python's clickhouse-connect, and curl.
func TestClientsOfOthers(t *testing.T) {
	o := clickHouseOptions(t)
	o.Password = "judge me"
	t.Setenv("TZ", "Europe/Berlin") // The server keeps UTC wherever it runs.
	ch := mustStart(t, o)
	if got, code := ask(t, ch.HTTPURL, ch.User, o.Password, "CREATE DATABASE d ENGINE = Atomic"); code != 200 {
		t.Fatal(got)
	}
	t.Run("clickhouse-go over HTTP", func(t *testing.T) {
		goClient(t, clickhouse.HTTP, strings.TrimPrefix(ch.HTTPURL, "http://"), ch.User, o.Password, "go_http")
	})
	t.Run("clickhouse-go over TCP", func(t *testing.T) {
		goClient(t, clickhouse.Native, ch.TCPAddr, ch.User, o.Password, "go_native")
	})
	t.Run("clickhouse-connect", func(t *testing.T) {
		python := pipelinetest.RequirePart(t, "MILLRACE_PYTHON")
		run(t, "499500", python, "-c", pythonClient, "127.0.0.1", fmt.Sprint(ch.HTTPPort), ch.User, o.Password)
	})
	t.Run("curl", func(t *testing.T) {
		if _, err := exec.LookPath("curl"); err != nil {
			t.Skip("NOT RUN: there is no curl on this machine")
		}
		run(t, "42", "curl", "--silent", "--fail", "--noproxy", "*", "--user", ch.User+":"+o.Password,
			"--data-binary", "SELECT 6 * 7", ch.HTTPURL)
	})
}

func goClient(t *testing.T, protocol clickhouse.Protocol, addr, user, password, table string) {
	t.Helper()
	db := clickhouse.OpenDB(&clickhouse.Options{
		Protocol: protocol, Addr: []string{addr},
		Auth:        clickhouse.Auth{Username: user, Password: password},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
	})
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := db.ExecContext(ctx, "CREATE TABLE d."+table+" (n UInt64, at DateTime64(3)) ENGINE = MergeTree ORDER BY n"); err != nil {
		t.Fatal(err)
	}
	insert(ctx, t, db, table)
	var sum uint64
	var zone string
	err := db.QueryRowContext(ctx, "SELECT sum(n), any(timezoneOf(at)) FROM d."+table).Scan(&sum, &zone)
	if err != nil || sum != 499500 || zone != "UTC" {
		t.Errorf("sum %d in zone %q, %v, want 499500 in UTC", sum, zone, err)
	}
}

// insert writes the numbers 0 to 999 as one block.
func insert(ctx context.Context, t *testing.T, db *sql.DB, table string) {
	t.Helper()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := tx.PrepareContext(ctx, "INSERT INTO d."+table)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for n := range uint64(1000) {
		if _, err := stmt.ExecContext(ctx, n, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, want, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != want {
		t.Errorf("%s: %q, %v, want %q", name, got, err, want)
	}
}
