package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ErrStandby from a ready function: the process does no work, and is as it should
// be. /readyz answers 200 and says so, or else no rollout would get past a standby.
var ErrStandby = errors.New("standby")

// limits hold a client that is slow, or many of them, away from the pipeline's
// memory.
type limits struct {
	header, read, write, idle time.Duration
	headerBytes               int
	connections, scrapes      int
	ready                     time.Duration
}

var defaultLimits = limits{
	header: 5 * time.Second, read: 10 * time.Second, write: 30 * time.Second, idle: time.Minute,
	headerBytes: 16 << 10, connections: 64, scrapes: 4, ready: 2 * time.Second,
}

// page is the HTTP server of one process.
type page struct {
	addr   string
	mux    *http.ServeMux
	server *http.Server
	served chan error // of the one goroutine
}

// mux answers GET and HEAD on three paths; Handle adds more.
func (t *Telemetry) mux(registry *prometheus.Registry, limits limits) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry, MaxRequestsInFlight: limits.scrapes, Timeout: limits.read,
	}))
	// Alive means that the process answers; what it lacks is for readyz to say.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limits.ready)
		defer cancel()
		if err := (*t.ready.Load())(ctx); errors.Is(err, ErrStandby) {
			answer(w, http.StatusOK, err.Error())
			return
		} else if err != nil {
			answer(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A client that went away is no fault of ours.
	_, _ = io.WriteString(w, text+"\n")
}

func servePage(ctx context.Context, listen string, mux *http.ServeMux, logger *slog.Logger, limits limits) (*page, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	// Go takes an empty host for all interfaces; whoever means that writes it.
	if host == "" {
		host = "127.0.0.1"
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("listen for metrics (choose another telemetry.listen): %w", err)
	}
	p := &page{addr: listener.Addr().String(), mux: mux, served: make(chan error, 1)}
	places := &crowd{Listener: listener, limit: limits.connections}
	p.server = &http.Server{
		Handler:           places.serve(mux),
		ConnContext:       places.remember,
		ReadHeaderTimeout: limits.header, ReadTimeout: limits.read, WriteTimeout: limits.write, IdleTimeout: limits.idle,
		MaxHeaderBytes: limits.headerBytes,
		ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	go func() {
		err := p.server.Serve(places)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		p.served <- err
		close(p.served)
	}()
	return p, nil
}

// shutdown lets requests end until ctx does, then cuts them.
func (p *page) shutdown(ctx context.Context) error {
	err := p.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, p.server.Close())
	}
	return errors.Join(err, <-p.served)
}
