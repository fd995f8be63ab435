package blob_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
)

// leaks looks for a canary in everything that an error can be printed as, and in
// every error it wraps.
func leaks(err error) string {
	var all strings.Builder
	for e := err; e != nil; e = errors.Unwrap(e) {
		fmt.Fprintf(&all, "%s\n%v\n%+v\n%#v\n%q\n", e, e, e, e, e)
		if text, jerr := json.Marshal(e); jerr == nil {
			all.Write(text)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Error("x", slog.Any("error", e))
		all.Write(log.Bytes())
	}
	for _, c := range []string{"CANARY", url.QueryEscape(canarySig), canaryKey, "sig=", "?sv", "Bearer"} {
		if strings.Contains(all.String(), c) {
			return fmt.Sprintf("%q in %s", c, all.String())
		}
	}
	return ""
}

// Every way in which a request can go wrong, with each kind of credential: no
// error holds a secret or a query string.
func TestErrorsHoldNoSecret(t *testing.T) {
	trusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	trusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	trusted.StartTLS()
	defer trusted.Close()
	dead := httptest.NewServer(nil)
	dead.Close()
	s := blobtest.Start(t)
	s.Append(id, `{"a":{}}`)
	answer := func(status int, code string) func() {
		return func() {
			s.SetFault(func(blobtest.Request) *blobtest.Fault {
				return &blobtest.Fault{Status: status, Code: code, Header: http.Header{"Location": {"http://example.invalid/?sig=" + url.QueryEscape(canarySig)}}}
			})
		}
	}
	for name, c := range map[string]struct {
		endpoint string
		prepare  func()
	}{
		"DNS":      {"http://no-such-host.invalid/a", nil},
		"TLS":      {trusted.URL + "/a", nil},
		"refused":  {dead.URL + "/a", nil},
		"302":      {s.Endpoint(account), answer(302, "")},
		"400":      {s.Endpoint(account), answer(400, "InvalidUri")},
		"401":      {s.Endpoint(account), answer(401, "")},
		"403":      {s.Endpoint(account), answer(403, "AuthenticationFailed")},
		"404":      {s.Endpoint(account), answer(404, "BlobNotFound")},
		"409":      {s.Endpoint(account), answer(409, "BlobArchived")},
		"429":      {s.Endpoint(account), answer(429, "")},
		"503":      {s.Endpoint(account), answer(503, "ServerBusy")},
		"odd code": {s.Endpoint(account), answer(500, "x?sig=CANARY")},
		"cut": {s.Endpoint(account), func() {
			s.SetFault(func(blobtest.Request) *blobtest.Fault { return &blobtest.Fault{Cut: true} })
		}},
		"idle": {s.Endpoint(account), func() {
			s.SetFault(func(blobtest.Request) *blobtest.Fault { return &blobtest.Fault{Stall: true} })
		}},
	} {
		for kind, cred := range map[string]blob.AccountConfig{
			"SAS":        {SAS: secret.New(canarySAS)},
			"SAS with ?": {SAS: secret.New("?" + canarySAS)},
			"key":        {SharedKey: secret.New(canaryKey)},
			"string":     {ConnectionString: secret.New("AccountName=flowlogs;AccountKey=" + canaryKey + ";BlobEndpoint=" + c.endpoint)},
			"string SAS": {ConnectionString: secret.New("BlobEndpoint=" + c.endpoint + ";SharedAccessSignature=" + canarySAS)},
			"identity":   {Token: bearer{}},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s.SetFault(nil)
				if c.prepare != nil {
					c.prepare()
				}
				cred.Name, cred.Endpoint = account, c.endpoint
				store, err := blob.NewAzureStore([]blob.AccountConfig{cred})
				if found := leaks(err); found != "" {
					t.Error(found)
				}
				if refused := kind == "identity" && strings.HasPrefix(c.endpoint, "http:"); refused != (err != nil) {
					t.Fatal(err)
				}
				if err != nil {
					return
				}
				defer store.Close()
				cfg := quick()
				cfg.Idle, cfg.MaxTries = 50*time.Millisecond, 2
				reader := newReader(t, cfg, store)
				if _, err = reader.ReadRange(t.Context(), id, 0, 5); err == nil {
					t.Fatal("no error")
				}
				if found := leaks(err); found != "" {
					t.Error(found)
				}
				if found := leaks(fmt.Errorf("%+v", cred)); found != "" {
					t.Error(found)
				}
			})
		}
	}
}

// bearer is an identity whose token is a canary.
type bearer struct{}

func (bearer) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "CANARY.bearer.token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// brokenIdentity fails with a text that nobody wants in a log.
type brokenIdentity struct{}

func (brokenIdentity) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, errors.New("POST https://login.example/token?sig=CANARY failed:\nauthorization: CANARY")
}

func TestIdentityErrorsAreScrubbed(t *testing.T) {
	// The token is asked for before anything is dialled, so the server never answers.
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	store, err := blob.NewAzureStore([]blob.AccountConfig{{Name: account, Endpoint: web.URL, Token: brokenIdentity{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	_, err = store.Get(t.Context(), id, 0, 0, "")
	if !errors.Is(err, pipeline.ErrTransient) || !strings.Contains(err.Error(), "failed") {
		t.Errorf("%v", err)
	}
	if found := leaks(err); found != "" {
		t.Error(found)
	}
}

// Redirects are an error, and nothing is sent to where they point.
func TestRedirectsAreNotFollowed(t *testing.T) {
	other := blobtest.Start(t)
	other.Append(id, `{"a":{}}`)
	s := blobtest.Start(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		s.SetFault(func(blobtest.Request) *blobtest.Fault {
			return &blobtest.Fault{Status: status, Header: http.Header{"Location": {other.URL + "/" + id.String()}}}
		})
		store, err := blob.NewAzureStore([]blob.AccountConfig{{Name: account, Endpoint: s.Endpoint(account), SharedKey: secret.New(canaryKey)}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Get(t.Context(), id, 0, 0, "")
		if err == nil || !strings.Contains(err.Error(), "redirect") || errors.Is(err, pipeline.ErrTransient) {
			t.Errorf("%d: %v", status, err)
		}
		store.Close()
	}
	if n := len(other.Requests()); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// The credential is part of the requests to the account's own endpoint only, and
// accounts do not mix.
func TestCredentialsGoToTheirAccountOnly(t *testing.T) {
	one, two := blobtest.Start(t), blobtest.Start(t)
	store, err := blob.NewAzureStore([]blob.AccountConfig{
		{Name: "one", Endpoint: one.Endpoint("one"), SAS: secret.New(canarySAS)},
		{Name: "two", Endpoint: two.Endpoint("two"), SharedKey: secret.New(canaryKey)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	reader := newReader(t, quick(), store)
	for _, a := range []string{"one", "two", "three"} {
		_, err := reader.ReadRange(t.Context(), pipeline.BlobID{Account: a, Container: container, Path: path}, 0, 1)
		if err == nil {
			t.Errorf("account %q: no error", a)
		}
	}
	for _, r := range one.Requests() {
		if !strings.Contains(r.Query, "sig=") || r.Auth != "" || r.Blob.Account != "one" {
			t.Errorf("first account: %+v", r)
		}
	}
	for _, r := range two.Requests() {
		if strings.Contains(r.Query, "sig=") || !strings.HasPrefix(r.Auth, "SharedKey two:") || r.Blob.Account != "two" {
			t.Errorf("second account: %+v", r)
		}
	}
	if len(one.Requests()) != 1 || len(two.Requests()) != 1 {
		t.Errorf("%d and %d requests, want one each", len(one.Requests()), len(two.Requests()))
	}
}

// Neither a SAS nor a token nor a signature goes to a server whose certificate or
// version of TLS is not good.
func TestTLSIsVerified(t *testing.T) {
	for name, cred := range map[string]blob.AccountConfig{"SAS": {SAS: secret.New(canarySAS)}, "identity": {Token: bearer{}}} {
		t.Run(name, func(t *testing.T) {
			pipelinetest.TLSLaws(t, trusted, func(t *testing.T, address string) error {
				cred.Name, cred.Endpoint = account, "https://"+address
				store, err := blob.NewAzureStore([]blob.AccountConfig{cred})
				if err != nil {
					t.Fatal(err)
				}
				defer store.Close()
				resp, err := store.Get(t.Context(), id, 0, 0, "")
				if err == nil {
					_ = resp.Body.Close()
				}
				if found := leaks(err); found != "" {
					t.Error(found)
				}
				return err
			})
		})
	}
}

func TestAccountFaultsAreReportedAtOnce(t *testing.T) {
	_, err := blob.NewAzureStore([]blob.AccountConfig{
		{Name: "", SAS: secret.New(canarySAS)},
		{Name: "none"},
		{Name: "both", SAS: secret.New(canarySAS), SharedKey: secret.New(canaryKey)},
		{Name: "key", SharedKey: secret.New("CANARY not base64!")},
		{Name: "sas", SAS: secret.New("CANARY")},
		{Name: "query", Endpoint: "https://x.invalid/?" + canarySAS, SharedKey: secret.New(canaryKey)},
		{Name: "user", Endpoint: "https://CANARY:CANARY@x.invalid", SharedKey: secret.New(canaryKey)},
		{Name: "scheme", Endpoint: "ftp://x.invalid", SharedKey: secret.New(canaryKey)},
		{Name: "url", Endpoint: "http://CANARY\x7f", SharedKey: secret.New(canaryKey)},
		{Name: "string", ConnectionString: secret.New("CANARY")},
		{Name: "string2", ConnectionString: secret.New("AccountKey=" + canaryKey)},
		{Name: "string3", ConnectionString: secret.New("AccountName=a")},
		{Name: "twice", SAS: secret.New(canarySAS)},
		{Name: "twice", SAS: secret.New(canarySAS)},
	})
	if err == nil || strings.Count(err.Error(), "\n") != 12 {
		t.Errorf("%v", err)
	}
	if found := leaks(err); found != "" {
		t.Error(found)
	}
	if _, err := blob.NewAzureStore(nil); err == nil {
		t.Error("no account")
	}
}

// Names that a URL would not carry unchanged never reach a request.
func TestOddNamesAreNotRequested(t *testing.T) {
	s := blobtest.Start(t)
	store := newStore(t, s)
	for _, b := range []pipeline.BlobID{
		{Account: account, Container: container, Path: "../other/x"},
		{Account: account, Container: container, Path: "a/../../x"},
		{Account: account, Container: container, Path: "a/./x"},
		{Account: account, Container: container, Path: "a\\..\\x"},
		{Account: account, Container: container, Path: "a\r\nHost: evil"},
		{Account: account, Container: container, Path: "a\x00"},
		{Account: account, Container: container, Path: ""},
		{Account: account, Container: container, Path: "\xff"},
		{Account: account, Container: "..", Path: "x"},
		{Account: account, Container: "a/b", Path: "x"},
		{Account: account, Container: "a?b", Path: "x"},
		{Account: account, Container: "", Path: "x"},
		{Account: "other", Container: container, Path: "x"},
	} {
		if _, err := store.Get(t.Context(), b, 0, 0, ""); err == nil {
			t.Errorf("%q was asked for", b)
		}
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
	for _, p := range []string{"a b/ü?#%.json", "100%/x", "a%2Fb", "a//b", "..a/b..", "a+b&c=d"} {
		b := pipeline.BlobID{Account: account, Container: container, Path: p}
		s.Put(b, []byte("x"))
		resp, err := store.Get(t.Context(), b, 0, 0, "")
		if err != nil {
			t.Errorf("%q: %v", p, err)
			continue
		}
		_ = resp.Body.Close()
	}
}

// A store whose SAS was replaced reads and lists with the new one from the next
// request on; a client that cannot be made changes nothing.
func TestCredentialsAreRenewed(t *testing.T) {
	s := blobtest.Start(t)
	valid := "first"
	s.SetFault(func(r blobtest.Request) *blobtest.Fault {
		if !strings.Contains(r.Query, "sig="+valid) {
			return &blobtest.Fault{Status: http.StatusForbidden, Code: "AuthenticationFailed"}
		}
		return nil
	})
	s.Put(id, []byte("x"))
	other := pipeline.BlobID{Account: "other", Container: container, Path: "x"}
	s.Put(other, []byte("x"))
	as := func(name, sig string) blob.AccountConfig {
		return blob.AccountConfig{Name: name, Endpoint: s.Endpoint(name), SAS: secret.New("sig=" + sig)}
	}
	store, err := blob.NewAzureStore([]blob.AccountConfig{as(account, "first")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	use := func(id pipeline.BlobID) error {
		resp, err := store.Get(t.Context(), id, 0, 0, "")
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		_, err = store.ListPage(t.Context(), id.Account, id.Container, "", "", "", nil, nil)
		return err
	}
	if err := use(id); err != nil {
		t.Fatal(err)
	}
	valid = "second"
	if err := use(id); err == nil {
		t.Fatal("the old SAS is accepted")
	}
	if _, err := store.Renew([]blob.AccountConfig{as(account, "second"), {Name: "bad"}}); err == nil || use(id) == nil {
		t.Errorf("an account without a credential: %v, or half of it was taken over", err)
	}
	apply, err := store.Renew([]blob.AccountConfig{as(account, "second"), as("other", "second")})
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if err := errors.Join(use(id), use(other)); err != nil {
		t.Error(err)
	}
	if apply, err = store.Renew([]blob.AccountConfig{as("other", "second")}); err != nil {
		t.Fatal(err)
	}
	apply()
	if err := use(id); err != nil {
		t.Errorf("the account that was not named: %v", err)
	}
}
