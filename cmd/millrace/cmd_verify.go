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
	quick          bool
	limit          int
	verbose        bool
}

// newVerifyCommand makes `millrace verify`.
func newVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:     "verify",
		GroupID: groupInvestigate,
		Short:   "Recount a period: rows, windows and ledger against each other",
		Long: `Compares, for the hours from --from to --to: the rows of every commit with what it
recorded, byte ranges with each other, windows with rows, entries of the quarantine
with what was refused. Prints what is missing or surplus, with blob and byte range,
and what to do.

The pipeline may run meanwhile: what is on its way is pending. Rows behind a TTL are
expired, and no difference. Nothing is written. Columns of enrichment and estimates of
distinct values are not compared.

Exit codes: 0 exact, 1 differences or an error, 2 wrong usage.`,
		Example: `  millrace verify -c millrace.yaml
  millrace verify --from 2026-11-26T08:00Z --to 09:00Z --quick
  millrace verify --from now-48h --to now-2h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file of the pipeline")
	flags.StringVarP(&f.output, "output", "o", "text", "text, or json: one object a line, each finding and then the result")
	flags.StringVar(&f.from, "from", "", "first hour: a day, a time (RFC 3339) or now-DURATION; without it the last 24 complete hours")
	flags.StringVar(&f.to, "to", "", "end of the last hour, in the same forms, or a time of the day of --from: 09:00Z")
	flags.BoolVar(&f.quick, "quick", true, "tables and ledger only: no blob is read")
	flags.IntVar(&f.limit, "limit", 50, "print at most so many findings; 0 prints all")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	return cmd
}

// run checks what was typed, opens the parts and compares.
func (f *verifyFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return usageErrorf("-o %q: want text or json", f.output)
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
	p, deps, err := assembly.OpenVerify(ctx, cfg, f.deps(cmd))
	if err != nil {
		return err
	}
	defer p.Close()
	o := verify.Options{From: from, To: to, Level: verify.Quick}
	if err := f.complete(ctx, cfg, deps, now, &o); err != nil {
		return err
	}
	result, err := f.compare(ctx, cmd, deps, o)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted: nothing was written")
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
func (f *verifyFlags) compare(ctx context.Context, cmd *cobra.Command, deps verify.Deps, o verify.Options) (*verify.Result, error) {
	line, began := newProgressLine(cmd.ErrOrStderr()), time.Now()
	o.Tell = func(p verify.Progress) {
		line.show(func() string { return verify.Bar(p, time.Since(began)) })
	}
	result, err := verify.Run(ctx, deps, o)
	line.clear()
	if err != nil {
		return nil, err
	}
	return result, verify.Printer{Out: cmd.OutOrStdout(), JSON: f.output == "json", Most: f.limit}.Result(result)
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

// deps are what the parts tell about themselves: warnings.
func (f *verifyFlags) deps(cmd *cobra.Command) assembly.Deps {
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	return assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: log}
}
