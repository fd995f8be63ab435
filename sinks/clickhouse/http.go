package clickhouse

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
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

// httpWire speaks HTTP with one ClickHouse. It keeps connections; it owns no
// goroutine of its own.
type httpWire struct {
	config Config
	at     address
	tls    *tls.Config // nil without TLS
	login  *login
	http   *http.Client

	mu   sync.Mutex
	conn driver.Conn // for reads, opened at first use
}

// newHTTP connects to nothing.
func newHTTP(c Config, at address, tlsConfig *tls.Config, who *login) *httpWire {
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
	return &httpWire{config: c, at: at, tls: tlsConfig, login: who, http: &http.Client{
		Transport: transport,
		// The headers carry the password: they go to the configured host only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// close drops idle connections.
func (c *httpWire) close() error {
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
func (c *httpWire) authenticate(h http.Header) {
	h.Del("Authorization")
	h.Set("X-ClickHouse-User", c.login.user)
	if password := c.login.secret(); !password.IsZero() {
		h.Set("X-ClickHouse-Key", password.Reveal())
	}
}

// request builds a POST with the given parameters.
func (c *httpWire) request(ctx context.Context, params url.Values, body io.Reader) (*http.Request, error) {
	u := *c.at.url
	u.RawQuery = params.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return nil, withoutURL(err)
	}
	c.authenticate(req.Header)
	req.Header.Set("User-Agent", "millrace")
	return req, nil
}

// exec runs one statement that has no rows to send.
func (c *httpWire) exec(ctx context.Context, database, sql string, settings []string) (string, error) {
	req, err := c.request(ctx, parameters(database, settings), strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", withoutURL(err)
	}
	return c.answer(resp)
}

// parameters are the URL's: the database, "" for the user's default, and settings.
func parameters(database string, settings []string) url.Values {
	params := url.Values{}
	for _, pair := range settings {
		name, value, _ := strings.Cut(pair, "=")
		params.Set(name, value)
	}
	if database != "" {
		params.Set("database", database)
	}
	return params
}

// insert posts the record as an ArrowStream, with the statement in the URL.
func (c *httpWire) insert(ctx context.Context, in insertion) (outcome, error) {
	params := parameters(c.config.Database, in.settings)
	params.Set("query", in.statement+" FORMAT ArrowStream")
	params.Set("query_id", in.id)
	body := newBody(in.record, in.written)
	out, err := c.send(ctx, params, body)
	// The server may answer before it read everything: then the connection is
	// closed, and the writer ends with it.
	body.finish()
	if err == nil && body.err != nil {
		err = body.err
	}
	return out, err
}

// send posts a body that is streamed, without any deadline.
func (c *httpWire) send(ctx context.Context, params url.Values, body io.Reader) (outcome, error) {
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
	text, err := c.answer(resp)
	out.written = writtenRows(resp.Header)
	if err == nil && text != "" {
		// An INSERT answers nothing. Text behind a good status is an exception that
		// came after the headers, or the page of something in between.
		err = fmt.Errorf("unexpected text in the answer: %s", shorten(c.masked(text)))
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

// answer reads a response to its end. Something in between that sends back what it
// was sent does not get our password into an error.
func (c *httpWire) answer(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if code := resp.Header.Get("X-ClickHouse-Exception-Code"); code != "" || resp.StatusCode != http.StatusOK {
		n, _ := strconv.Atoi(code) // No number, no code: 0 says so.
		return "", &ServerError{Code: n, Status: resp.StatusCode, Text: shorten(c.masked(string(body)))}
	}
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	if strings.Contains(strings.ToLower(string(body)), passwordHeader) {
		return "", errors.New("the answer is what we sent, with our password: is this a ClickHouse?")
	}
	return string(body), nil
}

// passwordHeader is the header of the password, in lower case.
const passwordHeader = "x-clickhouse-key"

func (c *httpWire) masked(text string) string {
	if password := c.login.secret(); !password.IsZero() {
		return strings.ReplaceAll(text, password.Reveal(), password.String())
	}
	return text
}

// withoutURL takes the request's URL out of an error: it holds the statement.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// reads gives the connection pool for SELECTs, opened at first use: clickhouse-go
// over the same HTTP interface.
func (c *httpWire) reads() (driver.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	conn, err := ch.Open(&ch.Options{
		Protocol:    ch.HTTP,
		Addr:        []string{c.at.host},
		HttpUrlPath: c.at.url.Path,
		TLS:         c.tls,
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
	c    *httpWire
}

func (h headerAuth) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Response != nil || req.URL.Host != h.c.at.host {
		return nil, errors.New("the server redirects elsewhere: set url to where it redirects to")
	}
	req = req.Clone(req.Context())
	req.URL.User = nil
	h.c.authenticate(req.Header)
	resp, err := h.next.RoundTrip(req)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	// clickhouse-go makes an error of all that stands in it.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // as much as there is
	_ = resp.Body.Close()
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(h.c.masked(string(body)))), -1
	resp.Header.Del("Content-Length")
	return resp, nil
}

// CloseIdleConnections lets clickhouse-go's Close reach the transport: a server that
// is asked to stop waits for open connections.
func (h headerAuth) CloseIdleConnections() {
	if c, ok := h.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
