package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const listenHost = "127.0.0.1"

// keeperUser is who we ask the server as: it sees queries and can kill them.
const keeperUser = "millrace_keeper"

// pollInterval is how often readiness is asked for; the start takes 300 ms.
const pollInterval = 25 * time.Millisecond

// control talks to the server of this process over HTTP, as any client does.
// The token marks the query that keeps the server alive, so that another
// ClickHouse which already sits on the port is never taken for ours.
type control struct {
	url    string
	token  string
	client *http.Client

	mu  sync.Mutex
	err error // Why the last readiness check said no.
}

func newToken() (string, error) {
	var b [12]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

func newControl(o options) *control {
	return &control{
		url:   fmt.Sprintf("http://%s:%d/", listenHost, o.httpPort),
		token: o.token,
		client: &http.Client{
			Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true},
			// Another process may have taken the port: it gets no way on.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// keepAliveQuery opens both listeners and then sleeps for ever. The local main
// function returns when its queries end, so this one has to last. It reads one
// row per second, never sends one anywhere, and can be killed like any query.
func (c *control) keepAliveQuery() string {
	return "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; " +
		"SELECT sleepEachRow(1), '" + c.token + "' FROM system.numbers " +
		"SETTINGS function_sleep_max_microseconds_per_block = 0, max_block_size = 1, " +
		"max_execution_time = 0, log_queries = 0 FORMAT Null"
}

// condition selects the keep-alive query of this process, and not the
// statement that asks for it.
func (c *control) condition() string {
	return "startsWith(query, 'SELECT sleepEachRow') AND position(query, '" + c.token + "') > 0"
}

// waitReady returns nil when the keep-alive query runs: both listeners are
// open then, as they stand before it in the list.
func (c *control) waitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		answer, err := c.query(ctx, "SELECT count() FROM system.processes WHERE "+c.condition())
		if err == nil && strings.TrimSpace(answer) == "1" {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("another server answers on %s", c.url)
		}
		if ctx.Err() == nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (c *control) lastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// stop ends the server softly by killing the keep-alive query: ClickHouse then
// leaves its main function in order. A second signal or the time limit ends
// the process at once, which loses nothing that was acknowledged.
func (c *control) stop(signals <-chan os.Signal) {
	deadline := time.After(stopTimeout)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		// The server may be gone before it answers: the error says nothing.
		_, _ = c.query(ctx, "KILL QUERY WHERE "+c.condition()+" ASYNC")
	}()
	select {
	case <-signals:
	case <-deadline:
	}
	os.Exit(0)
}

func (c *control) query(ctx context.Context, sql string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-ClickHouse-User", keeperUser)
	req.Header.Set("X-ClickHouse-Key", c.token)
	resp, err := c.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
