package identity_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/identity"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
)

// TestMain makes the certificate of every httptest server one that the system
// trusts, so that what runs here is what runs in production.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "identity")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		s := httptest.NewTLSServer(nil)
		s.Close()
		ca := filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
			panic(err)
		}
		if err := os.Setenv("SSL_CERT_FILE", ca); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

const (
	tenant    = "11111111-2222-3333-4444-555555555555"
	client    = "66666666-7777-8888-9999-000000000000"
	token     = "CANARY-ACCESS-TOKEN"
	assertion = "CANARY-FEDERATED-TOKEN"
	secret    = "CANARY-CLIENT-SECRET"
	account   = "contoso"
)

var flowLog = pipeline.BlobID{Account: account, Container: "logs", Path: "a/PT1H.json"}

// authority is a token endpoint of Entra ID.
type authority struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []url.Values
	answer http.HandlerFunc // instead of a token
}

func startAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+tenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		base := a.URL + "/" + tenant
		_ = json.NewEncoder(w).Encode(map[string]string{
			"authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token",
			"issuer": base + "/v2.0", "jwks_uri": base + "/keys",
		})
	})
	mux.HandleFunc("POST /"+tenant+"/oauth2/v2.0/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		a.mu.Lock()
		a.asked = append(a.asked, r.PostForm)
		answer := a.answer
		a.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3600,"access_token":%q}`, token)
	})
	a.Server = httptest.NewUnstartedServer(mux)
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

// storage is a blob service behind TLS that wants the token.
type storage struct {
	*httptest.Server
	mu      sync.Mutex
	headers []string // Authorization of each request
}

func startStorage(t *testing.T) *storage {
	t.Helper()
	blobs := blobtest.Start(t)
	blobs.Append(flowLog, `{"a":{}}`)
	to, err := url.Parse(blobs.Endpoint(account))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: to.Scheme, Host: to.Host})
	s := &storage{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.headers = append(s.headers, r.Header.Get("Authorization"))
		s.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.Header().Set("X-Ms-Error-Code", "InvalidAuthenticationInfo")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// configuration is what a user writes; no secret stands in it.
func configuration(t *testing.T, s *storage, identity string) config.Config {
	t.Helper()
	c, err := config.Parse([]byte(fmt.Sprintf(`
state: %q
start: now
identity: %s
accounts:
  - {name: %s, endpoint: "%s/%s", containers: [logs]}
clickhouse: {url: "http://127.0.0.1:1"}
`, t.TempDir(), identity, account, s.URL, account)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// get asks for one blob, once.
func get(t *testing.T, c config.Config) error {
	t.Helper()
	store, err := assembly.Blobs(c)
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := store.Get(t.Context(), flowLog, 0, 10, "")
	if err != nil {
		return err
	}
	return r.Body.Close()
}

// Each kind of identity that needs no Azure machine: the token is asked for the
// right audience with what the environment holds, and reaches the account.
func TestTokenReachesTheAccount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "federated")
	if err := os.WriteFile(file, []byte(assertion), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{"AZURE_TENANT_ID": tenant, "AZURE_CLIENT_ID": client, "AZURE_CLIENT_SECRET": secret}
	for name, c := range map[string]struct {
		yaml string // %s is the authority
		env  map[string]string
		form map[string]string
	}{
		"workload by its keys": {
			"{kind: workload, tenant_id: " + tenant + ", client_id: " + client + ", token_file: " + file + ", authority: %q}", nil,
			map[string]string{"client_id": client, "client_assertion": assertion},
		},
		"workload by the environment": {
			"{kind: workload, authority: %q}",
			map[string]string{"AZURE_TENANT_ID": tenant, "AZURE_CLIENT_ID": client, "AZURE_FEDERATED_TOKEN_FILE": file},
			map[string]string{"client_id": client, "client_assertion": assertion},
		},
		"client secret": {"{kind: env, authority: %q}", environment, map[string]string{"client_id": client, "client_secret": secret}},
		"chain":         {"{authority: %q}", environment, map[string]string{"client_id": client, "client_secret": secret}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			a, s := startAuthority(t), startStorage(t)
			if err := get(t, configuration(t, s, fmt.Sprintf(c.yaml, a.URL))); err != nil {
				t.Fatal(err)
			}
			if len(a.asked) != 1 {
				t.Fatalf("%d requests for a token, want 1", len(a.asked))
			}
			form := a.asked[0]
			if got := form.Get("scope"); !strings.Contains(got, "https://storage.azure.com/.default") {
				t.Errorf("token asked for %q", got)
			}
			for k, v := range c.form {
				if form.Get(k) != v {
					t.Errorf("%s is %q, want %q", k, form.Get(k), v)
				}
			}
		})
	}
}

// What goes wrong with a token is one line that says who refused what, and holds
// neither the secret nor the token.
func TestRefusals(t *testing.T) {
	t.Setenv("AZURE_TENANT_ID", tenant)
	t.Setenv("AZURE_CLIENT_ID", client)
	t.Setenv("AZURE_CLIENT_SECRET", secret)
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect was followed")
	}))
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"unknown secret": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: x\r\nTimestamp: y"}`)
		}, "invalid_client: AADSTS7000215: Invalid client secret provided."},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}, "no token from"},
		"no answer that is one": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "no token from"},
	} {
		t.Run(name, func(t *testing.T) {
			a, s := startAuthority(t), startStorage(t)
			a.answer = c.answer
			err := get(t, configuration(t, s, fmt.Sprintf("{kind: env, authority: %q}", a.URL)))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("want one line with %q, have: %v", c.want, err)
			}
			if err != nil && (strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), "Trace ID")) {
				t.Errorf("the error tells too much: %v", err)
			}
			if len(s.headers) > 0 {
				t.Errorf("the account was asked without a token: %q", s.headers)
			}
		})
	}
}

// The account redirects: the token stays.
func TestRedirectOfTheAccountIsNotFollowed(t *testing.T) {
	t.Setenv("AZURE_TENANT_ID", tenant)
	t.Setenv("AZURE_CLIENT_ID", client)
	t.Setenv("AZURE_CLIENT_SECRET", secret)
	a, other := startAuthority(t), startStorage(t)
	front := &storage{Server: httptest.NewTLSServer(http.RedirectHandler(other.URL, http.StatusFound))}
	defer front.Close()
	err := get(t, configuration(t, front, fmt.Sprintf("{kind: env, authority: %q}", a.URL)))
	if err == nil || !strings.Contains(err.Error(), "redirects are not followed") || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("have: %v", err)
	}
	if len(other.headers) > 0 {
		t.Errorf("the token went elsewhere: %d requests", len(other.headers))
	}
}

func TestMissingEnvironment(t *testing.T) {
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET"} {
		t.Setenv(name, "")
	}
	for kind, want := range map[string]string{config.IdentityWorkload: "AZURE_TENANT_ID", config.IdentityEnv: "AZURE_TENANT_ID"} {
		_, err := identity.New(config.Identity{Kind: kind}, "contoso.blob.core.windows.net")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("kind %s: want one line with %q, have: %v", kind, want, err)
		}
	}
}

func TestAuthorityFollowsTheEndpoint(t *testing.T) {
	t.Setenv("AZURE_AUTHORITY_HOST", "")
	for host, want := range map[string]string{
		"contoso.blob.core.windows.net":        "https://login.microsoftonline.com/",
		"contoso.servicebus.windows.net":       "https://login.microsoftonline.com/",
		"contoso.blob.core.chinacloudapi.cn":   "https://login.chinacloudapi.cn/",
		"contoso.servicebus.chinacloudapi.cn":  "https://login.chinacloudapi.cn/",
		"contoso.blob.core.usgovcloudapi.net":  "https://login.microsoftonline.us/",
		"CONTOSO.servicebus.usgovcloudapi.net": "https://login.microsoftonline.us/",
		"contoso.blob.example":                 "https://login.microsoftonline.com/",
		"usgovcloudapi.net.example":            "https://login.microsoftonline.com/",
	} {
		if got := identity.Authority(config.Identity{}, host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	const own = "https://login.contoso.example"
	if got := identity.Authority(config.Identity{Authority: own}, "contoso.blob.core.chinacloudapi.cn"); got != own {
		t.Errorf("a configured authority became %s", got)
	}
	t.Setenv("AZURE_AUTHORITY_HOST", own)
	if got := identity.Authority(config.Identity{}, "contoso.blob.core.windows.net"); got != own {
		t.Errorf("the environment's authority became %s", got)
	}
}
