package assembly

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
)

// estate is a pipeline without its engine, over a blob server that accepts one SAS.
type estate struct {
	*blobtest.Server
	t     *testing.T
	p     *Pipeline
	cfg   config.Config
	sas   string // a file
	valid atomic.Pointer[string]
}

func newEstate(t *testing.T) *estate {
	t.Helper()
	e := &estate{Server: blobtest.Start(t), t: t, p: &Pipeline{}, sas: filepath.Join(t.TempDir(), "sas")}
	e.SetFault(func(r blobtest.Request) *blobtest.Fault {
		if !strings.Contains(r.Query, "sig="+*e.valid.Load()) {
			return &blobtest.Fault{Status: http.StatusForbidden, Code: "AuthenticationFailed"}
		}
		return nil
	})
	e.accept("first")
	e.write("first")
	e.cfg = config.Default()
	e.cfg.Accounts = []config.Account{e.account("logs", "flowlogs")}
	if err := e.p.openStore(e.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.p.Close)
	var err error
	if e.p.sweeps, err = e.p.sweeper(e.cfg, Deps{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *estate) accept(sig string) { e.valid.Store(&sig) }

func (e *estate) write(sig string) {
	e.t.Helper()
	if err := os.WriteFile(e.sas, []byte("sig="+sig), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

func (e *estate) account(name string, containers ...string) config.Account {
	return config.Account{Name: name, Endpoint: e.Endpoint(name), Containers: containers, SAS: config.Reference{File: e.sas}}
}

// renew does what a reload does with the accounts.
func (e *estate) renew(fresh config.Config) error {
	apply, err := e.p.renewAccounts(e.cfg, fresh)
	if err == nil {
		apply()
		e.cfg = fresh
	}
	return err
}

func (e *estate) read(account, container string) error {
	id := pipeline.BlobID{Account: account, Container: container, Path: "x"}
	e.Put(id, []byte("x"))
	resp, err := e.p.store.Get(e.t.Context(), id, 0, 0, "")
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// announced says whether an announcement of a blob is let through.
func (e *estate) announced(account, container string) bool {
	found, _ := e.p.parser.Load().Parse(fmt.Appendf(nil, `[{"id":"1","topic":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/%[1]s",
		"subject":"/blobServices/default/containers/%[2]s/blobs/%[3]s","eventType":"Microsoft.Storage.BlobCreated","eventTime":"2026-11-23T07:00:00Z",
		"data":{"api":"PutBlockList","contentLength":1,"eTag":"x","url":"%[4]s/%[2]s/%[3]s"},"dataVersion":"","metadataVersion":"1"}]`, account, container, flowLog(1), e.Endpoint(account)))
	return len(found) == 1
}

// What of the storage accounts can change in a running pipeline does, and what
// cannot is refused with its reason and changes nothing.
func TestAccountsChangeWhileThePipelineRuns(t *testing.T) {
	e := newEstate(t)
	parser, err := announce.New(announceAccounts(e.cfg))
	if err != nil {
		t.Fatal(err)
	}
	e.p.parser.Store(parser)
	if err := e.read("logs", "flowlogs"); err != nil {
		t.Fatal(err)
	}

	// The SAS is rotated: its file says another one, the configuration is the same.
	e.accept("second")
	if err := e.read("logs", "flowlogs"); err == nil {
		t.Fatal("the old SAS is accepted")
	}
	e.write("second")
	if err := errors.Join(e.renew(e.cfg), e.read("logs", "flowlogs")); err != nil {
		t.Error(err)
	}

	fresh := e.cfg
	fresh.Accounts = []config.Account{e.account("more", "flowlogs"), e.account("logs", "flowlogs", "others")}
	fresh.Sweeper.Interval = time.Minute
	if e.announced("more", "flowlogs") || e.announced("logs", "others") {
		t.Error("announcements of what is not configured are let through")
	}
	if err := errors.Join(e.renew(fresh), e.read("more", "flowlogs"), e.read("logs", "flowlogs")); err != nil {
		t.Error(err)
	}
	if !e.announced("more", "flowlogs") || !e.announced("logs", "others") || !e.announced("logs", "flowlogs") {
		t.Error("announcements of what is configured now are not let through")
	}

	off, gone, less, bad := e.cfg, e.cfg, e.cfg, e.cfg
	off.Sweeper.Interval = 0
	gone.Accounts = gone.Accounts[1:]
	less.Accounts = []config.Account{e.account("more", "flowlogs"), e.account("logs", "others")}
	bad.Accounts = []config.Account{e.account("more", "flowlogs"), e.account("logs", "flowlogs", "others")}
	bad.Accounts[1].SAS.File += "-none"
	for want, cfg := range map[string]config.Config{
		"sweeper.interval: a running pipeline cannot switch": off,
		"container \"flowlogs\" of account \"more\" is gone": gone,
		"container \"flowlogs\" of account \"logs\" is gone": less,
		"accounts[1].sas: read secret":                       bad,
	} {
		if err := e.renew(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have: %v", want, err)
		}
	}
	if err := errors.Join(e.read("more", "flowlogs"), e.read("logs", "others")); err != nil || !e.announced("more", "flowlogs") {
		t.Errorf("after what was refused: %v", err)
	}
}

// A reload that changes nothing of an account leaves its connections and tokens.
func TestAccountsThatStayAreLeftAlone(t *testing.T) {
	e := newEstate(t)
	fresh := e.cfg
	fresh.LogLevel = "debug"
	fresh.Accounts = []config.Account{e.account("logs", "flowlogs", "others")}
	_, changed, err := e.p.changedAccounts(e.cfg, fresh)
	if err != nil || len(changed) != 0 {
		t.Errorf("%d accounts are made anew, %v", len(changed), err)
	}
}
