package faults

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// stage is how far a request came before the pipeline died.
type stage string

const (
	unsent     stage = "reaches ClickHouse"       // nothing of it was passed on
	halfSent   stage = "has reached it whole"     // its body has begun and does not end
	unanswered stage = "is answered, though done" // ClickHouse has done it; the answer is lost
)

// relay stands between the pipeline and ClickHouse, counts the requests, and does
// something to one of them.
type relay struct {
	url    string
	number int64 // of the request, from 1; 0 is none
	stage  stage
	broken func() // called once, at that place
	asked  atomic.Int64
	next   http.RoundTripper
}

// startRelay listens until the test ends.
func startRelay(t *testing.T, target string, number int64, at stage, broken func()) *relay {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	r := &relay{number: number, stage: at, broken: broken, next: transport}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.Transport = r
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server := httptest.NewServer(proxy)
	r.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	return r
}

var errBroken = errors.New("the pipeline is dead")

// RoundTrip passes a request on, and its answer back.
func (r *relay) RoundTrip(req *http.Request) (*http.Response, error) {
	hit := r.asked.Add(1) == r.number
	switch {
	case hit && r.stage == unsent:
		r.broken()
		return nil, errBroken
	case hit && r.stage == halfSent:
		req.Body = &brokenBody{ReadCloser: req.Body, broken: r.broken}
	}
	resp, err := r.next.RoundTrip(req)
	if err != nil || !hit || r.stage != unanswered {
		return resp, err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // what it says is lost
	resp.Body.Close()
	r.broken()
	return nil, errBroken
}

// brokenBody gives the beginning of a body, and no end.
type brokenBody struct {
	io.ReadCloser
	broken func()
	begun  bool
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		n, err := b.ReadCloser.Read(p[:min(len(p), 512)])
		if err == nil || n == 0 {
			return n, err
		}
		return n, nil
	}
	b.broken()
	return 0, errBroken
}
