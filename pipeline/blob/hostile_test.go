package blob_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
)

// hook stands where a connection would be made.
type hook struct {
	mu     sync.Mutex
	dialed []string
}

var errHook = errors.New("nothing is connected in this test")

func (h *hook) dial(_ context.Context, _, address string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dialed = append(h.dialed, address)
	return nil, errHook
}

// take gives what was dialled since the last call.
func (h *hook) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.dialed = nil }()
	return h.dialed
}

// created makes an event about a blob, in the schema of Event Grid or as a
// CloudEvent.
func created(t *testing.T, url, subject string, cloud bool) []byte {
	t.Helper()
	data := map[string]any{"api": "PutBlockList", "contentLength": 1000, "blobType": "BlockBlob", "url": url}
	event := map[string]any{"id": "1", "subject": subject, "data": data}
	if cloud {
		event["specversion"], event["type"], event["time"] = "1.0", "Microsoft.Storage.BlobCreated", "2026-11-23T06:00:00Z"
	} else {
		event["eventType"], event["eventTime"] = "Microsoft.Storage.BlobCreated", "2026-11-23T06:00:00Z"
	}
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// Events with hostile URLs go the whole way, from the message to the read: no
// connection is made, and each event has its reason. The events that are good lead
// to the configured host and nowhere else.
func TestHostileEventsConnectNowhere(t *testing.T) {
	var h hook
	const endpoint, local = "https://flowlogs.blob.core.windows.net", "http://127.0.0.1:10000/local"
	parser, err := announce.New([]announce.Account{
		{Name: account, Endpoint: endpoint, Containers: []string{container}},
		{Name: "local", Endpoint: local, Containers: []string{container}},
	})
	if err != nil {
		t.Fatal(err)
	}
	store, err := blob.NewAzureStore([]blob.AccountConfig{
		{Name: account, Endpoint: endpoint, SAS: secret.New(canarySAS), Dial: h.dial},
		{Name: "local", Endpoint: local, SharedKey: secret.New(canaryKey), Dial: h.dial},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	cfg := quick()
	cfg.MaxTries = 1
	reader := newReader(t, cfg, store)
	read := func(id pipeline.BlobID) {
		t.Helper()
		_, err := reader.ReadNew(t.Context(), id, blob.Position{}, -1, semaphore.NewWeighted(1<<30), func(blob.Chunk) error { return nil })
		if err == nil {
			t.Errorf("%v was read", id)
		}
	}
	good := created(t, endpoint+"/"+container+"/"+path, pipelinetest.HostileSubject(endpoint+"/"+container+"/"+path), false)
	found, _ := parser.Parse(good)
	if len(found) != 1 {
		t.Fatalf("a good event announces %v", found)
	}
	read(found[0].Blob)
	if got := h.take(); len(got) == 0 || got[0] != "flowlogs.blob.core.windows.net:443" {
		t.Fatalf("a good event leads to %q", got)
	}
	urls, reasons := pipelinetest.HostileURLs(container, path), map[announce.Reason]int{}
	if len(urls) < 200 {
		t.Fatalf("%d URLs, want at least 200", len(urls))
	}
	for _, u := range urls {
		for _, subject := range []string{pipelinetest.HostileSubject(u), "/blobServices/default/containers/" + container + "/blobs/" + path} {
			for _, cloud := range []bool{false, true} {
				found, counts := parser.Parse(created(t, u, subject, cloud))
				for r, n := range counts {
					reasons[r] += n
				}
				if len(found) == 0 && len(counts) != 1 {
					t.Errorf("%q: counts %v, want one reason", u, counts)
				}
				for _, a := range found {
					read(a.Blob)
				}
				for _, address := range h.take() {
					if len(found) == 0 || address != "flowlogs.blob.core.windows.net:443" {
						t.Errorf("%q, subject %q: connected to %q", u, subject, address)
					}
				}
			}
		}
		// Whatever else would take a URL apart: no name leads elsewhere.
		host, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(u, "https://"), "http://"), "/")
		read(pipeline.BlobID{Account: host, Container: container, Path: rest})
		for _, address := range h.take() {
			if host != account {
				t.Errorf("account %q: connected to %q", host, address)
			}
		}
	}
	t.Logf("%d URLs, %v", len(urls), reasons)
}

// nameServer answers each question for an A record with the next of its answers.
type nameServer struct {
	mu      sync.Mutex
	answers [][4]byte
	asked   int
}

func (s *nameServer) next() [4]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.answers[min(s.asked, len(s.answers)-1)]
	s.asked++
	return a
}

func (s *nameServer) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *nameServer) serve(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var p dnsmessage.Parser
		head, err := p.Start(buf[:n])
		if err != nil {
			continue
		}
		q, err := p.Question()
		if err != nil {
			continue
		}
		head.Response, head.RecursionAvailable = true, true
		b := dnsmessage.NewBuilder(nil, head)
		_ = b.StartQuestions()
		_ = b.Question(q)
		_ = b.StartAnswers()
		if q.Type == dnsmessage.TypeA {
			_ = b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, dnsmessage.AResource{A: s.next()})
		}
		out, err := b.Finish()
		if err == nil {
			_, _ = conn.WriteTo(out, from)
		}
	}
}

// resolveWith makes a name server the one that this process asks.
func resolveWith(t *testing.T, s *nameServer) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve(conn)
	}()
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = old
		_ = conn.Close()
		<-done
	})
}

// A name that resolves to a public address first, and to one of this machine or its
// network afterwards, gets no connection: the address is looked at as it is dialled.
func TestRebindingNames(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the server on this machine was asked for %s", r.URL.Path)
	}))
	defer web.Close()
	_, port, err := net.SplitHostPort(web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for want, second := range map[string][4]byte{
		"loopback": {127, 0, 0, 1}, "link-local": {169, 254, 169, 254}, "private": {10, 0, 0, 1}, "reserved": {0, 0, 0, 0},
	} {
		s := &nameServer{answers: [][4]byte{{198, 51, 100, 7}, second}} // the first one is nobody's
		resolveWith(t, s)
		store, err := blob.NewAzureStore([]blob.AccountConfig{{Name: account, Endpoint: "http://flowlogs.blob.example.:" + port, SAS: secret.New(canarySAS)}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if i > 0 {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
			}
			resp, err := store.Get(ctx, id, 0, 0, "")
			cancel()
			if err == nil {
				_ = resp.Body.Close()
			}
			if err == nil || i > 0 && !strings.Contains(err.Error(), want+" address") {
				t.Errorf("answer %d, %v: %v, want a refusal of a %s address", i, second, err, want)
			}
			if found := leaks(err); found != "" {
				t.Error(found)
			}
		}
		if asked := s.questions(); asked < 3 {
			t.Errorf("the name server was asked %d times, want one for each connection", asked)
		}
		store.Close()
	}
}
