package clickhouse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
)

// locksmith is a server with a user whose password changes. The embedded server
// reads users at its start only, so that it is started again for each.
type locksmith struct {
	t       *testing.T
	options servers.ClickHouseOptions
	ch      *servers.ClickHouse
}

func newLocksmith(t *testing.T, password string) *locksmith {
	bin, lib := pipelinetest.RequirePart(t, localtest.EnvClickHouse), pipelinetest.RequirePart(t, localtest.EnvLibrary)
	l := &locksmith{t: t, options: servers.ClickHouseOptions{Bin: bin, Lib: lib, Dir: t.TempDir(), MemoryLimit: 4 << 30}}
	t.Cleanup(func() { l.ch.Kill() })
	l.change(password)
	return l
}

// change makes the server accept this password and no other.
func (l *locksmith) change(password string) {
	l.t.Helper()
	if l.ch != nil {
		l.ch.Kill()
		l.options.HTTPPort, l.options.TCPPort = l.ch.HTTPPort, l.ch.TCPPort
	}
	file := filepath.Join(l.options.Dir, "etc", "users.d", "rota.xml")
	text := fmt.Sprintf(`<clickhouse><users><rota><password>%s</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></rota></users></clickhouse>`, password)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	ch, err := servers.StartClickHouse(l.t.Context(), l.options)
	if err != nil {
		l.t.Fatal(err)
	}
	l.ch = ch
}

func (l *locksmith) as(password string, urls ...string) Config {
	c := config(l.t, urls[0])
	c.User, c.Password = "rota", secret.New(password)
	if len(urls) > 1 {
		c.Servers = urls
	}
	return c
}

// The password changes at the server: what was to land waits until the sink has it,
// too, and then goes on at once, over both wires and at every server of a cluster.
func TestPasswordChanges(t *testing.T) {
	password := "first"
	l := newLocksmith(t, password)
	batch := pipeline.NewBatchID(1, 2, 3)
	eachWire(t, func(t *testing.T, wire string) {
		s := open(t, l.as(password, urlOver(l.ch, wire)))
		if err := s.Setup(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		p := remake(t, batch)
		if err := s.Land(t.Context(), batch, 1, p); err != nil {
			t.Fatal(err)
		}
		password += "+"
		l.change(password)
		if wire == "http" { // over TCP the embedded server ends itself over such a login
			for name, err := range map[string]error{
				"land": s.Land(t.Context(), batch, 1, p), "fence": s.Fence(t.Context(), 1, 2, 3), "probe": probeError(t, s, batch, p),
			} {
				if !errors.Is(err, pipeline.ErrTransient) || errors.Is(err, pipeline.ErrInDoubt) || !strings.Contains(err.Error(), "check user and password") {
					t.Errorf("%s with the old password: %v", name, err)
				}
			}
			if err := s.CheckSettings(t.Context()); err == nil || errors.Is(err, pipeline.ErrTransient) {
				t.Errorf("a start with the old password: %v, want a fault", err)
			}
		}
		renew(t, s, password)
		if err := errors.Join(s.Fence(t.Context(), 1, 2, 3), s.Land(t.Context(), batch, 3, p), probeError(t, s, batch, p)); err != nil {
			t.Error(err)
		}
		if who := ask(t, s, "SELECT currentUser(), count() FROM "+p.Table); who != fmt.Sprintf("rota\t%d", 2*p.Rows) {
			t.Errorf("user and rows: %q, want both batches of %d rows", who, p.Rows)
		}
	})
	t.Run("cluster", func(t *testing.T) {
		s := open(t, l.as(password, l.ch.HTTPURL, "tcp://"+l.ch.TCPAddr))
		who := func() error {
			return s.each(func(_ int, n *node) error {
				text, err := n.exec(t.Context(), "", "SELECT currentUser() FORMAT TabSeparated")
				if err == nil && strings.TrimSpace(text) != "rota" {
					err = fmt.Errorf("user %q", text)
				}
				return err
			})
		}
		if err := who(); err != nil {
			t.Fatal(err)
		}
		password += "+"
		l.change(password)
		renew(t, s, password)
		if err := who(); err != nil {
			t.Error(err)
		}
	})
}

func renew(t *testing.T, s *Sink, password string) {
	t.Helper()
	apply, err := s.Renew(secret.New(password))
	if err != nil {
		t.Fatal(err)
	}
	apply()
}

func probeError(t *testing.T, s *Sink, batch pipeline.BatchID, p pipeline.Piece) error {
	_, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{p.PieceRef})
	return err
}

func TestPasswordWithALineBreak(t *testing.T) {
	s := open(t, config(t, "http://127.0.0.1:1"))
	if _, err := s.Renew(secret.New("a\nb")); err == nil || strings.Contains(err.Error(), "a\nb") {
		t.Errorf("have: %v", err)
	}
}
