package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/millrace/millrace/cmd/internal/telemetry"

	"github.com/spf13/cobra"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/quarantine"
	"github.com/millrace/millrace/cmd/internal/reread"
)

// quarantineFlags are those of list, show and replay.
type quarantineFlags struct {
	config, output string
	reason, blob   string
	limit          int
	bytes          int
	dryRun         bool
	verbose        bool
}

// newQuarantineCommand makes `millrace quarantine`.
func newQuarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "quarantine",
		GroupID: groupInvestigate,
		Short:   "List, show and replay what could not become rows",
		Long: `What a decoder refuses goes to the table quarantine, with its place in its blob
and the reason. A later release may know better: replay reads it again and lands
what is good now, each row once.`,
		Example: `  millrace quarantine list
  millrace quarantine replay --reason unknown_version --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQuarantineListCommand(), newQuarantineShowCommand(), newQuarantineReplayCommand())
	return cmd
}

// common adds the flags that all three have.
func (f *quarantineFlags) common(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file of the pipeline")
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", "table, or json: one object a line")
}

func (f *quarantineFlags) filters(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.reason, "reason", "", "only entries with this reason")
	cmd.Flags().StringVar(&f.blob, "blob", "", "only entries whose blob's name contains this")
}

func newQuarantineListCommand() *cobra.Command {
	var f quarantineFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Count entries by reason, or list those of a reason or blob",
		Long: `Counts the entries by reason, with the newest of each. With --reason or --blob,
lists the entries themselves. The addresses can be pasted into show and replay.`,
		Example: `  millrace quarantine list -c millrace.yaml
  millrace quarantine list --reason tuple_port --limit 100
  millrace quarantine list --blob macAddress=000D3A7F1340 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, nil, quarantineRun.list) },
	}
	f.common(cmd)
	f.filters(cmd)
	cmd.Flags().IntVar(&f.limit, "limit", 50, "at most so many entries")
	return cmd
}

func newQuarantineShowCommand() *cobra.Command {
	var f quarantineFlags
	cmd := &cobra.Command{
		Use:   "show ADDRESS...",
		Short: "Show all of an entry, and its record as it stands in the blob",
		Long: `Shows everything of an entry, what the decoder of this program says to it now, and
the record's bytes, read again from the blob if they are still there. Control
characters are escaped.`,
		Example: "  millrace quarantine show 'account/container/path/PT1H.json@0:1234:5'",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageErrorf("show: which entry? Give an ADDRESS that millrace quarantine list printed")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args, quarantineRun.show) },
	}
	f.common(cmd)
	cmd.Flags().IntVar(&f.bytes, "bytes", 4096, "show at most so many bytes of a record; 0: all")
	return cmd
}

func newQuarantineReplayCommand() *cobra.Command {
	var f quarantineFlags
	cmd := &cobra.Command{
		Use:   "replay [ADDRESS...]",
		Short: "Read entries again and land what is good now, each row once",
		Long: `Reads the bytes of entries again out of their blobs, with the decoder of this
program, and lands the rows that are good now and not there yet. Says of each
entry whether it landed, had landed already, is still refused, or has lost its
source. Without ADDRESS, --reason or --blob: all entries.

It may run beside the pipeline, be repeated, and be killed at any time: the next
replay finishes what one left. Windows get further rows that add up. Entries stay
in the table. The exit code is 1 when a blob could not be read.`,
		Example: `  millrace quarantine replay --dry-run
  millrace quarantine replay --reason tuple_state
  millrace quarantine replay 'account/container/path/PT1H.json@0:1234:5'`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args, quarantineRun.replay) },
	}
	f.common(cmd)
	f.filters(cmd)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would happen, and land nothing")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	return cmd
}

// quarantineRun is a subcommand with its parts.
type quarantineRun struct {
	*quarantineFlags
	cmd      *cobra.Command
	cfg      config.Config
	pipeline *assembly.Pipeline
	deps     quarantine.Deps
	filter   quarantine.Filter
	out      quarantine.Printer
}

// run checks what was typed, opens the parts and calls the subcommand.
func (f *quarantineFlags) run(cmd *cobra.Command, addresses []string, call func(quarantineRun, context.Context) error) error {
	if f.output != "table" && f.output != "json" {
		return usageErrorf("-o %q: want table or json", f.output)
	}
	if f.limit < 0 || f.bytes < 0 {
		return usageErrorf("--limit and --bytes: want 0 or more")
	}
	filter, err := quarantine.NewFilter(f.reason, f.blob, addresses)
	if err != nil {
		return usageErrorf("%w", err)
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	// The first Ctrl-C ends the replay; what it has begun is finished by the next one.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT)
	defer stop()
	p, deps, err := assembly.OpenQuarantine(cfg, f.quiet(cmd))
	if err != nil {
		return err
	}
	defer p.Close()
	out := quarantine.Printer{Out: cmd.OutOrStdout(), JSON: f.output == "json"}
	return call(quarantineRun{f, cmd, cfg, p, deps, filter, out}, ctx)
}

// quiet is what the parts tell about themselves: warnings.
func (f *quarantineFlags) quiet(cmd *cobra.Command) assembly.Deps {
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	log := telemetry.NewTextLogger(cmd.ErrOrStderr(), level)
	return assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: log}
}

func (r quarantineRun) list(ctx context.Context) error {
	counts, err := r.deps.Table.Counts(ctx, r.filter)
	if err != nil {
		return err
	}
	listing := r.reason != "" || r.blob != ""
	if !listing || !r.out.JSON {
		if err := r.out.Counts(counts); err != nil {
			return err
		}
	}
	if !listing || r.limit == 0 {
		return nil
	}
	entries, err := r.deps.Table.Entries(ctx, r.filter, nil, r.limit)
	if err != nil {
		return err
	}
	if len(entries) > 0 && !r.out.JSON {
		fmt.Fprintln(r.out.Out)
	}
	if err := r.out.Entries(entries); err != nil {
		return err
	}
	total := int64(0)
	for _, c := range counts {
		total += c.Entries
	}
	if total > int64(len(entries)) {
		fmt.Fprintf(r.cmd.ErrOrStderr(), "%d of %d entries: --limit shows more\n", len(entries), total)
	}
	return nil
}

func (r quarantineRun) show(ctx context.Context) error {
	var missing []error
	for _, a := range r.filter.Addresses {
		const most = 100 // of one record
		entries, err := r.deps.Table.Entries(ctx, quarantine.Filter{Addresses: []reread.Address{a}}, nil, most)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			missing = append(missing, fmt.Errorf("no entry at %s: millrace quarantine list --blob shows the addresses", a))
			continue
		}
		found, err := quarantine.Inspect(ctx, r.deps, entries)
		if err != nil {
			return err
		}
		if err := r.out.Inspections(found, r.bytes); err != nil {
			return err
		}
	}
	return errors.Join(missing...)
}

func (r quarantineRun) replay(ctx context.Context) error {
	if !r.dryRun {
		if err := r.pipeline.Prepare(ctx, r.cfg, r.quiet(r.cmd)); err != nil {
			return err
		}
	}
	var sum quarantine.Summary
	err := quarantine.Replay(ctx, r.deps, r.filter, r.dryRun, func(v quarantine.Verdict) error {
		sum.Add(v)
		return r.out.Verdict(v)
	})
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted: run the command again, it finishes what was begun")
	}
	if err != nil {
		return err
	}
	if err := r.out.Summary(sum); err != nil {
		return err
	}
	if n := sum.Outcomes[quarantine.Unreadable]; n > 0 {
		return fmt.Errorf("%d entries could not be read: run the command again when the blobs can be reached", n)
	}
	if len(r.filter.Addresses) > 0 && sum.Entries == 0 {
		return errors.New("no entry has such an address: millrace quarantine list --blob shows the addresses")
	}
	return nil
}
