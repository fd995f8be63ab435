package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// cutter is a TCP proxy that does something to each connection whose client has
// sent so many bytes.
type cutter struct {
	url    string
	target func() string // URL of the server
	mu     sync.Mutex
	fault  fault
	seen   int64 // bytes of the connection that carried most
	open   int   // connections
}

// fault is what befalls a connection.
type fault struct {
	after int64         // bytes towards the server; < 0: never
	cut   bool          // then break the connection …
	hold  chan struct{} // … or pass nothing on until this is closed
	mute  bool          // from then on answers do not arrive …
	lose  chan struct{} // … and when this is closed, the connection breaks
}

func newCutter(t *testing.T, target func() string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme, _, _ := strings.Cut(target(), "://")
	c := &cutter{url: scheme + "://" + l.Addr().String(), target: target, fault: fault{after: -1}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			_, host, _ := strings.Cut(c.target(), "://")
			server, err := net.Dial("tcp", host)
			if err != nil {
				client.Close()
				continue
			}
			wg.Go(func() { c.carry(client, server) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return c
}

func (c *cutter) carry(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	c.mu.Lock()
	f := c.fault
	c.open++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.open--
		c.mu.Unlock()
	}()
	muted := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		n := f.pass(server, client, muted)
		c.mu.Lock()
		c.seen = max(c.seen, n)
		c.mu.Unlock()
		if f.cut && n == f.after {
			client.Close()
		}
		server.Close()
	}()
	go func() {
		select {
		case <-f.lose:
			client.Close()
			server.Close()
		case <-done:
		}
	}()
	_, _ = io.Copy(answers{client, f.mute, muted}, server)
	if f.mute && closed(muted) {
		<-done // The client waits for an answer that does not come.
	}
	client.Close()
	server.Close()
	<-done
}

// pass carries what the client sends and gives how much it was.
func (f fault) pass(server io.Writer, client io.Reader, muted chan struct{}) int64 {
	if f.after < 0 {
		n, _ := io.Copy(server, client)
		return n
	}
	n, _ := io.CopyN(server, client, f.after)
	if f.cut || n < f.after {
		return n
	}
	close(muted)
	if f.hold != nil {
		<-f.hold
	}
	more, _ := io.Copy(server, client)
	return n + more
}

// answers passes on what the server says, until it is muted.
type answers struct {
	client io.Writer
	mute   bool
	muted  chan struct{}
}

func (a answers) Write(p []byte) (int, error) {
	if a.mute && closed(a.muted) {
		return len(p), nil
	}
	return a.client.Write(p)
}

func (c *cutter) set(f fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault, c.seen = f, 0
}

// rest returns when no connection is left, and gives the most bytes that one
// carried.
func (c *cutter) rest() int64 {
	for ; ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		open, seen := c.open, c.seen
		c.mu.Unlock()
		if open == 0 {
			return seen
		}
	}
}

// behind gives a sink that reaches the server through the proxy.
func behind(t *testing.T, s *Sink, target func() string) (*Sink, *cutter) {
	t.Helper()
	proxy := newCutter(t, target)
	c := s.first.config
	c.URL = proxy.url
	far := open(t, c)
	if _, err := far.first.newer(t.Context()); err != nil { // What it asks first is not what is cut.
		t.Fatal(err)
	}
	hangUp(far)
	proxy.rest()
	return far, proxy
}

func behindLasting(t *testing.T, l *lasting) (*Sink, *cutter) {
	return behind(t, l.sink(), func() string { return l.sink().first.config.URL })
}

// hangUp ends idle connections.
func hangUp(s *Sink) { _ = s.first.wire.close() }

// A request that is cut anywhere lands nothing; when only the end of the stream or
// of the body is missing, behind the last row, the server may land it whole. The
// sink calls each of them in doubt, and the probe after the fence knows.
func TestTruncatedBodyLandsNothingOrEverything(t *testing.T) {
	eachWire(t, truncatedBody)
}

func truncatedBody(t *testing.T, wire string) {
	const rows = 2000
	l := startLasting(t, wire)
	far, proxy := behindLasting(t, l)
	piece := func(seq int) (pipeline.BatchID, pipeline.Piece) {
		b := pipeline.NewBatchID(1, 0, uint64(seq))
		p := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: schemas.Flows, Batch: b, Seed: 1, Rows: rows})
		t.Cleanup(p.Record.Release)
		return b, p
	}
	batch, p := piece(0)
	whole := requestBytes(t, far, proxy, batch, p)
	var cuts []int64
	for i := range int64(24) {
		cuts = append(cuts, 1+whole*i/24, whole-1-i)
	}
	landed := 0
	for i, cut := range cuts {
		batch, p := piece(i + 1)
		proxy.set(fault{after: cut, cut: true})
		err := far.Land(t.Context(), batch, uint64(i), p)
		handshake := wire == "tcp" && cut < 100 && errors.Is(err, pipeline.ErrTransient)
		if !errors.Is(err, pipeline.ErrInDoubt) && !handshake {
			t.Errorf("cut after %d of %d bytes: error is %v, want ErrInDoubt", cut, whole, err)
		}
		l.fence(1, 0, uint64(i+1))
		switch n := l.probe(batch, p.PieceRef)[0]; {
		case n == 0:
		case n == rows && whole-cut < 32:
			landed++
		default:
			t.Errorf("cut after %d of %d bytes: %d rows landed", cut, whole, n)
		}
	}
	t.Logf("%d of %d cuts landed the piece whole; %d starts of the server", landed, len(cuts), l.starts)
}

// requestBytes lands the piece and gives how many bytes that took.
func requestBytes(t *testing.T, far *Sink, proxy *cutter, batch pipeline.BatchID, p pipeline.Piece) int64 {
	t.Helper()
	proxy.set(fault{after: -1})
	if err := far.Land(t.Context(), batch, 0, p); err != nil {
		t.Fatal(err)
	}
	hangUp(far)
	return proxy.rest()
}

// The answer is lost: the rows are there, and nobody was told.
func TestLostAnswerIsDoubtAndTheProbeKnows(t *testing.T) {
	eachWire(t, lostAnswer)
}

func lostAnswer(t *testing.T, wire string) {
	l := startLasting(t, wire)
	far, proxy := behindLasting(t, l)
	batch := pipeline.NewBatchID(1, 2, 3)
	p := remake(t, batch)
	whole := requestBytes(t, far, proxy, batch+1, remake(t, batch+1))
	lose, landed := make(chan struct{}), make(chan error, 1)
	proxy.set(fault{after: whole - 1, mute: true, lose: lose})
	go func() { landed <- far.Land(t.Context(), batch, 1, p) }()
	for deadline := time.Now().Add(30 * time.Second); l.probe(batch, p.PieceRef)[0] != p.Rows; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the rows are not there after 30 s")
		}
	}
	close(lose)
	if err := <-landed; !errors.Is(err, pipeline.ErrInDoubt) {
		t.Errorf("error is %v, want ErrInDoubt", err)
	}
	l.fence(1, 2, 2)
	if n := l.probe(batch, p.PieceRef)[0]; n != p.Rows {
		t.Errorf("probe is %d, want %d", n, p.Rows)
	}
}

// An INSERT hangs half sent while a successor takes over: Fence waits for it, and
// ends only when its fate is decided. A request of the old owner that arrives
// afterwards is refused.
func TestFenceWaitsForWhatRuns(t *testing.T) {
	eachWire(t, fenceWaits)
}

func fenceWaits(t *testing.T, wire string) {
	s := readyOver(t, wire)
	far, proxy := behind(t, s, func() string { return s.first.config.URL })
	batch := pipeline.NewBatchID(1, 2, 3)
	p := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 5000})
	defer p.Record.Release()
	hold, sent := make(chan struct{}), make(chan error, 1)
	// Over HTTP the server looks at an INSERT after 256 KiB (max_query_size).
	proxy.set(fault{after: 400 << 10, hold: hold})
	go func() { sent <- far.Land(t.Context(), batch, 4, p) }()
	var err error
	started, giveUp := 0, time.After(20*time.Second)
	for started == 0 { // Until the server runs it.
		if started, err = s.first.running(t.Context(), "startsWith(query_id, 'millrace-1-2-3-flows-')"); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-sent:
			t.Fatalf("the INSERT ended before it could be looked at: %v", err)
		case <-giveUp:
			t.Fatal("the INSERT does not run after 20 s")
		default:
		}
	}
	// Others do not wait for it.
	for _, f := range []struct {
		ledger uint16
		shard  int
		epoch  uint64
	}{{1, 3, 9}, {1, 2, 4}, {2, 2, 9}} {
		if err := s.Fence(t.Context(), f.ledger, f.shard, f.epoch); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Fence(short, 1, 2, 5); !errors.Is(err, pipeline.ErrTransient) {
		t.Fatalf("Fence while an older INSERT runs: %v, want ErrTransient when its context ends", err)
	}
	fenced := make(chan error, 1)
	go func() { fenced <- s.Fence(t.Context(), 1, 2, 5) }()
	close(hold)
	if err := <-sent; err != nil {
		t.Fatalf("an INSERT that had read the fence before: %v", err)
	}
	if err := <-fenced; err != nil {
		t.Fatal(err)
	}
	if n, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{p.PieceRef}); err != nil || n[0] != 5000 {
		t.Errorf("probe is %v, %v, want 5000", n, err)
	}
	next := pipeline.NewBatchID(1, 2, 4)
	if err := s.Land(t.Context(), next, 4, remake(t, next)); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("the old owner's next INSERT: %v, want ErrFenced", err)
	}
}

func remake(t *testing.T, batch pipeline.BatchID) pipeline.Piece {
	p := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 10})
	t.Cleanup(p.Record.Release)
	return p
}

// fake is a server that answers questions about settings and processes, and an
// INSERT as the test says.
func fake(t *testing.T, insert http.HandlerFunc) (*Sink, *fakeServer) {
	t.Helper()
	f := &fakeServer{insert: insert}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c := config(t, server.URL)
	c.WatchInterval = 20 * time.Millisecond
	c.LostAfter = 150 * time.Millisecond
	return open(t, c), f
}

type fakeServer struct {
	insert  http.HandlerFunc
	mu      sync.Mutex
	process string // the answer about running queries; "" means none at all
	asked   int
}

func (f *fakeServer) say(process string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.process = process
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Query().Get("query"), "INSERT") {
		f.insert(w, r)
		return
	}
	sql, _ := io.ReadAll(r.Body)
	if !strings.Contains(string(sql), "system.processes") {
		return
	}
	f.mu.Lock()
	answer := f.process
	f.asked++
	f.mu.Unlock()
	if answer == "" {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	fmt.Fprintln(w, answer)
}

func TestClassesOfAnswers(t *testing.T) {
	code := func(code, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("X-ClickHouse-Exception-Code", code)
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, "Code: %s. DB::Exception: %s", code, text)
		}
	}
	status := func(status int, header, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if header != "" {
				w.Header().Set("X-ClickHouse-Summary", header)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	classes := []error{pipeline.ErrTransient, pipeline.ErrInDoubt, pipeline.ErrFenced}
	for _, c := range []struct {
		name   string
		insert http.HandlerFunc
		want   error // nil: fatal, unless good
		text   string
	}{
		{"done", status(200, `{"written_rows":"10"}`, ""), errGood, ""},
		{"done, no summary", status(200, "", ""), errGood, ""},
		{"rows missing", status(200, `{"written_rows":"9"}`, ""), pipeline.ErrInDoubt, "wrote 9 of 10 rows"},
		{"text behind a good status", status(200, "", "<html>login"), pipeline.ErrInDoubt, "login"},
		{"fence", code("395", fenceMark), pipeline.ErrFenced, ""},
		{"another throwIf", code("395", "a constraint of the user's"), pipeline.ErrInDoubt, ""},
		{"too many parts", code("252", "Too many parts (3000)"), pipeline.ErrTransient, "252"},
		{"too many partitions", code("252", "Too many partitions for single INSERT block (more than 1)"), nil, "BUG"},
		{"memory", code("241", "Memory limit exceeded"), pipeline.ErrInDoubt, "Memory limit"},
		{"read-only table", code("242", "Table is in readonly mode"), pipeline.ErrTransient, ""},
		{"disk full", code("243", "Not enough space"), pipeline.ErrTransient, ""},
		{"too many queries", code("202", "Too many simultaneous queries"), pipeline.ErrTransient, ""},
		{"unknown quorum status", code("319", "Unknown status"), pipeline.ErrInDoubt, ""},
		{"cancelled", code("394", "Query was cancelled"), pipeline.ErrInDoubt, ""},
		{"no such column", code("16", "No such column x"), nil, "schema"},
		{"unknown table", code("60", "Table does not exist"), nil, "start the pipeline again"},
		{"wrong password", code("516", "Authentication failed"), pipeline.ErrTransient, "check user and password"},
		{"no right", code("497", "Not enough privileges"), nil, "grant INSERT"},
		{"a code from the future", code("9999", "Something"), pipeline.ErrInDoubt, "Something"},
		{"bad gateway", status(502, "", "nginx"), pipeline.ErrInDoubt, "is the URL a ClickHouse?"},
		{"too many requests", status(429, "", "slow down"), pipeline.ErrInDoubt, "429"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}, pipeline.ErrInDoubt, "302"},
		{"hang up at once", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, pipeline.ErrInDoubt, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, f := fake(t, c.insert)
			f.say("1")
			batch := pipeline.NewBatchID(1, 2, 3)
			err := s.Land(t.Context(), batch, 1, remake(t, batch))
			if c.want == errGood { //nolint:errorlint // A sentinel of this table.
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("error is %v, want one with %q", err, c.text)
			}
			for _, class := range classes {
				if errors.Is(err, class) != errors.Is(c.want, class) {
					t.Errorf("error is %v, want class %v", err, c.want)
				}
			}
		})
	}
}

var errGood = errors.New("no error")

func TestNothingSentIsTransient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, scheme := range []string{"http", "https", "tcp", "tls"} {
		nothingSent(t, scheme+"://"+l.Addr().String())
	}
}

func nothingSent(t *testing.T, nobody string) {
	t.Helper()
	s := open(t, config(t, nobody))
	s.first.known = map[string]bool{}
	batch := pipeline.NewBatchID(1, 2, 3)
	p := remake(t, batch)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Land":    func() error { return s.Land(t.Context(), batch, 1, p) },
		"stopped": func() error { return s.Land(stopped, batch, 1, p) },
		"Fence":   func() error { return s.Fence(t.Context(), 1, 2, 3) },
		"Probe":   func() error { _, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{p.PieceRef}); return err },
		"Setup":   func() error { return s.Setup(t.Context(), nil) },
		"Check":   func() error { return s.CheckSettings(t.Context()) },
		"Batches": func() error {
			return s.LandBatches(t.Context(), []pipeline.Manifest{{Units: make([]pipeline.Unit, 1)}})
		},
		"Register": func() error { _, err := s.RegisterLedger(t.Context(), "x", 4, false); return err },
	} {
		if err := call(); !errors.Is(err, pipeline.ErrTransient) || errors.Is(err, pipeline.ErrInDoubt) {
			t.Errorf("%s: %s without a server: %v, want ErrTransient", nobody, name, err)
		}
	}
}

// TestWatch hangs an INSERT: it may run as long as the server says that it runs.
func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name, process string
		want          error
	}{
		{"the server no longer knows it", "0", errVanished},
		{"the server does not answer", "", errLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			hang := make(chan struct{})
			var f *fakeServer
			s, f := fake(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				// It runs for ten looks, longer than LostAfter, then the server forgets it.
				for looks := 0; looks < 10; time.Sleep(5 * time.Millisecond) {
					f.mu.Lock()
					looks = f.asked
					f.mu.Unlock()
				}
				f.say(c.process)
				<-hang
			})
			f.say("1")
			batch := pipeline.NewBatchID(1, 2, 3)
			err := s.Land(t.Context(), batch, 1, remake(t, batch))
			close(hang)
			if !errors.Is(err, pipeline.ErrInDoubt) || !errors.Is(err, c.want) {
				t.Errorf("error is %v, want ErrInDoubt because %v", err, c.want)
			}
		})
	}
}

// The same over both wires of a real server whose answers to the INSERT never
// arrive: it is cut off, and what it landed is found.
func TestWatchCutsOffAnInsert(t *testing.T) {
	eachWire(t, func(t *testing.T, wire string) {
		s := readyOver(t, wire)
		far, proxy := behind(t, s, func() string { return s.first.config.URL })
		batch := pipeline.NewBatchID(1, 2, 3)
		p := sinktest.Make(memory.DefaultAllocator, sinktest.Shape{Table: schemas.Flows, Batch: batch, Seed: 1, Rows: 5000})
		defer p.Record.Release()
		const questions = 64 << 10 // No question is longer, no INSERT of this piece shorter.
		proxy.set(fault{after: questions, mute: true})
		far.first.config.WatchInterval = 50 * time.Millisecond
		if err := far.Land(t.Context(), batch, 1, p); !errors.Is(err, pipeline.ErrInDoubt) || !errors.Is(err, errVanished) {
			t.Errorf("error is %v, want ErrInDoubt because %v", err, errVanished)
		}
		if n, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{p.PieceRef}); err != nil || n[0] != p.Rows {
			t.Errorf("probe is %v, %v, want %d", n, err, p.Rows)
		}
	})
}
