package azureblob_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/azureblob"
	"github.com/millrace/millrace/pipeline/ledger/ledgertest"
	"github.com/millrace/millrace/pipeline/secret"
)

const key = "a2V5a2V5a2V5"

func open(t testing.TB, cfg azureblob.Config) *azureblob.Store {
	t.Helper()
	cfg.RetryMin, cfg.RetryMax = time.Millisecond, 10*time.Millisecond
	s, err := azureblob.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// faulty gives a store over a server that goes wrong on command.
func faulty(t testing.TB) (*azureblob.Store, *blobtest.Server) {
	t.Helper()
	server := blobtest.Start(t)
	account := blob.AccountConfig{Name: "acc", Endpoint: server.Endpoint("acc"), SharedKey: secret.New(key)}
	s := open(t, azureblob.DefaultConfig(account, "ledger"))
	server.Forget()
	return s, server
}

func TestAgainstAzurite(t *testing.T) {
	endpoint, name, key := localtest.StartAzurite(t)
	account := blob.AccountConfig{Name: name, Endpoint: endpoint, SharedKey: secret.New(key)}
	n := 0
	ledgertest.Run(t, func(t *testing.T) ledger.Store {
		n++
		cfg := azureblob.DefaultConfig(account, "ledgers") // made by the first, found by the others
		if cfg.Prefix = fmt.Sprintf("test/%d", n); n == 1 {
			cfg.Prefix = "" // a ledger may own a container whole; others' prefixes are no part of it
		}
		return open(t, cfg)
	})
}

func TestAgainstTheFaultyServer(t *testing.T) {
	var requests atomic.Int64
	ledgertest.Run(t, func(t *testing.T) ledger.Store {
		server := blobtest.Start(t)
		server.PageSize = 7
		s := open(t, azureblob.DefaultConfig(blob.AccountConfig{Name: "acc", Endpoint: server.Endpoint("acc"), SharedKey: secret.New(key)}, "ledger"))
		// Every third request is refused or loses its answer.
		server.SetFault(func(blobtest.Request) *blobtest.Fault {
			n := requests.Add(1)
			if n%3 != 0 {
				return nil
			}
			return []*blobtest.Fault{
				{Cut: true},
				{Status: http.StatusServiceUnavailable, Code: "ServerBusy"},
				{Status: http.StatusInternalServerError, Code: "InternalError"},
				{Status: http.StatusTooManyRequests},
				{Status: http.StatusConflict, Code: "ContainerBeingDeleted"},
			}[n/3%5]
		})
		return s
	})
}

// A write whose answer is lost is done; the next attempt recognises it.
func TestLostAnswers(t *testing.T) {
	s, server := faulty(t)
	lost := &blobtest.Fault{Cut: true}
	busy := &blobtest.Fault{Status: http.StatusServiceUnavailable, Code: "ServerBusy"}
	server.Faults("put", lost, busy)
	if err := s.Create(t.Context(), "000/m/00000000001", []byte("mine")); err != nil {
		t.Errorf("create: %v", err)
	}
	// The caller gave up and calls again: it is its object still.
	if err := s.Create(t.Context(), "000/m/00000000001", []byte("mine")); err != nil {
		t.Errorf("create again: %v", err)
	}
	server.Faults("put", lost)
	version, err := s.Swap(t.Context(), "owner", []byte("a"), "")
	if err != nil {
		t.Fatal(err)
	}
	server.Faults("put", lost)
	if version, err = s.Swap(t.Context(), "owner", []byte("b"), version); err != nil {
		t.Fatal(err)
	}
	if _, err = s.Swap(t.Context(), "owner", []byte("c"), version); err != nil {
		t.Errorf("the version of a swap whose answer was lost: %v", err)
	}
	server.Faults("delete", lost)
	if err := s.Delete(t.Context(), "owner"); err != nil {
		t.Errorf("delete: %v", err)
	}

	// Somebody else was faster, and our own attempt's answer is lost: it is theirs.
	server.Faults("put", &blobtest.Fault{Cut: true, Before: func() {
		server.Put(pipeline.BlobID{Account: "acc", Container: "ledger", Path: "000/m/00000000002"}, []byte("theirs"))
	}})
	if err := s.Create(t.Context(), "000/m/00000000002", []byte("mine")); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("create behind another owner: %v", err)
	}
}

func TestTransientErrorsSurfaceWithTheirClass(t *testing.T) {
	s, server := faulty(t)
	if err := s.Put(t.Context(), "000/head", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, f := range []blobtest.Fault{
		{Status: http.StatusServiceUnavailable, Code: "ServerBusy"}, {Status: http.StatusTooManyRequests}, {Status: http.StatusInternalServerError}, {Cut: true},
	} {
		server.Forget()
		server.SetFault(func(blobtest.Request) *blobtest.Fault { return &f })
		for what, err := range map[string]error{
			"put": s.Put(t.Context(), "000/head", []byte("x")), "get": func() error { _, err := s.Get(t.Context(), "000/head"); return err }(),
			"list": func() error { _, err := s.List(t.Context(), "000/m/"); return err }(),
		} {
			// A Put that is cut happens, and Cut has no meaning to a listing.
			if !errors.Is(err, pipeline.ErrTransient) && !(f.Cut && what == "list") {
				t.Errorf("%+v, %s: %v", f, what, err)
			}
		}
		if n := len(server.Requests()); n < 12 {
			t.Errorf("%+v: %d requests, want 6 tries a call", f, n)
		}
	}
	server.SetFault(func(blobtest.Request) *blobtest.Fault {
		return &blobtest.Fault{Status: http.StatusForbidden, Code: "AuthorizationPermissionMismatch"}
	})
	server.Forget()
	err := s.Put(t.Context(), "000/head", nil)
	if err == nil || errors.Is(err, pipeline.ErrTransient) || !strings.Contains(err.Error(), "Storage Blob Data Contributor") || len(server.Requests()) != 1 {
		t.Errorf("without the right: %v after %d requests", err, len(server.Requests()))
	}
}

// The service says how long to wait.
func TestThrottlingIsRespected(t *testing.T) {
	s, server := faulty(t)
	server.Faults("put", &blobtest.Fault{Status: http.StatusServiceUnavailable, Code: "ServerBusy", Header: http.Header{"x-ms-retry-after-ms": {"300"}}})
	began := time.Now()
	if err := s.Put(t.Context(), "000/head", nil); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("tried again after %v, the service asked for 300ms", took)
	}
}

func TestConfigFaults(t *testing.T) {
	account := blob.AccountConfig{Name: "acc", SharedKey: secret.New(key)}
	for want, change := range map[string]func(*azureblob.Config){
		"prefix":                  func(c *azureblob.Config) { c.Prefix = "a//b" },
		"lower-case letters":      func(c *azureblob.Config) { c.Container = "A" },
		"credentials, want one":   func(c *azureblob.Config) { c.Account.SharedKey = secret.Secret{} },
		"want at least one try":   func(c *azureblob.Config) { c.Tries = 0 },
		"no http or https URL":    func(c *azureblob.Config) { c.Account.Endpoint = "ftp://x" },
		"account key is not base": func(c *azureblob.Config) { c.Account.SharedKey = secret.New("?") },
	} {
		cfg := azureblob.DefaultConfig(account, "ledger")
		change(&cfg)
		if _, err := azureblob.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// A ledger whose SAS was replaced goes on with the new one.
func TestCredentialIsRenewed(t *testing.T) {
	server := blobtest.Start(t)
	as := func(sig string) blob.AccountConfig {
		return blob.AccountConfig{Name: "acc", Endpoint: server.Endpoint("acc"), SAS: secret.New("sig=" + sig)}
	}
	s := open(t, azureblob.DefaultConfig(as("first"), "ledger"))
	server.SetFault(func(r blobtest.Request) *blobtest.Fault {
		if !strings.Contains(r.Query, "sig=second") {
			return &blobtest.Fault{Status: http.StatusForbidden, Code: "AuthenticationFailed"}
		}
		return nil
	})
	if err := s.Put(t.Context(), "info", []byte("a")); err == nil {
		t.Fatal("the old SAS is accepted")
	}
	if _, err := s.Renew(blob.AccountConfig{Name: "acc"}); err == nil {
		t.Error("an account without a credential is accepted")
	}
	apply, err := s.Renew(as("second"))
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if err := s.Put(t.Context(), "info", []byte("b")); err != nil {
		t.Error(err)
	}
	if names, err := s.List(t.Context(), ""); err != nil || len(names) != 1 {
		t.Errorf("names %q, %v", names, err)
	}
}
