package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/millrace/millrace/cmd/internal/telemetry"

	"github.com/spf13/cobra"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/rebuild"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// ledgerFlags are those of show, rebuild and reshard.
type ledgerFlags struct {
	config, output string
	id             uint16
	shards         int
	skipWindows    bool
	yes            bool
	verbose        bool
}

// newLedgerCommand makes `millrace ledger`.
func newLedgerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ledger",
		GroupID: groupOperate,
		Short:   "Show the ledger, make a lost one again, change its number of shards",
		Long: `The ledger says what of every blob has landed. It is a folder of the pipeline's
machine, or a container that several instances share.`,
		Example: `  millrace ledger show
  millrace ledger rebuild --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLedgerShowCommand(), newLedgerRebuildCommand(), newLedgerReshardCommand())
	return cmd
}

func (f *ledgerFlags) common(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file of the pipeline")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log more")
}

func newLedgerShowCommand() *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what the ledger holds; the pipeline may run",
		Long: `Shows the ledger's id, shards, epoch and owner, and for each shard how far it has
landed and what is pending. It only reads: the pipeline may run meanwhile.`,
		Example: "  millrace ledger show -c millrace.yaml -o json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, f.show) },
	}
	f.common(cmd)
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", "table or json")
	return cmd
}

func newLedgerRebuildCommand() *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make a lost ledger again out of the target",
		Long: `Makes the ledger of a pipeline again, with its old id, when its folder or container
is lost: the next start goes on where it was, and no row is lost or doubled.

The target knows what had landed up to the last checkpoint of each shard, which is
at most a minute old. Rows of later commits are taken back, that is deleted, and
read again; their blobs are looked at first, and when one is gone nothing is done.
Windows that were open are computed again from their blobs at the next start.

Without --yes it says what it would do, and changes nothing. The place of the ledger
must hold none. An instance that still runs is shut out and stops. Rows that went to
other targets than ClickHouse cannot be taken back: there, rows of the commits behind
the checkpoint come twice.`,
		Example: `  millrace ledger rebuild -c millrace.yaml
  millrace ledger rebuild -c millrace.yaml --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, f.rebuild) },
	}
	f.common(cmd)
	cmd.Flags().Uint16Var(&f.id, "ledger", 0, "id of the ledger, when several have written to the target")
	cmd.Flags().BoolVar(&f.skipWindows, "skip-windows", false, "do not compute windows again that were open: their rows up to the last checkpoint will be missing in the windows tables")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do it")
	return cmd
}

func newLedgerReshardCommand() *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "reshard --shards N",
		Short: "Change the number of shards while no pipeline runs",
		Long: `Changes the number of shards of a ledger. Every instance must have stopped. What is
pending lands first, every open window is closed, and offsets move to their new
shards. Rows of a closed window that come later make further rows, which add up.

Without --yes it says what it would do, and changes nothing. After an error or a
kill, the same command goes on; until then the pipeline does not start.`,
		Example: "  millrace ledger reshard -c millrace.yaml --shards 8 --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.shards < 1 || f.shards > 64 {
				return usageErrorf("--shards %d: want 1 to 64", f.shards)
			}
			return f.run(cmd, f.reshard)
		},
	}
	f.common(cmd)
	cmd.Flags().IntVar(&f.shards, "shards", 0, "number of shards, 1 to 64")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do it")
	return cmd
}

// run reads the configuration and calls the subcommand.
func (f *ledgerFlags) run(cmd *cobra.Command, call func(ctx context.Context, cmd *cobra.Command, cfg config.Config, deps assembly.Deps) error) error {
	if f.output != "" && f.output != "table" && f.output != "json" {
		return usageErrorf("-o %q: want table or json", f.output)
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	log := telemetry.NewTextLogger(cmd.ErrOrStderr(), level)
	return call(ctx, cmd, cfg, assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: log})
}

func (f *ledgerFlags) show(ctx context.Context, cmd *cobra.Command, cfg config.Config, _ assembly.Deps) error {
	s, err := assembly.InspectLedger(ctx, cfg)
	if err != nil {
		return err
	}
	if f.output == "json" {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	return printLedger(cmd.OutOrStdout(), cfg.LedgerPlace(), s)
}

func printLedger(out io.Writer, place string, s ledger.Summary) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ledger\t%d (%s)\nplace\t%s\nmade\t%s\nreads from\t%s on\nshards\t%d\nepoch\t%d\n",
		s.ID, s.Name, place, s.Created.UTC().Format(time.RFC3339), s.Start.UTC().Format(time.RFC3339), s.Shards, s.Epoch)
	if o := s.Owner; o != nil {
		state := fmt.Sprintf("%s, last sign of life %s", o.Instance, o.Renewed.UTC().Format(time.RFC3339))
		if o.Released {
			state = "none; " + o.Instance + " has released it"
		} else if o.Instance == "" {
			state = "none yet"
		}
		fmt.Fprintf(w, "owner\t%s\n", state)
	}
	if s.Resharding > 0 {
		fmt.Fprintf(w, "resharding\tinterrupted: run millrace ledger reshard --shards %d --yes\n", s.Resharding)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nshard\tcheckpoint\tdone\tpending\tblobs\tstreams\twatermark\t")
	for _, h := range s.State {
		watermark := "-"
		switch {
		case h.Watermark == pipeline.EndOfInput:
			watermark = "end of input"
		case h.Watermark > 0:
			watermark = time.UnixMilli(int64(h.Watermark)).UTC().Format("2006-01-02 15:04:05")
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", h.Shard, h.Base, h.Done, h.Pending, h.Blobs, h.Streams, watermark)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, h := range s.State {
		for _, warning := range h.Warnings {
			fmt.Fprintf(out, "shard %d: %s\n", h.Shard, warning)
		}
	}
	return nil
}

func (f *ledgerFlags) rebuild(ctx context.Context, cmd *cobra.Command, cfg config.Config, deps assembly.Deps) error {
	p, err := assembly.Rebuild(ctx, cfg, deps, f.id, f.skipWindows, !f.yes)
	if err != nil {
		return err
	}
	printPlan(cmd.OutOrStdout(), cfg.LedgerPlace(), p, f.yes)
	return nil
}

func printPlan(out io.Writer, place string, p *rebuild.Plan, done bool) {
	verb, verbs := "would be", "would be"
	if done {
		verb, verbs = "was", "were"
	}
	fmt.Fprintf(out, "ledger %d (%s) with %d shards %s made again in %s, at epoch %d\n", p.Ledger.ID, p.Ledger.Name, p.Ledger.Shards, verb, place, p.Epoch)
	fmt.Fprintf(out, "  offsets of %d blobs\n", p.Positions)
	for _, table := range slices.Sorted(maps.Keys(p.Back)) {
		fmt.Fprintf(out, "  %d rows behind the last checkpoint %s taken back from table %s; the next start reads them again\n", p.Back[table], verbs, table)
	}
	fmt.Fprintf(out, "  %d byte ranges (%.1f MB) are read again by the next start, for windows that were open\n", p.WarmRanges, float64(p.WarmBytes)/1e6)
	if !done {
		fmt.Fprintln(out, "nothing was changed: --yes does it")
	}
}

func (f *ledgerFlags) reshard(ctx context.Context, cmd *cobra.Command, cfg config.Config, deps assembly.Deps) error {
	s, err := assembly.InspectLedger(ctx, cfg)
	if err != nil {
		return err
	}
	pending := 0
	for _, h := range s.State {
		pending += h.Pending
	}
	out := cmd.OutOrStdout()
	if s.Shards == f.shards && s.Resharding == 0 {
		fmt.Fprintf(out, "ledger %d has %d shards already\n", s.ID, s.Shards)
		return nil
	}
	if !f.yes {
		fmt.Fprintf(out, "ledger %d in %s would go from %d shards to %d: %d pending commits would land, open windows would be closed\nnothing was changed: stop every instance; --yes does it\n",
			s.ID, cfg.LedgerPlace(), s.Shards, f.shards, pending)
		return nil
	}
	if err := assembly.Reshard(ctx, cfg, deps, f.shards); err != nil {
		return err
	}
	fmt.Fprintf(out, "ledger %d has %d shards now\n", s.ID, f.shards)
	return nil
}
