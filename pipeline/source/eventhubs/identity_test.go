package eventhubs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/coder/websocket"

	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// trusted is an authority that the system trusts, as far as these tests go.
var trusted *pipelinetest.Authority

// trust makes the certificate of every httptest server one that the system trusts.
func trust(dir string) (err error) {
	s := httptest.NewTLSServer(nil)
	s.Close()
	if trusted, err = pipelinetest.NewAuthority(); err != nil {
		return err
	}
	ca := filepath.Join(dir, "ca.pem")
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, append(own, trusted.PEM...), 0o600); err != nil {
		return err
	}
	return os.Setenv("SSL_CERT_FILE", ca)
}

// front stands before an emulator, which speaks neither TLS nor websockets, and
// remembers what clients sent.
type front struct {
	address string
	mu      sync.Mutex
	sent    bytes.Buffer
}

func (f *front) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent.Write(p)
}

func (f *front) saw(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Contains(f.sent.Bytes(), []byte(text))
}

// join carries bytes both ways until one side ends.
func (f *front) join(client net.Conn, emulator string) {
	defer client.Close()
	server, err := net.Dial("tcp", emulator)
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	_, _ = io.Copy(server, io.TeeReader(client, f))
	_ = server.Close()
	<-done
}

// overTLS is port 5671.
func overTLS(t *testing.T, s *emulator.Server) *front {
	t.Helper()
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	certificate.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", certificate.TLS)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{address: l.Addr().String()}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { f.join(c, s.Addr()) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		group.Wait()
	})
	return f
}

// overWebSocket is port 443.
func overWebSocket(t *testing.T, s *emulator.Server) *front {
	t.Helper()
	f := &front{}
	var group sync.WaitGroup
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/$servicebus/websocket" {
			http.NotFound(w, r)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"amqp"}})
		if err != nil {
			return
		}
		group.Add(1)
		defer group.Done()
		c.SetReadLimit(-1)
		f.join(websocket.NetConn(context.Background(), c, websocket.MessageBinary), s.Addr())
	}))
	f.address = strings.TrimPrefix(server.URL, "https://")
	t.Cleanup(func() {
		server.Close()
		group.Wait()
	})
	return f
}

// tokens is an identity of Entra ID.
type tokens struct {
	mu     sync.Mutex
	scopes []string
	err    error
}

const canary = "CANARY-ACCESS-TOKEN"

func (c *tokens) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scopes = append(c.scopes, o.Scopes...)
	return azcore.AccessToken{Token: canary, ExpiresOn: time.Now().Add(time.Hour)}, c.err
}

func anyToken(c *emulator.Config) { c.Key = "" }

// An identity's token reaches the namespace over TLS, by either transport, and
// nothing that the source logs.
func TestIdentity(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *emulator.Server) *front{"amqp": overTLS, "websocket": overWebSocket} {
		t.Run(name, func(t *testing.T) {
			s := startHub(t, anyToken)
			f, cred := start(t, s), &tokens{}
			u := newSetup(t, s)
			u.cfg.ConnectionString, u.cfg.Hub = secret.Secret{}, hub
			u.cfg.Credential, u.cfg.Namespace, u.cfg.WebSocket = cred, f.address, name == "websocket"
			publish(t, s, 1, names("a", 5)...)
			c := newCollector(all)
			r := u.run(t, c)
			c.waitFor(t, 5)
			if h := r.Health(); !h.Connected || h.Err != nil {
				t.Errorf("health: %+v", h)
			}
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			if !f.saw(canary) {
				t.Error("the token did not reach the namespace")
			}
			if len(cred.scopes) == 0 || !strings.HasPrefix(cred.scopes[0], "https://eventhubs.azure.net/") {
				t.Errorf("tokens were asked for %q", cred.scopes)
			}
			if strings.Contains(u.log.String(), canary) {
				t.Errorf("the log holds the token:\n%s", u.log)
			}
		})
	}
}

// A key over a websocket, for networks that let only port 443 out.
func TestKeyOverWebSocket(t *testing.T) {
	s := startHub(t, nil)
	f := overWebSocket(t, s)
	u := newSetup(t, s)
	u.cfg.ConnectionString = secret.New(fmt.Sprintf("Endpoint=sb://%s/;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=%s;EntityPath=%s", f.address, key, hub))
	u.cfg.WebSocket = true
	publish(t, s, 0, "x")
	c := newCollector(all)
	u.run(t, c)
	c.waitFor(t, 1)
}

// Neither a key's signature nor a token goes to a namespace that is not good.
func TestTLSIsVerified(t *testing.T) {
	for _, webSocket := range []bool{false, true} {
		t.Run(map[bool]string{false: "amqp", true: "websocket"}[webSocket], func(t *testing.T) {
			pipelinetest.TLSLaws(t, trusted, func(t *testing.T, address string) error {
				cfg := eventhubs.DefaultConfig(secret.Secret{}, hub)
				cfg.Credential, cfg.Namespace, cfg.WebSocket = &tokens{}, address, webSocket
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := eventhubs.Look(ctx, cfg, nil)
				if err != nil && strings.Contains(err.Error(), canary) {
					t.Errorf("the token is told: %v", err)
				}
				return err
			})
		})
	}
}

// A websocket that is redirected is not followed, and the identity is not asked.
func TestWebSocketRedirect(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed") }))
	defer elsewhere.Close()
	server := httptest.NewTLSServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer server.Close()
	s := startHub(t, anyToken)
	cred := &tokens{}
	u := newSetup(t, s)
	u.cfg.ConnectionString, u.cfg.Hub = secret.Secret{}, hub
	u.cfg.Credential, u.cfg.Namespace, u.cfg.WebSocket = cred, strings.TrimPrefix(server.URL, "https://"), true
	r := u.run(t, newCollector(all))
	until(t, "trouble", func() bool { return r.Health().Err != nil })
	if h := r.Health(); h.Connected || !strings.Contains(h.Err.Error(), "302") {
		t.Errorf("health: %+v", h)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if len(cred.scopes) > 0 {
		t.Errorf("tokens were asked for %q", cred.scopes)
	}
}

// An identity that gives no token is trouble that passes, and shown.
func TestIdentityWithoutToken(t *testing.T) {
	s := startHub(t, anyToken)
	f, cred := overTLS(t, s), &tokens{err: errors.New("no token today")}
	u := newSetup(t, s)
	u.cfg.ConnectionString, u.cfg.Hub = secret.Secret{}, hub
	u.cfg.Credential, u.cfg.Namespace = cred, f.address
	publish(t, s, 1, "x")
	c := newCollector(all)
	r := u.run(t, c)
	until(t, "trouble", func() bool { h := r.Health(); return h.Err != nil && strings.Contains(h.Err.Error(), "no token today") })
	cred.mu.Lock()
	cred.err = nil
	cred.mu.Unlock()
	c.waitFor(t, 1)
	until(t, "health", func() bool { return r.Health().Connected })
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %v", what, wait)
		}
	}
}
