package localtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// SharedKafka is one broker for all tests of a package, started when the first asks.
// Each test makes topics of its own. TestMain ends it:
//
//	defer shared.Stop()
type SharedKafka struct {
	// Proxy is servers.KafkaOptions.Proxy. Optional.
	Proxy string

	once sync.Once
	k    *servers.Kafka
	dir  string
	user string
	pass string // a canary
	err  error
}

// Broker gives the broker. It has made its own topics already, and listens with
// TLS and a password too.
func (s *SharedKafka) Broker(t testing.TB) *servers.Kafka {
	t.Helper()
	jar := pipelinetest.RequirePart(t, EnvKafka)
	s.once.Do(func() { s.err = s.start(jar) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.k
}

// Login is a way to connect to SecureAddr of the broker.
type Login struct {
	Name                              string
	Mechanism, CAFile, User, Password string
	// Advice is in the error of who is refused; "" for who is not.
	Advice string
}

// Logins gives the right ones, and wrong ones. Every password is of this run alone.
func (s *SharedKafka) Logins(t testing.TB) []Login {
	t.Helper()
	s.Broker(t)
	other, err := pipelinetest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	right, unknown, wrong := filepath.Join(s.dir, "ca.pem"), filepath.Join(t.TempDir(), "ca.pem"), canary+rand.Text()
	if err := os.WriteFile(unknown, other.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	const plain, scram = "plain", "scram-sha-512"
	return []Login{
		{"plain", plain, right, s.user, s.pass, ""},
		{"scram", scram, right, s.user, s.pass, ""},
		{"plain with a wrong password", plain, right, s.user, wrong, "check user and password"},
		{"scram with a wrong password", scram, right, s.user, wrong, "check user and password"},
		{"an unknown authority", scram, unknown, s.user, s.pass, "set tls.ca_file to the authority"},
	}
}

// Check compares the error of a login with what it must say. Neither it nor the log
// may hold a password.
func (l Login) Check(t testing.TB, err error, log string) {
	t.Helper()
	told := fmt.Sprint(err)
	switch {
	case l.Advice == "" && err != nil:
		t.Errorf("refused: %v", err)
	case !strings.Contains(told, l.Advice):
		t.Errorf("it is told %q, want %q", told, l.Advice)
	}
	if strings.Contains(told+log, canary) {
		t.Errorf("a password is in\n%s\n%s", told, log)
	}
}

// canary begins every password.
const canary = "canary-"

// Stop kills the broker, whose data nobody wants any more.
func (s *SharedKafka) Stop() {
	if s.k != nil {
		s.k.Kill()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

func (s *SharedKafka) start(jar string) (err error) {
	if s.dir, err = os.MkdirTemp("", "millrace-kafka-test-"); err != nil {
		return err
	}
	ca, err := pipelinetest.NewAuthority()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "ca.pem"), ca.PEM, 0o600); err != nil {
		return err
	}
	certificate, key, err := ca.Issue(nil)
	if err != nil {
		return err
	}
	keyFile := filepath.Join(s.dir, "server.pem")
	if err := os.WriteFile(keyFile, slices.Concat(key, certificate, ca.PEM), 0o600); err != nil {
		return err
	}
	s.user, s.pass = "tester", canary+rand.Text()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s.k, err = servers.StartKafka(ctx, servers.KafkaOptions{
		Jar: jar, Dir: filepath.Join(s.dir, "kafka"), Proxy: s.Proxy,
		Secure: &servers.KafkaSecurity{KeyFile: keyFile, User: s.user, Password: s.pass},
	})
	if err != nil {
		return err
	}
	return warm(ctx, s.k.Addr)
}

// warm lets a new broker make its own topics, before any test has to wait for it.
func warm(ctx context.Context, addr string) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID("warm"))
	if err != nil {
		return err
	}
	defer c.Close()
	_, _, err = c.ProducerID(ctx)
	return err
}
