package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/verify"
	"github.com/millrace/millrace/pipeline/ledger"
)

type verifyFlags struct {
	config, output string
	from, to       string
	quick, blobs   bool
	repair, yes    bool
	limit          int
	verbose        bool
}

// newVerifyCommand makes `millrace verify`.
func newVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:     "verify",
		GroupID: groupInvestigate,
		Short:   "Recount a period from the blobs against rows, windows and ledger",
		Long: `Compares, for the hours from --from to --to: the rows of every commit with what it
recorded, byte ranges with each other, windows with rows, entries of the quarantine
with what was refused; and with --blobs, which is the default, all of it with the
bytes of the blobs, which it lists, reads and decodes again. Prints what is missing,
surplus, altered or unread, with blob and byte range, and what to do.

The pipeline may run meanwhile: what is on its way is pending. Rows behind a TTL, days
that were deleted and told of with millrace forget, and blobs that are gone are
expired, and no difference. Columns of enrichment and estimates of distinct values are
not compared.

With --repair it says what it would do to put things right, and writes nothing; with
--yes it does it, and compares again. Missing and altered rows land again out of their
bytes, under the commit that had them; surplus rows are removed, the good copy stays;
windows are made again from rows. A repair that was killed goes on when it is run again.

Exit codes: 0 exact, 1 differences or an error, 2 wrong usage.`,
		Example: `  millrace verify -c millrace.yaml
  millrace verify --from 2026-11-26T08:00Z --to 09:00Z --quick
  millrace verify --from now-48h --to now-2h -o json
  millrace verify --from 2026-11-26 --to 2026-11-27 --repair --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file of the pipeline")
	flags.StringVarP(&f.output, "output", "o", "text", "text, or json: one object a line, each finding and then the result")
	flags.StringVar(&f.from, "from", "", "first hour: a day, a time (RFC 3339) or now-DURATION; without it the last 24 complete hours")
	flags.StringVar(&f.to, "to", "", "end of the last hour, in the same forms, or a time of the day of --from: 09:00Z")
	flags.BoolVar(&f.quick, "quick", false, "tables and ledger only: no blob is read")
	flags.BoolVar(&f.blobs, "blobs", false, "compare with the bytes of the blobs; the default")
	flags.BoolVar(&f.repair, "repair", false, "say what a repair would do; with --yes do it")
	flags.BoolVarP(&f.yes, "yes", "y", false, "repair without being asked")
	flags.IntVar(&f.limit, "limit", 50, "print at most so many findings; 0 prints all")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	cmd.MarkFlagsMutuallyExclusive("quick", "blobs")
	cmd.MarkFlagsMutuallyExclusive("quick", "repair")
	return cmd
}

// run checks what was typed, opens the parts and compares.
func (f *verifyFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return usageErrorf("-o %q: want text or json", f.output)
	}
	if f.yes && !f.repair {
		return usageErrorf("verify: --yes belongs to --repair, which is missing")
	}
	if f.limit < 0 {
		return usageErrorf("--limit %d: want 0 or more", f.limit)
	}
	now := time.Now()
	from, to, err := f.period(now)
	if err != nil {
		return err
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT)
	defer stop()
	p, deps, repair, err := assembly.OpenRepair(ctx, cfg, toolDeps(cmd, f.verbose))
	if err != nil {
		return err
	}
	defer p.Close()
	o := verify.Options{From: from, To: to, Level: verify.Full}
	if f.quick {
		o.Level = verify.Quick
	}
	if err := f.complete(ctx, cfg, deps, now, &o); err != nil {
		return err
	}
	result, err := f.compare(ctx, cmd, deps, repair, o)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted: run it again, it begins anew; what a repair has done stays done")
	}
	if err != nil {
		return err
	}
	if !result.Exact {
		return &exitError{code: exitFailed}
	}
	return nil
}

// compare runs it with a line of progress, and prints the result.
func (f *verifyFlags) compare(ctx context.Context, cmd *cobra.Command, deps verify.Deps, repair verify.RepairDeps, o verify.Options) (*verify.Result, error) {
	line, began := newProgressLine(cmd.ErrOrStderr()), time.Now()
	o.Tell = func(p verify.Progress) {
		line.show(func() string { return verify.Bar(p, time.Since(began)) })
	}
	out := verify.Printer{Out: cmd.OutOrStdout(), JSON: f.output == "json", Most: f.limit}
	if !f.repair {
		result, err := verify.Run(ctx, deps, o)
		line.clear()
		if err != nil {
			return nil, err
		}
		return result, out.Result(result)
	}
	plan, err := verify.Plan(ctx, deps, o)
	line.clear()
	if err != nil {
		return nil, err
	}
	if err := out.Plan(plan, f.yes); err != nil || !f.yes || len(plan.Steps) == 0 {
		return plan.Before, err
	}
	done, err := verify.Repair(ctx, deps, repair, o, func(s verify.Step) {
		line.clear()
		err = errors.Join(err, out.Step(s))
	})
	line.clear()
	if err != nil {
		return nil, err
	}
	return done.After, out.Result(done.After)
}

// complete fills in the period when none was named.
func (f *verifyFlags) complete(ctx context.Context, cfg config.Config, deps verify.Deps, now time.Time, o *verify.Options) error {
	if !o.From.IsZero() {
		return nil
	}
	start, err := cfg.StartTime(now.UTC())
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if book, err := ledger.View(ctx, deps.Ledgers[0].Store); err == nil {
		start = book.Info().Start // of the first start
	}
	o.From, o.To = verify.Default(start, now)
	return nil
}

// period reads --from and --to; zero: the default.
func (f *verifyFlags) period(now time.Time) (from, to time.Time, err error) {
	if f.from == "" && f.to == "" {
		return from, to, nil
	}
	if f.from == "" || f.to == "" {
		return from, to, usageErrorf("verify: give --from and --to, or neither")
	}
	if from, err = hourMoment(f.from, now, now); err != nil {
		return from, to, usageErrorf("verify: --from %w", err)
	}
	if to, err = hourMoment(f.to, now, from); err != nil {
		return from, to, usageErrorf("verify: --to %w", err)
	}
	from, to = from.UTC().Truncate(time.Hour), to.UTC().Add(time.Hour-1).Truncate(time.Hour)
	if !from.Before(to) {
		return from, to, usageErrorf("verify: --from %s is not before --to %s", f.from, f.to)
	}
	return from, to, nil
}

// hourMoment reads what moment does, times without seconds, and times of a day.
func hourMoment(text string, now, day time.Time) (time.Time, error) {
	if t, err := time.Parse("2006-01-02T15:04Z07:00", text); err == nil {
		return t, nil
	}
	if t, err := time.Parse("15:04Z", text); err == nil {
		return day.UTC().Truncate(24 * time.Hour).Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute), nil
	}
	return moment(text, now)
}

// toolDeps are what the parts of a command tell about themselves: warnings.
func toolDeps(cmd *cobra.Command, verbose bool) assembly.Deps {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	return assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: log}
}
