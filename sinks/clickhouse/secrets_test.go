package clickhouse

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
)

const canary = "canary-7f3a"

func TestSecretIsNeverShown(t *testing.T) {
	c := DefaultConfig()
	c.Password = secret.New(canary)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("config", c), slog.Any("password", c.Password))
	inJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	inYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{log.String(), string(inJSON), string(inYAML)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		shown = append(shown, fmt.Sprintf(verb, c), fmt.Sprintf(verb, c.Password), fmt.Sprintf(verb, &c), fmt.Sprintf(verb, []secret.Secret{c.Password}))
	}
	for _, text := range shown {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
			t.Errorf("the password is shown: %s", text)
		}
	}
}

// Every call against a server that refuses: the password is in a header, in no URL
// and in no error, and goes to no other host.
func TestPasswordTravelsInAHeaderOnly(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed to %s", r.URL)
	}))
	defer other.Close()
	var mode atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-ClickHouse-User") != "millrace" || r.Header.Get("X-ClickHouse-Key") != canary {
			t.Errorf("request without user and password in its headers: %s", r.URL.Path)
		}
		if strings.Contains(r.URL.String(), canary) || r.Header.Get("Authorization") != "" {
			t.Errorf("the password is outside of its header: %s", r.URL)
		}
		switch mode.Load() {
		case 0:
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case 1:
			w.Header().Set("X-ClickHouse-Exception-Code", "516")
			w.WriteHeader(http.StatusForbidden)
		case 2: // as a careless proxy does
			fmt.Fprint(w, r.Header)
		case 3:
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, r.Header)
		default:
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	c := config(t, server.URL)
	c.User, c.Password = "millrace", secret.New(canary)
	s := open(t, c)
	batch := pipeline.NewBatchID(1, 2, 3)
	p := remake(t, batch)
	conn, err := s.Conn()
	if err != nil {
		t.Fatal(err)
	}
	for m := range int32(5) {
		mode.Store(m)
		for name, call := range map[string]func() error{
			"Land":  func() error { return s.Land(t.Context(), batch, 1, p) },
			"known": func() error { s.first.known = map[string]bool{}; return s.Land(t.Context(), batch, 1, p) },
			"Fence": func() error { return s.Fence(t.Context(), 1, 2, 3) },
			"Probe": func() error { _, err := s.Probe(t.Context(), batch, []pipeline.PieceRef{p.PieceRef}); return err },
			"Setup": func() error { return s.Setup(t.Context(), nil) },
			"Check": func() error { return s.CheckSettings(t.Context()) },
			"Exec":  func() error { _, err := s.Exec(t.Context(), "SELECT 1"); return err },
			"Conn":  func() error { return conn.QueryRow(t.Context(), "SELECT 1").Err() },
		} {
			err := call()
			if err == nil && m != 2 {
				t.Errorf("%s succeeded", name)
			} else if err != nil && (strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "INSERT INTO")) {
				t.Errorf("%s: the error holds the password or the URL: %v", name, err)
			}
		}
		s.first.known = nil
	}
}

// The password goes to no server that is not good, over either wire.
func TestTLSIsVerified(t *testing.T) {
	trusted, err := pipelinetest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, trusted.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"https", "tls"} {
		t.Run(scheme, func(t *testing.T) {
			pipelinetest.TLSLaws(t, trusted, func(t *testing.T, address string) error {
				c := config(t, scheme+"://"+address)
				c.CAFile, c.User, c.Password, c.DialTimeout = ca, "millrace", secret.New(canary), 2*time.Second
				s := open(t, c)
				defer s.Close()
				s.first.known = map[string]bool{}
				batch := pipeline.NewBatchID(1, 2, 3)
				_, err := s.Exec(t.Context(), "SELECT 1")
				landed := s.Land(t.Context(), batch, 1, remake(t, batch))
				if landed == nil {
					t.Error("it landed")
				}
				if text := fmt.Sprint(err, landed); strings.Contains(text, canary) {
					t.Errorf("the password is told: %s", text)
				}
				return err
			})
		})
	}
}

func TestTLS(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "1") })
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config(t, server.URL)
	c.CAFile = ca
	if got, err := open(t, c).Exec(t.Context(), "SELECT 1"); err != nil || got != "1\n" {
		t.Errorf("with the right authority: %q, %v", got, err)
	}
	strange := c
	strange.CAFile = ""
	s := open(t, strange)
	s.first.known = map[string]bool{}
	batch := pipeline.NewBatchID(1, 2, 3)
	for name, err := range map[string]error{
		"Land":  s.Land(t.Context(), batch, 1, remake(t, batch)),
		"Setup": s.Setup(t.Context(), nil),
	} {
		if err == nil || errors.Is(err, pipeline.ErrTransient) || errors.Is(err, pipeline.ErrInDoubt) || !strings.Contains(err.Error(), "ca_file") {
			t.Errorf("%s with an unknown authority: %v, want a fatal error that names ca_file", name, err)
		}
	}
	for _, bad := range []string{filepath.Join(t.TempDir(), "none"), os.DevNull} {
		c.CAFile = bad
		if _, err := New(c, nil); err == nil {
			t.Errorf("ca_file %q was accepted", bad)
		}
	}
}
