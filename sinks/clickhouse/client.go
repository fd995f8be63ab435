package clickhouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// insertReadTimeout is how long the answer to an INSERT may take. It is no
// deadline but a backstop: watch decides earlier, from what the server says.
const insertReadTimeout = 24 * time.Hour

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// client speaks HTTP with one ClickHouse. It keeps connections; it owns no
// goroutine of its own.
type client struct {
	config Config
	base   *url.URL
	http   *http.Client

	mu   sync.Mutex
	conn driver.Conn // for reads, opened at first use
}

// newClient checks the configuration and connects to nothing.
func newClient(c Config) (*client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errors.New("clickhouse: url is no URL")
	}
	tlsConfig, err := c.tlsConfig(u)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: c.DialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   c.DialTimeout,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       5 * time.Second, // Shorter than any server's keep-alive.
		ResponseHeaderTimeout: insertReadTimeout,
		WriteBufferSize:       64 << 10,
		DisableCompression:    true,
	}
	return &client{config: c, base: u, http: &http.Client{
		Transport: transport,
		// The headers carry the password: they go to the configured host only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// close drops idle connections.
func (c *client) close() error {
	c.http.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// authenticate puts user and password where no log and no error shows them.
func (c *client) authenticate(h http.Header) {
	h.Del("Authorization")
	user := c.config.User
	if user == "" {
		user = "default"
	}
	h.Set("X-ClickHouse-User", user)
	if !c.config.Password.IsZero() {
		h.Set("X-ClickHouse-Key", c.config.Password.Reveal())
	}
}

// request builds a POST with the given parameters.
func (c *client) request(ctx context.Context, params url.Values, body io.Reader) (*http.Request, error) {
	u := *c.base
	u.RawQuery = params.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return nil, withoutURL(err)
	}
	c.authenticate(req.Header)
	req.Header.Set("User-Agent", "millrace")
	return req, nil
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
// answer's text. database is what unqualified names mean; "" means the user's
// default, which is needed before the database exists.
//
// Errors: *ServerError when the server answered.
func (c *client) exec(ctx context.Context, database, sql string, settings ...string) (string, error) {
	return c.execRaw(ctx, database, sql, slices.Concat(honest, settings)...)
}

// execRaw is exec without settings of our own: for what people ask.
func (c *client) execRaw(ctx context.Context, database, sql string, settings ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.QueryTimeout)
	defer cancel()
	params := url.Values{}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		params.Set(name, value)
	}
	if database != "" {
		params.Set("database", database)
	}
	req, err := c.request(ctx, params, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", withoutURL(err)
	}
	return answer(resp)
}

// outcome is how far a request came.
type outcome struct {
	// connected is set once a connection was there: from then on bytes may have
	// reached the server.
	connected bool
	// written is how many rows the server says it wrote; -1 when it does not say.
	written int64
}

// send posts a body that is streamed, without any deadline.
func (c *client) send(ctx context.Context, params url.Values, body io.Reader) (outcome, error) {
	out := outcome{written: -1}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { out.connected = true }}
	req, err := c.request(httptrace.WithClientTrace(ctx, trace), params, body)
	if err != nil {
		return out, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return out, withoutURL(err)
	}
	text, err := answer(resp)
	out.written = writtenRows(resp.Header)
	if err == nil && text != "" {
		// An INSERT answers nothing. Text behind a good status is an exception that
		// came after the headers, or the page of something in between.
		err = fmt.Errorf("unexpected text in the answer: %s", shorten(text))
	}
	return out, err
}

// writtenRows reads the server's own count out of the summary of a response.
func writtenRows(h http.Header) int64 {
	var summary struct {
		Written string `json:"written_rows"`
	}
	if json.Unmarshal([]byte(h.Get("X-ClickHouse-Summary")), &summary) != nil {
		return -1
	}
	n, err := strconv.ParseInt(summary.Written, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// answer reads a response to its end.
func answer(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if code := resp.Header.Get("X-ClickHouse-Exception-Code"); code != "" || resp.StatusCode != http.StatusOK {
		n, _ := strconv.Atoi(code) // No number, no code: 0 says so.
		return "", &ServerError{Code: n, Status: resp.StatusCode, Text: shorten(string(body))}
	}
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return string(body), nil
}

// withoutURL takes the request's URL out of an error: it holds the statement.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func shorten(s string) string {
	const most = 1500
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}

// reads gives the connection pool for SELECTs, opened at first use: clickhouse-go
// over the same HTTP interface.
func (c *client) reads() (driver.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	tlsConfig, err := c.config.tlsConfig(c.base)
	if err != nil {
		return nil, err
	}
	conn, err := ch.Open(&ch.Options{
		Protocol:    ch.HTTP,
		Addr:        []string{hostPort(c.base)},
		HttpUrlPath: c.base.Path,
		TLS:         tlsConfig,
		// The password stays out: without TLS clickhouse-go would write it into the URL.
		Auth:            ch.Auth{Database: c.config.Database, Username: "default"},
		TransportFunc:   func(t *http.Transport) (http.RoundTripper, error) { return headerAuth{t, c}, nil },
		DialTimeout:     c.config.DialTimeout,
		ReadTimeout:     c.config.QueryTimeout,
		MaxOpenConns:    16,
		MaxIdleConns:    4,
		ConnMaxLifetime: 5 * time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("clickhouse: open: %w", err)
	}
	c.conn = conn
	return conn, nil
}

// headerAuth authenticates the requests of clickhouse-go like our own, and follows
// no redirect: the password would go along.
type headerAuth struct {
	next http.RoundTripper
	c    *client
}

func (h headerAuth) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Response != nil || req.URL.Host != hostPort(h.c.base) {
		return nil, errors.New("the server redirects elsewhere: set url to where it redirects to")
	}
	req = req.Clone(req.Context())
	req.URL.User = nil
	h.c.authenticate(req.Header)
	return h.next.RoundTrip(req)
}

// CloseIdleConnections lets clickhouse-go's Close reach the transport: a server that
// is asked to stop waits for open connections.
func (h headerAuth) CloseIdleConnections() {
	if c, ok := h.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// hostPort gives the address with its port, the scheme's own when none is named.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
