package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/cmd/internal/telemetry"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/demo"
	"github.com/millrace/millrace/deploy/local"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/sinks/clickhouse"
)

const (
	// demoTuplesPerMinute and demoRate make the default estate's past hour, 8.4
	// million tuples, last 50 seconds: a demo of a minute also sees it live.
	demoTuplesPerMinute = 2200
	demoRate            = 170_000
	// demoDiurnal keeps the volume nearly the same at every time of the day.
	demoDiurnal = 5
	// demoMalformed is the share of tuples that are spoiled on purpose.
	demoMalformed = 0.00002
	demoAccount   = "millracedemo"
	chaosKills    = 5
	// demoBatching and demoSweep are quicker than anybody would pay for in production.
	demoBatching = time.Second
	demoSweep    = 5 * time.Second
	// What --real-time promises.
	realTimeLag = 10 * time.Second
	realTimeRSS = 512
)

type demoFlags struct {
	duration   time.Duration
	output     string
	keep       bool
	chaos      bool
	kills      int
	dir        string
	clickhouse string
	partitions int
	realTime   bool
	traffic    traffic.Config
}

// newDemoCommand makes `millrace demo`: the main job on embedded parts.
func newDemoCommand() *cobra.Command {
	f := demoFlags{traffic: demoTraffic()}
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: groupRun,
		Short:   "Run everything on this machine against a simulated estate, and reconcile",
		Long: fmt.Sprintf(`Runs the main job on embedded parts: an Event Hubs emulator, Azurite, a
simulated estate that writes flow logs as Azure does, the real pipeline, and a
real ClickHouse, each in a process of its own, all on loopback.

The estate starts one hour in the past, replays it faster than real time, then
goes on live. Ctrl-C drains, compares what was written with what has landed,
and exits; a second Ctrl-C kills. The exit code is not 0 when anything is lost,
doubled or altered.

The status line shows appends to blobs and landed tuples per second; the lag,
which is the event time between what was written last, or the clock once the
estate is live, and the watermark; the watermark, before which every window is
closed; and how many tuples are in quarantine. Live, a lag of 70 to 80 s is the
least there is: an interface writes once a minute, and 10 s are waited for
rows out of order.

A demo begins with clean tables, and needs about 2 GB of memory; blobs are kept
in memory, 0.6 GB for an hour. With --clickhouse it makes a database of its own
on that server and drops nothing there; user and password come from the
environment, %s and
%s.`, demo.EnvClickHouseUser, demo.EnvClickHousePassword),
		Example: `  millrace demo
  millrace demo --for 60s -o json
  millrace demo --for 60s --chaos
  millrace demo --clickhouse http://ch.example:8123`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.duration, "for", 0, "stop by itself after this time (default: run until Ctrl-C)")
	flags.StringVarP(&f.output, "output", "o", "text", "text, or json: the last line is one JSON object")
	flags.BoolVar(&f.keep, "keep", false, "add to the tables that the last demo in the folder left; blobs and ledger begin anew")
	flags.BoolVar(&f.chaos, "chaos", false, "kill the pipeline (SIGKILL) and start it again, five times")
	flags.IntVar(&f.kills, "kills", 0, "how often --chaos kills")
	flags.StringVar(&f.dir, "dir", "", "folder for tables, state and logs (default: demo in the cache folder)")
	flags.StringVar(&f.clickhouse, "clickhouse", "", "URL of a ClickHouse server to use instead of the embedded one")
	flags.BoolVar(&f.realTime, "real-time", false, "begin now, with a pipeline set up as for production, and hold its lag and memory against limits")
	flags.IntVar(&f.traffic.Accounts, "accounts", 1, "storage accounts over which the interfaces are spread")
	flags.IntVar(&f.traffic.NICs, "nics", f.traffic.NICs, "network interfaces of the estate")
	flags.IntVar(&f.traffic.TuplesPerMinute, "tuples-per-minute", f.traffic.TuplesPerMinute, "mean tuples of an interface in a minute")
	flags.Float64Var(&f.traffic.TuplesPerSecond, "rate", f.traffic.TuplesPerSecond, "tuples per second while the past hour is replayed; 0: as fast as it goes")
	flags.Uint64Var(&f.traffic.Seed, "seed", 0, "seed of the estate (default: random)")
	flags.Float64Var(&f.traffic.Malformed, "malformed", f.traffic.Malformed, "malformed tuples per good tuple")
	flags.IntVar(&f.partitions, "partitions", 4, "partitions of the event hub")
	_ = flags.MarkHidden("kills")
	_ = flags.MarkHidden("malformed")
	return cmd
}

// demoTraffic is the default estate.
func demoTraffic() traffic.Config {
	t := traffic.DefaultConfig()
	t.Account, t.Malformed = demoAccount, demoMalformed
	t.TuplesPerMinute, t.TuplesPerSecond, t.DiurnalPercent = demoTuplesPerMinute, demoRate, demoDiurnal
	return t
}

// check completes the flags and reports every fault at once.
func (f *demoFlags) check() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(f.output != "text" && f.output != "json", "-o %q: want text or json", f.output)
	fault(f.duration < 0, "--for %v: want a time such as 60s", f.duration)
	fault(f.kills < 0, "--kills %d: want 1 or more", f.kills)
	fault(f.partitions < 1 || f.partitions > 32, "--partitions %d: want 1 to 32", f.partitions)
	if f.clickhouse != "" {
		fault(!strings.HasPrefix(f.clickhouse, "http"), "--clickhouse: the demo shows questions for curl: give the URL of the HTTP interface, such as http://ch.example:8123")
		c := clickhouse.DefaultConfig()
		c.URL = f.clickhouse
		if err := c.Validate(); err != nil {
			fault(true, "--clickhouse: %w; user and password come from %s and %s", err, demo.EnvClickHouseUser, demo.EnvClickHousePassword)
		}
	}
	if f.traffic.Seed == 0 {
		f.traffic.Seed = rand.Uint64()
	}
	f.traffic.Start = time.Now().Add(-time.Hour).Truncate(time.Second)
	if f.realTime {
		f.traffic.Start = time.Now().Truncate(time.Second)
	}
	faults = append(faults, f.traffic.Validate())
	if f.chaos && f.kills == 0 {
		f.kills = chaosKills
	}
	if err := errors.Join(faults...); err != nil {
		return usageErrorf("demo: %w", err)
	}
	return nil
}

func (f demoFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	cache, err := local.DefaultCache()
	if err != nil {
		return err
	}
	machine, err := f.install(cmd, cache)
	if err != nil {
		return err
	}
	unlock, dir, err := f.folder(cmd, cache)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer unlock()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	cfg := demo.Config{
		For: f.duration, JSON: f.output == "json", Keep: f.keep, Kills: f.kills, Dir: dir,
		ClickHouse: demo.Server{
			URL: strings.TrimSuffix(f.clickhouse, "/"), User: os.Getenv(demo.EnvClickHouseUser),
			Password: secret.New(os.Getenv(demo.EnvClickHousePassword)),
		},
		Traffic: f.traffic, Partitions: f.partitions, Cache: cache,
		Program: self, ServerProgram: filepath.Join(filepath.Dir(self), "millrace-clickhouse"), Machine: machine,
		Out: cmd.OutOrStdout(), Status: cmd.ErrOrStderr(), Interrupts: interrupts,
		Batching: demoBatching, Sweep: demoSweep,
	}
	if f.realTime {
		production := config.Default()
		cfg.Batching, cfg.Sweep, cfg.Limits = production.MaxBatchAge, production.Sweeper.Interval, &demo.Limits{Lag: realTimeLag, RSSMiB: realTimeRSS}
	}
	err = demo.Run(context.WithoutCancel(cmd.Context()), cfg) // SIGTERM drains
	if errors.Is(err, demo.ErrMismatch) {
		return &exitError{code: exitFailed} // the table has said so
	}
	return err
}

// install checks the machine, downloads what is missing, and describes the machine.
func (f demoFlags) install(cmd *cobra.Command, cache local.Cache) (machine string, err error) {
	need := local.Need{Purpose: local.ForDemo, NoClickHouse: f.clickhouse != ""}
	report := local.Preflight(cmd.Context(), cache, need)
	if err := report.Err(); err != nil {
		report.Write(cmd.ErrOrStderr())
		return "", &exitError{code: exitMissing, err: errors.New("demo: this machine lacks something: see FAULT above")}
	}
	var found []string
	for _, c := range report.Checks {
		switch c.Subject {
		case "system", "libc":
			found = append(found, c.Found)
		case "node":
			found = append(found, "Node "+c.Found)
		}
	}
	machine = strings.Join(found, ", ")
	if len(report.Missing) == 0 {
		return machine, nil
	}
	report.Write(cmd.ErrOrStderr())
	return machine, local.Ensure(cmd.Context(), cache, report.Missing, local.NewPrinter(cmd.ErrOrStderr()))
}

// maxDemos bounds the folders of demos that run beside each other.
const maxDemos = 20

// folder gives the demo's folder and locks it. Without --dir a second demo beside
// the first takes the next folder.
func (f demoFlags) folder(cmd *cobra.Command, cache local.Cache) (unlock func(), dir string, err error) {
	if f.dir != "" {
		if dir, err = filepath.Abs(f.dir); err != nil {
			return nil, "", err
		}
		unlock, err = demo.LockFolder(dir)
		return unlock, dir, err
	}
	for n := 1; ; n++ {
		dir = filepath.Join(cache.Root, "demo")
		if n > 1 {
			dir = fmt.Sprintf("%s-%d", dir, n)
		}
		unlock, err = demo.LockFolder(dir)
		if err == nil && n > 1 {
			fmt.Fprintf(cmd.ErrOrStderr(), "another demo is running: this one uses the folder %s\n", dir)
		}
		if !errors.Is(err, demo.ErrBusy) || n == maxDemos {
			return unlock, dir, err
		}
	}
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
			log := telemetry.NewTextLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			return demo.RunEstate(cmd.Context(), config, log)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "file written by the demo")
	return cmd
}
