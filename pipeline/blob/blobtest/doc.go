// Package blobtest is a small blob server that goes wrong on command.
//
// It speaks the part of the Azure Blob REST protocol that readers of flow logs
// use: Get Blob and Get Blob Properties with ranges and conditions, List Blobs,
// and, for writers, Create Container, Put Blob, Put Block, Put Block List and
// Delete Blob; Put Blob knows If-Match and If-None-Match. It is there for what an emulator does not do: 416 at a blob's end,
// growth between and during requests, bodies cut at a byte, throttling, redirects,
// blobs written anew. A test sets a fault for a request, and reads the log of
// requests afterwards.
//
// In flow HTTP requests for http://host/account/container/path; nothing flows out
// but answers. Start listens on loopback until the test ends; Pipe needs no
// network and works inside testing/synctest.
//
// Skipped: checking of signatures (the log shows what was sent), leases, snapshots,
// versions, tiers, metadata, append and page blobs, uncommitted block lists.
package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// Header and Footer are the first and last block of a flow log.
const (
	Header = `{"records":[`
	Footer = `]}`
)

// Request is one line of the log.
type Request struct {
	N         int // from 1 in the order of arrival
	Method    string
	Op        string // get, head, list, put, block, commit, delete, container, other
	Blob      pipeline.BlobID
	Range     string // as sent
	IfMatch   string
	IfNone    string // the If-None-Match header
	Query     string
	Auth      string // the Authorization header
	Status    int    // 0 while it runs
	Sent      int64  // bytes of the body
	UserAgent string
}

// Fault is what goes wrong with one request.
type Fault struct {
	// Before runs before the blob is looked at: let it grow here.
	Before func()
	// Status, when set, is the whole answer, with Code and Header.
	Status int
	Code   string
	Header http.Header
	// Cut closes the connection after CutAfter bytes of the body. A write happens, and
	// its answer is lost.
	Cut      bool
	CutAfter int64
	// During runs after the first byte of the body, or after CutAfter bytes.
	During func()
	// Pace is the time between bytes of the body.
	Pace time.Duration
	// Stall sends no (more) byte of the body, after CutAfter bytes, until the client goes.
	Stall bool
	// WholeBlob answers a range with all of it, as a proxy that drops the header does.
	WholeBlob bool
	// NoETag leaves the header out.
	NoETag bool
}

// Server holds containers in memory. Its methods may be called at any time.
type Server struct {
	// URL of the listener, without a slash at its end; set by Start.
	URL string
	// PageSize bounds a page of List Blobs below what the client asks for; 0: no bound.
	PageSize int

	mu         sync.Mutex
	containers map[string]map[string]*object // by account/container, then path
	log        []*Request
	fault      func(Request) *Fault
	etag       int
	now        func() time.Time
}

type object struct {
	data     []byte
	etag     string
	created  time.Time
	modified time.Time
	blocks   map[string][]byte // by id: staged and committed
}

// New gives an empty server, as a handler without a listener.
func New() *Server {
	return &Server{containers: map[string]map[string]*object{}, now: time.Now}
}

// Start listens on loopback until the test ends.
func Start(t testing.TB) *Server {
	s := New()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	s.URL = web.URL
	return s
}

// Endpoint is the URL of an account's blob service.
func (s *Server) Endpoint(account string) string {
	if s.URL == "" {
		return "http://blobtest/" + account
	}
	return s.URL + "/" + account
}

// Pipe serves connections that exist in memory only. The dialer fits
// blob.AccountConfig.Dial; stop waits for all goroutines.
func (s *Server) Pipe() (dial func(ctx context.Context, network, address string) (net.Conn, error), stop func()) {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: s}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		here, there := net.Pipe()
		select {
		case l.conns <- there:
			return here, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.done:
			return nil, net.ErrClosed
		}
	}
	return dial, func() {
		_ = server.Close()
		served.Wait()
	}
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "blobtest", Net: "pipe"} }

// SetFault asks choose before each request; nil from it, or a nil choose, is a
// request that goes well.
func (s *Server) SetFault(choose func(Request) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = choose
}

// Faults gives the faults in turn to the requests of one operation ("" for all);
// nil lets a request pass, and those after the last pass too.
func (s *Server) Faults(op string, faults ...*Fault) {
	var mu sync.Mutex
	s.SetFault(func(r Request) *Fault {
		mu.Lock()
		defer mu.Unlock()
		if len(faults) == 0 || op != "" && op != r.Op {
			return nil
		}
		f := faults[0]
		faults = faults[1:]
		return f
	})
}

// Requests gives the log so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.log))
	for i, r := range s.log {
		out[i] = *r
	}
	return out
}

// Forget empties the log.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

// Create makes an empty container.
func (s *Server) Create(account, container string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.container(account, container)
}

func (s *Server) container(account, name string) map[string]*object {
	key := account + "/" + name
	if s.containers[key] == nil {
		s.containers[key] = map[string]*object{}
	}
	return s.containers[key]
}

// Put writes the whole blob anew.
func (s *Server) Put(id pipeline.BlobID, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(id, slices.Clone(data))
}

func (s *Server) put(id pipeline.BlobID, data []byte) *object {
	blobs := s.container(id.Account, id.Container)
	o := blobs[id.Path]
	if o == nil {
		o = &object{created: s.now(), blocks: map[string][]byte{}}
		blobs[id.Path] = o
	}
	s.etag++
	// Readers may hold the old slice: it is replaced, never changed.
	o.data, o.modified, o.etag = data, s.now(), fmt.Sprintf(`"0x8DC%012X"`, s.etag)
	return o
}

// Append adds records to a flow log as the service does: before the footer, with
// a comma before each but the blob's first. It creates the blob if need be.
func (s *Server) Append(id pipeline.BlobID, records ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := []byte(Header + Footer)
	if o := s.container(id.Account, id.Container)[id.Path]; o != nil {
		data = o.data
	}
	body := slices.Clone(bytes.TrimSuffix(data, []byte(Footer)))
	for _, r := range records {
		if len(body) > len(Header) {
			body = append(body, ',')
		}
		body = append(body, r...)
	}
	s.put(id, append(body, Footer...))
}

// Delete removes the blob.
func (s *Server) Delete(id pipeline.BlobID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.container(id.Account, id.Container), id.Path)
}

// Bytes gives a copy of the blob, nil when there is none.
func (s *Server) Bytes(id pipeline.BlobID) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.container(id.Account, id.Container)[id.Path]; o != nil {
		return slices.Clone(o.data)
	}
	return nil
}
