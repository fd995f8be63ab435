package assembly_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
)

// A target that goes away while a start asks it, after it had answered at first, is
// waited for like one that is not there yet.
func TestTargetGoesAwayDuringAStart(t *testing.T) {
	address, _ := localtest.StartClickHouse(t)
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	var mu sync.Mutex
	hungUp := map[string]bool{}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // the client went away
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		for _, question := range []string{"system.settings", "`ledgers` GROUP BY"} {
			if bytes.Contains(body, []byte(question)) && !hungUp[question] {
				hungUp[question] = true
				mu.Unlock()
				panic(http.ErrAbortHandler)
			}
		}
		mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	w := newWorldOf(t, jobtest.Options{URL: address, Via: func(s jobtest.Service, addr string) string {
		if s == jobtest.ClickHouse {
			return strings.TrimPrefix(front.URL, "http://")
		}
		return addr
	}})
	cfg, err := config.Parse([]byte(w.YAML))
	if err != nil {
		t.Fatal(err)
	}
	p, err := assembly.Open(t.Context(), cfg, assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if len(hungUp) != 2 {
		t.Errorf("the server hung up on %v only: the test proves little", hungUp)
	}
}
