package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// Hub is the name of the demo's event hub.
const Hub = "flowlogs"

// EnvStorageKey carries the key of the demo's storage account to the estate.
const EnvStorageKey = "MILLRACE_DEMO_STORAGE_KEY"

// EstateConfig is what the estate's process is told, in a file: the simulated
// estate and the Event Hubs emulator that it publishes to.
type EstateConfig struct {
	Listen     string `json:"listen"`     // of its control interface
	EventHubs  string `json:"event_hubs"` // address of the emulator
	Partitions int    `json:"partitions"`
	// Endpoints of the blob storage, by account.
	Endpoints map[string]string `json:"endpoints"`
	Traffic   traffic.Config    `json:"traffic"`
}

// EstateStatus is what the estate's control interface tells.
type EstateStatus struct {
	PID     int           `json:"pid"` // tells the estates of two demos apart
	Traffic traffic.Stats `json:"traffic"`
	// Stopped says that the estate has ended and its truth is on disk.
	Stopped bool `json:"stopped"`
}

// RunEstate is the estate's process: it writes blobs and publishes events until it
// is told to stop, leaves the truth behind, and goes on serving the events until
// its parent ends it.
func RunEstate(ctx context.Context, configFile string, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	process.WatchParent(cancel)
	data, err := os.ReadFile(configFile)
	if err != nil {
		return fmt.Errorf("estate: %w", err)
	}
	var cfg EstateConfig
	if err := json.Unmarshal(data, &cfg); err != nil {
		return fmt.Errorf("estate: %q: %w", configFile, err)
	}
	e, err := newEstate(cfg, log)
	if err != nil {
		return fmt.Errorf("estate: %w", err)
	}
	return e.run(ctx)
}

type estate struct {
	cfg       EstateConfig
	hub       *emulator.Server
	simulator *traffic.Simulator
	listener  net.Listener

	stopOnce sync.Once
	stop     chan struct{} // closed: end the simulation
	ended    chan struct{} // closed: the simulation has ended
	err      error
}

func newEstate(cfg EstateConfig, log *slog.Logger) (*estate, error) {
	e := &estate{cfg: cfg, stop: make(chan struct{}), ended: make(chan struct{})}
	var err error
	e.hub, err = emulator.New(emulator.Config{Addr: cfg.EventHubs, Hubs: []emulator.Hub{{Name: Hub, Partitions: cfg.Partitions}}, Logger: log})
	if err != nil {
		return nil, err
	}
	blobs := traffic.Accounts{}
	for account, endpoint := range cfg.Endpoints {
		if blobs[account], err = traffic.DialAzure(endpoint, account, os.Getenv(EnvStorageKey)); err != nil {
			return nil, err
		}
	}
	e.simulator, err = traffic.New(cfg.Traffic, traffic.Deps{Blobs: blobs, Publish: e.publish, Logger: log})
	if err != nil {
		return nil, err
	}
	e.listener, err = net.Listen("tcp", cfg.Listen)
	return e, err
}

func (e *estate) publish(_ context.Context, key string, body []byte) error {
	route := emulator.InTurn()
	if key != "" {
		route = emulator.ByKey(key)
	}
	_, err := e.hub.Publish(Hub, route, body, nil)
	return err
}

func (e *estate) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.hub.Run(ctx) })
	group.Go(func() error {
		defer close(e.ended)
		e.err = e.simulate(ctx)
		return e.err
	})
	server := newControlServer(e.control())
	group.Go(func() error {
		if err := server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return group.Wait()
}

// newControlServer bounds what a client may hold. /stop is answered when the
// simulation has ended, so the answer has no limit of time. A page of another site
// that is open in this machine's browser may not stop the demo.
func newControlServer(control http.Handler) *http.Server {
	return &http.Server{
		Handler:           http.NewCrossOriginProtection().Handler(control),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
}

func (e *estate) simulate(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-e.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := e.simulator.Run(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// control serves /status, and /stop, which answers when the truth is on disk.
func (e *estate) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := EstateStatus{PID: os.Getpid(), Traffic: e.simulator.Snapshot()}
		select {
		case <-e.ended:
			s.Stopped = true
		default:
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the reader has gone away
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		e.stopOnce.Do(func() { close(e.stop) })
		// The deadline for reading the request would end its context, too.
		if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		select {
		case <-e.ended:
		case <-r.Context().Done():
			return
		}
		if e.err != nil {
			http.Error(w, e.err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}
