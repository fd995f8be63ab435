package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/cmd/internal/reconcile"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// Names of the environment variables with the user and the password of a server
// that the user brings.
const (
	EnvClickHouseUser     = "MILLRACE_DEMO_CLICKHOUSE_USER"
	EnvClickHousePassword = "MILLRACE_DEMO_CLICKHOUSE_PASSWORD"
)

// ledgerShift is where a batch id has the id of its ledger: above 12 bits of shard
// and 36 of sequence.
const ledgerShift = 48

// tables is the demo's database and the questions that it asks there.
type tables struct {
	url      string
	server   Server // the user's own; zero for the embedded one
	database string
	version  string

	sink *clickhouse.Sink
	conn driver.Conn
	// since is the least batch id of this run; before and quarantinedBefore are what
	// earlier runs left in flows and in quarantine. All 0 in a new database.
	since, before, quarantinedBefore uint64
}

// open connects, which shows that the server is there and lets us in.
//
// Errors: the URL, the user, a server that does not answer, each with what to do.
func (t *tables) open(ctx context.Context) error {
	cfg := clickhouse.DefaultConfig()
	// Our own database does not exist yet: names are written in full.
	cfg.URL, cfg.Database, cfg.QueryTimeout = t.url, "system", time.Hour
	if t.server.User != "" {
		cfg.User, cfg.Password = t.server.User, t.server.Password
	}
	sink, err := clickhouse.New(cfg, nil)
	if err != nil {
		return err
	}
	t.sink = sink
	if t.conn, err = sink.Conn(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := t.conn.QueryRow(ctx, "SELECT version()").Scan(&t.version); err != nil {
		return fmt.Errorf("ask ClickHouse at %s as user %q: %w: check that it runs, and %s and %s", t.url, cfg.User, err, EnvClickHouseUser, EnvClickHousePassword)
	}
	return nil
}

func (t *tables) close() {
	if t.sink != nil {
		_ = t.sink.Close() // nothing is buffered in it
	}
}

// keep notes what earlier runs have left, so that this run can be told from them:
// it gets a ledger of its own, with the next id.
func (t *tables) keep(ctx context.Context) error {
	there, err := t.count(ctx, "SELECT count() FROM system.tables WHERE name IN ('flows', 'quarantine', 'ledgers') AND database = "+schemas.QuoteString(t.database))
	if err != nil || there < 3 {
		return err
	}
	var newest uint16
	if err := t.conn.QueryRow(ctx, "SELECT max(ledger) FROM "+t.table("ledgers")).Scan(&newest); err != nil {
		return err
	}
	t.since = (uint64(newest) + 1) << ledgerShift
	if t.before, err = t.rows(ctx, "flows"); err != nil {
		return err
	}
	t.quarantinedBefore, err = t.rows(ctx, "quarantine")
	return err
}

// table gives the full name of a table.
func (t *tables) table(name string) string { return t.database + "." + name }

// held gives everything that is compared of this run.
func (t *tables) held(ctx context.Context) (reconcile.Contents, error) {
	return reconcile.Tables{Conn: t.conn, Database: t.database, Since: t.since}.Read(ctx)
}

// count asks for one number.
func (t *tables) count(ctx context.Context, sql string) (n uint64, err error) {
	return n, t.conn.QueryRow(ctx, sql).Scan(&n)
}

// rows counts a whole table; the server has the number at hand.
func (t *tables) rows(ctx context.Context, table string) (uint64, error) {
	return t.count(ctx, "SELECT count() FROM "+t.table(table))
}

// landed counts the rows of this run.
func (t *tables) landed(ctx context.Context) (uint64, error) {
	n, err := t.rows(ctx, "flows")
	return n - min(n, t.before), err
}

// quarantined counts the entries of this run.
func (t *tables) quarantined(ctx context.Context) (uint64, error) {
	n, err := t.rows(ctx, "quarantine")
	return n - min(n, t.quarantinedBefore), err
}

// login tells people who they are there.
func (t *tables) login() string {
	switch {
	case t.server.URL == "":
		return "user default, no password"
	case t.server.User == "":
		return "your server, user default"
	}
	return "your server, user from " + EnvClickHouseUser
}

// curlLogin gives the options of curl that log in, which keep the password in the
// environment.
func (t *tables) curlLogin() string {
	if t.server.User == "" {
		return ""
	}
	return fmt.Sprintf(`--user "$%s:$%s" `, EnvClickHouseUser, EnvClickHousePassword)
}
