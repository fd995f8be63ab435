package demo

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/bench/traffic"
)

// controlled serves the control page of an estate whose simulation runs until it is
// told to stop.
func controlled(t *testing.T) (e *estate, url string) {
	t.Helper()
	simulator, err := traffic.New(traffic.DefaultConfig(), traffic.Deps{
		Blobs: traffic.Accounts{}, Publish: func(context.Context, string, []byte) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	e = &estate{simulator: simulator, stop: make(chan struct{}), ended: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newControlServer(e.control())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return e, "http://" + listener.Addr().String()
}

// The page answers beside a thousand clients that send a header byte by byte, and
// has nothing that it was not given.
func TestControlBesideSlowClients(t *testing.T) {
	_, url := controlled(t)
	for range 1000 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, "GET /status HTTP/1.1\r\nHost: x\r\nA: "); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	var status EstateStatus
	if err := (&demo{http: newClient()}).get(t.Context(), url+"/status", &status); err != nil || status.Stopped {
		t.Errorf("status %+v, %v", status, err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	for path, want := range map[string]int{"/": 404, "/debug/pprof/": 404, "/stop": 405, "/metrics": 404} {
		resp, err := newClient().Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

// A page of another site cannot stop the demo; the demo can, and its wait is longer
// than the time that a request may take to be read.
func TestControlStops(t *testing.T) {
	e, url := controlled(t)
	for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/stop", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(header, value)
		resp, err := newClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s %s: %s", header, value, resp.Status)
		}
	}
	answered := make(chan error, 1)
	go func() { answered <- (&demo{http: newClient()}).post(t.Context(), url+"/stop") }()
	<-e.stop
	close(e.ended)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	resp, err := newClient().Get(url + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var status EstateStatus
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil || !status.Stopped {
		t.Errorf("status %+v, %v", status, err)
	}
}
