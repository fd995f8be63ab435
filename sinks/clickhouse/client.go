package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/schemas"
)

// client speaks with one ClickHouse server. It keeps connections; it owns no
// goroutine of its own.
type client struct {
	wire   wire
	config Config
	at     address
	login  *login
}

// wire carries statements and rows to one server: HTTP or ClickHouse's native TCP
// protocol. Both give the server the same statements and settings.
type wire interface {
	// exec runs one statement that has no rows to send and gives the answer's text.
	// ctx bounds it.
	exec(ctx context.Context, database, sql string, settings []string) (string, error)
	// insert makes one INSERT of a record, once, as one block, and returns when the
	// server has answered or can no longer answer. ctx carries no deadline; when it
	// ends, the connection is cut. The record is not touched after insert returned.
	insert(ctx context.Context, in insertion) (outcome, error)
	// reads gives clickhouse-go's pool for SELECTs, opened at first use.
	reads() (driver.Conn, error)
	// close drops idle connections.
	close() error
}

// insertion is one INSERT of a record.
type insertion struct {
	id        string
	statement string // without its FORMAT, which is the wire's business
	settings  []string
	table     schemas.Table
	record    arrow.Record
	written   chan struct{} // closed by the wire when the record has gone to the socket
}

// outcome is how far a request came.
type outcome struct {
	// connected is set once a connection was there: from then on bytes may have
	// reached the server.
	connected bool
	// written is how many rows the server says it wrote; -1 when it does not say.
	written int64
}

// newClient connects to nothing. The configuration is valid.
func newClient(c Config, url string, who *login) (*client, error) {
	at, err := parseAddress(url)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	tlsConfig, err := c.tlsConfig(at)
	if err != nil {
		return nil, err
	}
	cl := &client{config: c, at: at, login: who}
	if at.native {
		cl.wire = newNative(c, at, tlsConfig, who)
	} else {
		cl.wire = newHTTP(c, at, tlsConfig, who)
	}
	return cl, nil
}

// honest are settings that go with every question and statement of our own: a
// profile must not answer a probe from a cache, or leave out rows without saying
// so.
var honest = []string{
	"use_query_cache=0",
	"limit=0",
	"offset=0",
	"max_rows_to_read=0",
	"max_bytes_to_read=0",
	"read_overflow_mode=throw",
	"result_overflow_mode=throw",
	"timeout_overflow_mode=throw",
	"aggregate_functions_null_for_empty=0",
	"join_use_nulls=0",
}

// exec runs one statement of our own that has no rows to send and gives the
// answer's text. database is what unqualified names mean; "" is for statements
// that name everything in full, which is needed before the database exists.
//
// Errors: *ServerError or clickhouse-go's exception when the server answered.
func (c *client) exec(ctx context.Context, database, sql string, settings ...string) (string, error) {
	return c.execRaw(ctx, database, sql, slices.Concat(honest, settings)...)
}

// execRaw is exec without settings of our own: for what people ask.
func (c *client) execRaw(ctx context.Context, database, sql string, settings ...string) (string, error) {
	ctx, cancel := patience(ctx, c.config.QueryTimeout)
	defer cancel()
	text, err := c.wire.exec(ctx, database, sql, settings)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return text, err
}

var errPatience = errors.New("no answer within query_timeout")

// patience bounds ctx without giving it a deadline: clickhouse-go would send one to
// the server as the setting max_execution_time.
func patience(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	bounded, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	timer := time.AfterFunc(most, func() { cancel(errPatience) })
	return bounded, func() {
		stop()
		timer.Stop()
		cancel(nil)
	}
}

func shorten(s string) string {
	const most = 1500
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}
