package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/release"
	"github.com/millrace/millrace/cmd/internal/reload"
	"github.com/millrace/millrace/cmd/internal/telemetry"
	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/pipeline/engine"
)

type runFlags struct {
	config        string
	endOfInput    bool
	dieWithParent bool
	verbose       bool
	logFormat     string
	statusEvery   time.Duration
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
the next start finishes what was under way.

With a shared ledger (ledger.azure), several instances may run: one of them owns the
ledger, the others stand by and take over when it stops or gives no sign of life.`,
		Example: "  millrace run --config millrace.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log more than log_level of the configuration")
	cmd.Flags().StringVar(&f.logFormat, "log-format", telemetry.LogText, "format of the log on standard error: text or json")
	cmd.Flags().DurationVar(&f.statusEvery, "status-every", time.Minute, "time between two lines that tell how the pipeline stands, 0 for none; on a terminal one line that is rewritten")
	cmd.Flags().BoolVar(&f.endOfInput, "end-of-input-on-stop", false, "a soft stop is the end of the input: look at everything once more and close every window")
	cmd.Flags().BoolVar(&f.dieWithParent, "die-with-parent", false, "end at once when standard input closes")
	_ = cmd.Flags().MarkHidden("die-with-parent")
	return cmd
}

func (f runFlags) run(cmd *cobra.Command) error {
	cfg, err := config.Load(f.config)
	if errors.Is(err, fs.ErrNotExist) {
		return usageErrorf("%w: name the file with --config", err)
	}
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	level := new(slog.LevelVar)
	if err := f.setLevel(level, cfg); err != nil {
		return usageErrorf("log_level: %w", err)
	}
	stderr := asScreen(cmd.ErrOrStderr())
	handler, err := telemetry.NewHandler(stderr, f.logFormat, level)
	if err != nil {
		return usageErrorf("--log-format: %w", err)
	}
	local := slog.New(handler) // of this process alone; parts get the one that telemetry makes
	if f.dieWithParent {
		process.WatchParent(func() { os.Exit(1) })
		signal.Ignore(os.Interrupt, syscall.SIGHUP)
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(cmd.Context()))
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	t, err := telemetry.Start(ctx, telemetry.Config{Listen: cfg.Listen, ServiceName: "millrace", Version: release.Short(), Logger: local})
	if err != nil {
		return err
	}
	log := t.Logger()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		if err := t.Shutdown(ctx); err != nil {
			local.Warn("telemetry", slog.Any("cause", err))
		}
	}()
	const scope = "github.com/millrace/millrace"
	server, err := assembly.NewServer(cfg, assembly.Deps{Meter: t.Meter(scope), Tracer: t.Tracer(scope), Logger: log})
	if err != nil {
		return err
	}
	pages := []any{slog.String("config", f.config), slog.String("status", t.URL()+"/status"), slog.String("metrics", t.URL()+"/metrics")}
	server.Started = func(*assembly.Pipeline) { log.Info("pipeline starts", pages...) }
	server.StandingBy = func() { log.Info("pipeline stands by", pages...) }
	t.SetReady(server.Ready)
	t.Handle("GET /status", statusPage(server))
	go f.stopOnSignal(ctx, cancel, signals, server, local)
	line := newStatusLine(f.statusEvery, stderr, f.logFormat, local, server)
	telling, stop := context.WithCancel(ctx)
	var told sync.WaitGroup
	told.Go(func() { line.run(telling) })
	defer told.Wait()
	defer stop()
	watcher := reload.New(f.config, cfg, log)
	watcher.OnReload(func(_, fresh config.Config) error { return f.setLevel(level, fresh) })
	watcher.OnReload(server.Reload)
	hangup := make(chan os.Signal, 1)
	if !f.dieWithParent { // a terminal that closes is not the user's wish then
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
	}
	told.Go(func() { watcher.Run(telling, hangup) })
	return server.Run(ctx)
}

// setLevel hears log_level; --verbose goes before.
func (f runFlags) setLevel(level *slog.LevelVar, cfg config.Config) error {
	if f.verbose {
		level.Set(slog.LevelDebug)
		return nil
	}
	return level.UnmarshalText([]byte(cfg.LogLevel))
}

// shutdownTimeout bounds sending the last spans.
const shutdownTimeout = 5 * time.Second

// stopOnSignal ends a start, or a standby, at the first signal. Once the pipeline
// runs it drains at the first signal and stops hard at the second.
func (f runFlags) stopOnSignal(ctx context.Context, cancel context.CancelCauseFunc, signals <-chan os.Signal, server *assembly.Server, log *slog.Logger) {
	select {
	case <-signals:
	case <-ctx.Done():
		return
	}
	if server.Pipeline() != nil {
		log.Info("draining; a second signal stops at once")
	}
	server.Drain(f.endOfInput)
	select {
	case <-signals:
		log.Warn("stopping hard: the next start finishes what was under way")
		cancel(nil)
	case <-ctx.Done():
	}
}

// status is what /status tells.
type status struct {
	PID int `json:"pid"`
	assembly.State
	engine.Status
	BytesFetched int64                   `json:"bytes_fetched"`
	Requests     int64                   `json:"requests"`
	Sources      []assembly.SourceStatus `json:"sources"`
}

// statusPage tells how the pipeline stands, as JSON.
func statusPage(server *assembly.Server) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s := status{PID: os.Getpid(), State: server.State()}
		if p := server.Pipeline(); p != nil {
			read := p.Reader.Stats()
			s.Status, s.BytesFetched, s.Requests, s.Sources = p.Engine.Status(), read.Bytes, read.Requests, p.Sources()
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the reader has gone away
	}
}
