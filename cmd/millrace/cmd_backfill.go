package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/cmd/internal/telemetry"

	"github.com/spf13/cobra"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/backfill"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/blob"
)

// backfillFlags are those of backfill and replay.
type backfillFlags struct {
	config, output     string
	from, to           string
	account, container string
	dryRun, yes        bool
	verbose            bool
}

// threeWays is in the help of all who land the past.
const threeWays = `Three commands land what the live pipeline has not, each row once:
  backfill           blobs of past hours that are still in the storage account
  replay             a recorded tree of blobs on this machine
  quarantine replay  single records and tuples that could not become rows before`

// newBackfillCommand makes `millrace backfill`.
func newBackfillCommand() *cobra.Command {
	var f backfillFlags
	cmd := &cobra.Command{
		Use:     "backfill --from TIME --to TIME",
		GroupID: groupRun,
		Short:   "Land blobs of past hours, each row once, beside the live pipeline",
		Long: `Lists the blobs of whole hours from --from to --to in the configured containers,
says what landing them comes to, asks, and lands them: only what neither the live
pipeline nor an earlier backfill has landed. Windows get rows that add up with those
that are there.

The live pipeline may run meanwhile, or be stopped. Hours that it may still read are
left to it: those after its start and not older than 50 hours. One backfill or replay
of a pipeline runs at a time. It may be killed at any time: the same command goes on
where it stopped. The exit code is 1 when a blob could not be read or was left alone.

` + threeWays,
		Example: `  millrace backfill -c millrace.yaml --from 2026-11-01 --to 2026-11-08 --dry-run
  millrace backfill -c millrace.yaml --from 2026-11-01 --to 2026-11-08
  millrace backfill --from 2026-11-01T06:00:00Z --to 2026-11-01T09:00:00Z --yes -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.from == "" || f.to == "" {
				return usageErrorf("backfill: which hours? Give --from and --to, such as --from 2026-11-01 --to 2026-11-08")
			}
			return f.run(cmd, func(_ context.Context, cfg config.Config, deps assembly.Deps) (*assembly.Pipeline, backfill.Deps, error) {
				return assembly.OpenBackfill(cfg, deps)
			})
		},
	}
	f.common(cmd)
	cmd.Flags().StringVar(&f.from, "from", "", "first hour: a day, a time (RFC 3339) or now-DURATION")
	cmd.Flags().StringVar(&f.to, "to", "", "end of the last hour, in the same forms")
	return cmd
}

// newReplayCommand makes `millrace replay`.
func newReplayCommand() *cobra.Command {
	var f backfillFlags
	cmd := &cobra.Command{
		Use:     "replay DIR",
		GroupID: groupRun,
		Short:   "Land a recorded tree of blobs, each row once",
		Long: `Lands every PT1H.json file below DIR through the operators and sinks of the
configuration. DIR holds copies of containers: the first two folders below it are
account and container, as in DIR/account/container/…/PT1H.json, and the rest is the
blob's name. With --account and --container, DIR is the copy of that one container;
any tree of files will do then, under names of your choice.

A file stands for the blob of its name: what has landed of it, from the storage
account or in an earlier replay, does not land again, and what the live pipeline may
still read is left to it. Links, and whatever is no regular file, are passed over;
so are .gz files: unpack them first. Files without an hour in their names must hold
rows of the last 50 hours. Otherwise as backfill: estimate, question, resumption.

` + threeWays,
		Example: `  millrace replay -c millrace.yaml ./recorded --dry-run
  millrace replay -c millrace.yaml ./recorded
  millrace replay ./one-container --account contosologs --container insights-logs-flowlogflowevent --yes`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageErrorf("replay: which tree? Give one DIR that holds the recorded blobs")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if (f.account == "") != (f.container == "") {
				return usageErrorf("replay: give --account and --container, or neither")
			}
			return f.run(cmd, func(ctx context.Context, cfg config.Config, deps assembly.Deps) (*assembly.Pipeline, backfill.Deps, error) {
				return assembly.OpenReplay(ctx, cfg, deps, blob.DirectoryConfig{Path: args[0], Account: f.account, Container: f.container})
			})
		},
	}
	f.common(cmd)
	cmd.Flags().StringVar(&f.from, "from", "", "only hours from here on: a day, a time (RFC 3339) or now-DURATION")
	cmd.Flags().StringVar(&f.to, "to", "", "only hours before this")
	cmd.Flags().StringVar(&f.account, "account", "", "DIR is a container of this account ...")
	cmd.Flags().StringVar(&f.container, "container", "", "... with this name")
	return cmd
}

func (f *backfillFlags) common(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file of the pipeline")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text, or json: one object a line, the estimate and the result")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what it comes to, and land nothing")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "start without being asked")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log more")
}

type openBackfill func(ctx context.Context, cfg config.Config, deps assembly.Deps) (*assembly.Pipeline, backfill.Deps, error)

// run checks what was typed, opens the parts, and does it all.
func (f *backfillFlags) run(cmd *cobra.Command, open openBackfill) error {
	name := cmd.Name()
	if f.output != "text" && f.output != "json" {
		return usageErrorf("-o %q: want text or json", f.output)
	}
	from, to, err := f.period(name, time.Now())
	if err != nil {
		return err
	}
	if !f.dryRun && !f.yes && !isTerminal(os.Stdin) {
		return usageErrorf("%s: nobody can be asked here: give --yes to start at once, or --dry-run for the estimate alone", name)
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT)
	defer stop()
	p, deps, err := open(ctx, cfg, f.deps(cmd))
	if err != nil {
		return err
	}
	defer p.Close()
	b, err := backfill.Open(ctx, deps, from, to, f.dryRun)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer b.Close()
	r := backfillRun{f, cmd, b, backfill.Printer{Out: cmd.OutOrStdout(), JSON: f.output == "json"}}
	err = r.all(ctx, p.Skipped)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted: the same command goes on where it stopped")
	}
	return err
}

// deps are what the parts tell about themselves: warnings.
func (f *backfillFlags) deps(cmd *cobra.Command) assembly.Deps {
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	log := telemetry.NewTextLogger(cmd.ErrOrStderr(), level)
	return assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: log}
}

// period reads --from and --to; zero: no bound.
func (f *backfillFlags) period(name string, now time.Time) (from, to time.Time, err error) {
	if from, err = moment(f.from, now); err != nil {
		return from, to, usageErrorf("%s: --from %w", name, err)
	}
	if to, err = moment(f.to, now); err != nil {
		return from, to, usageErrorf("%s: --to %w", name, err)
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, usageErrorf("%s: --from %s is not before --to %s", name, f.from, f.to)
	}
	return from, to, nil
}

// moment reads a day, or what `start` takes in a configuration.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day, nil
	}
	t, err := config.Config{Start: text}.StartTime(now.UTC())
	if err != nil {
		return t, fmt.Errorf("%q: want a day such as 2026-11-01, a time such as 2026-11-01T06:00:00Z, or now-DURATION", text)
	}
	return t, nil
}

// backfillRun is one command at work.
type backfillRun struct {
	*backfillFlags
	cmd *cobra.Command
	b   *backfill.Backfill
	out backfill.Printer
}

func (r backfillRun) all(ctx context.Context, skipped func() map[string]int) error {
	line := newProgressLine(r.cmd.ErrOrStderr())
	e, err := r.b.Estimate(ctx, func(t backfill.Tally) {
		line.show(func() string { return fmt.Sprintf("listing: %d blobs to land so far", t.Blobs[backfill.Todo]) })
	})
	line.clear()
	if err != nil {
		return err
	}
	if err := r.out.Estimate(e, r.b.Border(), skipped()); err != nil {
		return err
	}
	if r.dryRun {
		return nil
	}
	if e.Blobs[backfill.Todo] > 0 && !r.yes && !r.agreed() {
		return errors.New("nothing was landed")
	}
	began := time.Now()
	result, err := r.b.Run(ctx, func(p backfill.Progress) {
		line.show(func() string {
			width := 0
			if line.terminal {
				width = 30
			}
			return backfill.Bar(p, e, time.Since(began), width)
		})
	})
	line.clear()
	if err != nil {
		return err
	}
	if err := r.out.Result(result); err != nil {
		return err
	}
	if n := len(result.Failed); n > 0 {
		return fmt.Errorf("%d blobs could not be read: run the command again when they can, it lands the rest", n)
	}
	if n := result.Blobs[backfill.Uncertain]; n > 0 {
		return fmt.Errorf("%d blobs were left alone: see above", n)
	}
	return nil
}

// agreed asks.
func (r backfillRun) agreed() bool {
	fmt.Fprint(r.cmd.ErrOrStderr(), "Start? [y/N] ")
	answer, _ := bufio.NewReader(r.cmd.InOrStdin()).ReadString('\n') // no answer is no
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

// progressLine is a line that is rewritten on a terminal, and a plain one now and then
// elsewhere.
type progressLine struct {
	out      io.Writer
	terminal bool
	every    time.Duration
	last     time.Time
	shown    bool
}

func newProgressLine(out io.Writer) *progressLine {
	l := &progressLine{out: out, terminal: isTerminal(out), every: 10 * time.Second, last: time.Now()}
	if l.terminal {
		l.every = 200 * time.Millisecond
	}
	return l
}

func (l *progressLine) show(text func() string) {
	now := time.Now()
	if now.Sub(l.last) < l.every {
		return
	}
	l.last = now
	if l.terminal {
		fmt.Fprintf(l.out, "\r\x1b[K%s", text())
		l.shown = true
		return
	}
	fmt.Fprintln(l.out, text())
}

func (l *progressLine) clear() {
	if l.shown {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.shown = false
	}
}
