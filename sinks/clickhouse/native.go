package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	native "github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// nativeWire speaks ClickHouse's native TCP protocol. Questions go through
// clickhouse-go. INSERTs go through ch-go, which sends the statement as it stands
// and the record's own memory as one block, each over a connection of its own: the
// dial and the handshake take a millisecond, and a connection that broke while it
// lay idle never puts a piece in doubt.
type nativeWire struct {
	config Config
	at     address
	tls    *tls.Config // nil without TLS
	login  *login

	mu    sync.Mutex
	conns map[string]driver.Conn // for questions, by database, opened at first use
}

// newNative connects to nothing.
func newNative(c Config, at address, tlsConfig *tls.Config, who *login) *nativeWire {
	return &nativeWire{config: c, at: at, tls: tlsConfig, login: who, conns: map[string]driver.Conn{}}
}

// close drops idle connections.
func (n *nativeWire) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var faults []error
	for _, conn := range n.conns {
		faults = append(faults, conn.Close())
	}
	clear(n.conns)
	return errors.Join(faults...)
}

// anyDatabase is what a connection names before our own database exists: a
// connection must name one that does.
const anyDatabase = "system"

// reads gives the pool on the sink's database.
func (n *nativeWire) reads() (driver.Conn, error) { return n.conn(n.config.Database) }

func (n *nativeWire) conn(database string) (driver.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if conn, ok := n.conns[database]; ok {
		return conn, nil
	}
	conn, err := ch.Open(&ch.Options{
		Addr:            []string{n.at.host},
		TLS:             n.tls,
		Auth:            ch.Auth{Database: database, Username: n.login.user, Password: n.login.secret().Reveal()},
		DialTimeout:     n.config.DialTimeout,
		ReadTimeout:     n.config.QueryTimeout,
		MaxOpenConns:    16,
		MaxIdleConns:    4,
		ConnMaxLifetime: 5 * time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("clickhouse: open: %w", err)
	}
	n.conns[database] = conn
	return conn, nil
}

// answering are the statements that answer with rows.
var answering = map[string]bool{
	"SELECT": true, "WITH": true, "SHOW": true, "EXPLAIN": true, "DESCRIBE": true, "DESC": true, "EXISTS": true, "CHECK": true,
}

// exec runs one statement that has no rows to send. The native protocol leaves the
// text of an answer to the client: see writeText for the formats that there are.
func (n *nativeWire) exec(ctx context.Context, database, sql string, settings []string) (string, error) {
	if database == "" {
		database = anyDatabase
	}
	conn, err := n.conn(database)
	if err != nil {
		return "", err
	}
	sent := ch.Settings{}
	for _, pair := range settings {
		name, value, _ := strings.Cut(pair, "=")
		sent[name] = value
	}
	ctx = ch.Context(ctx, ch.WithSettings(sent))
	if verb, _, _ := strings.Cut(strings.TrimSpace(sql), " "); !answering[strings.ToUpper(verb)] {
		return "", conn.Exec(ctx, sql)
	}
	sql, format := cutFormat(sql)
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	return writeText(rows, format)
}

// insert sends one INSERT over a connection of its own.
//
// When ctx ends the connection is closed, whatever is under way on it. ch-go does
// not see ctx: it would send the server a cancellation, and a deadline with it.
func (n *nativeWire) insert(ctx context.Context, in insertion) (outcome, error) {
	out := outcome{written: -1}
	input := nativeColumns(in.table, in.record)
	conn, err := n.dial(ctx)
	if err != nil {
		return out, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	client, err := n.handshake(ctx, conn)
	if err != nil {
		return out, serverError(err)
	}
	out.connected = true
	settings := make([]native.Setting, len(in.settings))
	for i, pair := range in.settings {
		name, value, _ := strings.Cut(pair, "=")
		settings[i] = native.Setting{Key: name, Value: value, Important: true} // An unknown one is an error.
	}
	err = client.Do(context.WithoutCancel(ctx), native.Query{
		Body:     in.statement + " FORMAT Native",
		QueryID:  in.id,
		Settings: settings,
		Input:    input,
		OnInput: func(context.Context) error { // The block has gone to the socket.
			close(in.written)
			input[0].Data = nothing{}
			return io.EOF
		},
		OnProgress: func(_ context.Context, p proto.Progress) error {
			out.written = max(out.written, 0) + int64(p.WroteRows)
			return nil
		},
	})
	return out, serverError(err)
}

// dial connects, with TLS where it is wanted.
func (n *nativeWire) dial(ctx context.Context) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: n.config.DialTimeout, KeepAlive: 15 * time.Second}
	if n.tls == nil {
		return dialer.DialContext(ctx, "tcp", n.at.host)
	}
	return (&tls.Dialer{NetDialer: dialer, Config: n.tls}).DialContext(ctx, "tcp", n.at.host)
}

// handshake logs in.
func (n *nativeWire) handshake(ctx context.Context, conn net.Conn) (*native.Client, error) {
	client, err := native.Connect(ctx, conn, native.Options{
		Database: n.config.Database, User: n.login.user, Password: n.login.secret().Reveal(),
		HandshakeTimeout: n.config.DialTimeout,
		ReadTimeout:      native.NoTimeout, // Our own watch decides.
	})
	if err != nil && !native.IsException(err) {
		return nil, fmt.Errorf("log in (is %s the native port? 9000, or 9440 with TLS): %w", n.at.host, err)
	}
	return client, err
}

// serverError gives the server's own words as a *ServerError, like HTTP does.
func serverError(err error) error {
	if e, ok := native.AsException(err); ok {
		return &ServerError{Code: int(e.Code), Text: shorten(fmt.Sprintf("Code: %d. %s", e.Code, e.Message))}
	}
	return err
}
