package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/demo"
	"github.com/millrace/millrace/deploy/local"
)

type demoFlags struct {
	duration   time.Duration
	output     string
	keep       bool
	chaos      bool
	dir        string
	clickhouse string
	nics       int
	tuples     int
	rate       float64
	seed       uint64
	partitions int
}

// newDemoCommand makes `millrace demo`: the main job on embedded parts.
func newDemoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: groupRun,
		Short:   "Run everything on this machine against a simulated estate, and reconcile",
		Long: `Runs the main job on embedded parts: an Event Hubs emulator, Azurite, a
simulated estate that writes flow logs as Azure does, the real pipeline, and a
real ClickHouse, each in a process of its own, all on loopback.

The estate starts one hour in the past, replays it faster than real time, then
goes on live. Ctrl-C drains, compares what was written with what has landed,
and exits; a second Ctrl-C kills. The exit code is not 0 when a row is lost or
doubled.`,
		Example: `  millrace demo
  millrace demo --for 60s -o json
  millrace demo --for 60s --chaos`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.duration, "for", 0, "stop by itself after this time (default: run until Ctrl-C)")
	flags.StringVarP(&f.output, "output", "o", "text", "text, or json: the last line is one JSON object")
	flags.BoolVar(&f.keep, "keep", false, "go on with the tables that the last demo left")
	flags.BoolVar(&f.chaos, "chaos", false, "kill the pipeline (SIGKILL) and start it again, five times")
	flags.StringVar(&f.dir, "dir", "", "folder for state, data and logs (default: demo in the cache folder)")
	flags.StringVar(&f.clickhouse, "clickhouse", "", "URL of a ClickHouse server to use instead of the embedded one")
	flags.IntVar(&f.nics, "nics", 0, "network interfaces of the estate (default 64)")
	flags.IntVar(&f.tuples, "tuples-per-minute", 0, "mean tuples of an interface in a minute (default 2000)")
	flags.Float64Var(&f.rate, "rate", demoRate, "tuples per second while the past hour is replayed; 0: as fast as it goes")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of the estate (default: random)")
	flags.IntVar(&f.partitions, "partitions", 4, "partitions of the event hub")
	return cmd
}

const (
	// demoRate replays the past hour of the default estate in about 50 seconds.
	demoRate = 160_000
	// demoMalformed is the share of tuples that are spoiled on purpose.
	demoMalformed = 0.00002
	chaosKills    = 5
)

func (f demoFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return usageErrorf("-o %q: want text or json", f.output)
	}
	cache, err := local.DefaultCache()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if err := f.install(cmd, cache); err != nil {
		return err
	}
	unlock, dir, err := f.folder(cache)
	if err != nil {
		return err
	}
	defer unlock()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := demo.Config{
		For: f.duration, JSON: f.output == "json", Keep: f.keep, Dir: dir, ClickHouse: f.clickhouse,
		Traffic: f.traffic(), Partitions: f.partitions, Cache: cache,
		Program: self, Server: filepath.Join(filepath.Dir(self), "millrace-clickhouse"),
		Out: cmd.OutOrStdout(), Status: cmd.ErrOrStderr(),
	}
	if f.chaos {
		cfg.Chaos = chaosKills
	}
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	cfg.Interrupts = interrupts
	return demo.Run(ctx, cfg)
}

// install checks the machine and downloads what is missing.
func (f demoFlags) install(cmd *cobra.Command, cache local.Cache) error {
	need := local.Need{Purpose: local.ForDemo, NoClickHouse: f.clickhouse != ""}
	report := local.Preflight(cmd.Context(), cache, need)
	if err := report.Err(); err != nil {
		report.Write(cmd.ErrOrStderr())
		return &exitError{code: exitMissing, err: fmt.Errorf("demo: this machine lacks something: %w", err)}
	}
	if len(report.Missing) == 0 {
		return nil
	}
	report.Write(cmd.ErrOrStderr())
	return local.Ensure(cmd.Context(), cache, report.Missing, local.NewPrinter(cmd.ErrOrStderr()))
}

func (f demoFlags) traffic() traffic.Config {
	t := traffic.DefaultConfig()
	t.Account = "millracedemo"
	t.Malformed = demoMalformed
	t.TuplesPerSecond = f.rate
	t.Seed = f.seed
	if t.Seed == 0 {
		t.Seed = rand.Uint64()
	}
	if f.nics > 0 {
		t.NICs = f.nics
	}
	if f.tuples > 0 {
		t.TuplesPerMinute = f.tuples
	}
	t.Start = time.Now().Add(-time.Hour).Truncate(time.Second)
	return t
}

// folder gives the demo's folder and locks it. Without --dir a second demo beside
// the first takes the next folder.
func (f demoFlags) folder(cache local.Cache) (unlock func(), dir string, err error) {
	if f.dir != "" {
		dir, err = filepath.Abs(f.dir)
		if err != nil {
			return nil, "", err
		}
		unlock, err = lockFolder(dir)
		return unlock, dir, err
	}
	for n := 1; ; n++ {
		dir = filepath.Join(cache.Root, "demo")
		if n > 1 {
			dir = fmt.Sprintf("%s-%d", dir, n)
		}
		unlock, err = lockFolder(dir)
		if !errors.Is(err, errBusy) || n == 20 {
			return unlock, dir, err
		}
	}
}

var errBusy = errors.New("another demo uses it")

func lockFolder(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("folder %q: %w", dir, errBusy)
	}
	return func() { file.Close() }, nil
}

// newDemoEstateCommand makes the demo's own child: emulator and estate.
func newDemoEstateCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:    "demo-estate",
		Short:  "The estate of millrace demo, started by it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The parent decides when to end; a Ctrl-C on the terminal is for it alone.
			signal.Ignore(os.Interrupt, syscall.SIGHUP)
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return demo.RunEstate(cmd.Context(), config, log)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "file written by the demo")
	return cmd
}
