package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/pipeline/engine"
)

type runFlags struct {
	config        string
	endOfInput    bool
	dieWithParent bool
	verbose       bool
}

// newRunCommand makes `millrace run`.
func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:     "run",
		GroupID: groupRun,
		Short:   "Run a pipeline: notifications in, rows and windows out",
		Long: `Runs the pipeline that the configuration describes until SIGTERM or Ctrl-C,
which stops it softly: what was announced is read and landed, and the ledger is
closed. A second signal, or kill -9, stops it hard: nothing is lost then either,
the next start finishes what was under way.`,
		Example: "  millrace run --config millrace.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	cmd.Flags().BoolVar(&f.endOfInput, "end-of-input-on-stop", false, "a soft stop is the end of the input: look at everything once more and close every window")
	cmd.Flags().BoolVar(&f.dieWithParent, "die-with-parent", false, "end at once when standard input closes")
	_ = cmd.Flags().MarkHidden("die-with-parent")
	return cmd
}

func (f runFlags) run(cmd *cobra.Command) error {
	cfg, err := config.Load(f.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	if f.dieWithParent {
		process.WatchParent(func() { os.Exit(1) })
		signal.Ignore(os.Interrupt, syscall.SIGHUP)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer cancel()
	p, err := assembly.Open(ctx, cfg, assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: log})
	if err != nil {
		return err
	}
	defer p.Close()
	stopServing, err := serveStatus(cfg.Listen, p)
	if err != nil {
		return err
	}
	defer stopServing()
	go f.stopOnSignal(ctx, cancel, p.Engine, log)
	return p.Run(ctx)
}

// stopOnSignal drains at the first signal and stops hard at the second.
func (f runFlags) stopOnSignal(ctx context.Context, cancel context.CancelFunc, e *engine.Engine, log *slog.Logger) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	select {
	case <-signals:
	case <-ctx.Done():
		return
	}
	log.Info("draining; a second signal stops at once")
	e.Drain(f.endOfInput)
	select {
	case <-signals:
		log.Warn("stopping hard: the next start finishes what was under way")
		cancel()
	case <-ctx.Done():
	}
}

// status is what /status tells.
type status struct {
	engine.Status
	BytesFetched int64 `json:"bytes_fetched"`
	Requests     int64 `json:"requests"`
}

func serveStatus(listen string, p *assembly.Pipeline) (func(), error) {
	if listen == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := status{Status: p.Engine.Status(), BytesFetched: p.Reader.Stats().Bytes, Requests: p.Reader.Stats().Requests}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the reader has gone away
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !p.Engine.Ready() {
			http.Error(w, "recovering", http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("status server ended", "cause", err)
		}
	}()
	return func() { _ = server.Close() }, nil
}
