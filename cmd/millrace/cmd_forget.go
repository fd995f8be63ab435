package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/jsonline"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/cmd/internal/verify"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

type forgetFlags struct {
	config, output  string
	from, to        string
	partition, undo string
	tables          []string
	who, why        string
	list, drop, yes bool
}

// newForgetCommand makes `millrace forget`.
func newForgetCommand() *cobra.Command {
	var f forgetFlags
	cmd := &cobra.Command{
		Use:     "forget",
		GroupID: groupOperate,
		Short:   "Record that days of tables were deleted on purpose",
		Long: `Records in the table forgotten of the target that rows of whole days (UTC) were
deleted on purpose: who, when, which and why. From then on they are expired: millrace
verify does not call them missing, its --repair does not land them again, and neither
does a start of the pipeline with a commit in doubt, nor backfill.

Tables are divided by days: flows by time, quarantine by the hour of the blob, windows
by their start. Without --table all of them are meant. With --drop the days are deleted
at once, behind the record; else delete them yourself, before or afterwards. --undo
takes a record back, by the id that --list shows: then verify finds rows missing.`,
		Example: `  millrace forget --partition 2026-11-01 --why "retention: 90 days" --drop --yes
  millrace forget --from 2026-10-01 --to 2026-11-01 --table flows --why "too large"
  millrace forget --list -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file of the pipeline")
	flags.StringVarP(&f.output, "output", "o", "text", "text, or json: one object a line")
	flags.StringVar(&f.from, "from", "", "first day, such as 2026-11-01")
	flags.StringVar(&f.to, "to", "", "first day that is kept")
	flags.StringVar(&f.partition, "partition", "", "one day: 2026-11-01, or 20261101 as partitions are called")
	flags.StringArrayVar(&f.tables, "table", nil, "only this table: flows, quarantine or windows_NAME; may stand several times")
	flags.StringVar(&f.who, "who", "", "who deletes them; default: the user of this process")
	flags.StringVar(&f.why, "why", "", "why they are deleted")
	flags.BoolVar(&f.drop, "drop", false, "delete the days, too; wants --yes")
	flags.BoolVar(&f.list, "list", false, "show the records")
	flags.StringVar(&f.undo, "undo", "", "take the record with this id back")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do it")
	cmd.MarkFlagsMutuallyExclusive("list", "undo", "partition", "from")
	cmd.MarkFlagsRequiredTogether("from", "to")
	return cmd
}

func (f *forgetFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return usageErrorf("-o %q: want text or json", f.output)
	}
	record := !f.list && f.undo == ""
	from, to, err := f.days()
	switch {
	case record && err != nil:
		return err
	case record && f.why == "":
		return usageErrorf("forget: --why is missing: it is kept with the record")
	case f.drop && (!record || !f.yes):
		return usageErrorf("forget: --drop deletes rows: give --yes, too, with the days")
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	tables, err := f.chosen(cfg)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT)
	defer stop()
	p, deps, err := assembly.OpenVerify(ctx, cfg, toolDeps(cmd, false))
	if err != nil {
		return err
	}
	defer p.Close()
	// A target of an earlier release has no table for it yet.
	if err := p.Prepare(ctx, cfg, toolDeps(cmd, false)); err != nil {
		return err
	}
	if !record {
		return f.show(ctx, cmd, p.Sink, deps)
	}
	return f.record(ctx, cmd, cfg, p.Sink, tables, from, to)
}

// days reads the period; both ends are midnights.
func (f *forgetFlags) days() (from, to time.Time, err error) {
	day := func(flag, text string) (time.Time, error) {
		for _, form := range []string{time.DateOnly, "20060102"} {
			if t, err := time.Parse(form, text); err == nil {
				return t, nil
			}
		}
		return time.Time{}, usageErrorf("forget: --%s %q: want a day such as 2026-11-01, as tables are divided by days", flag, text)
	}
	switch {
	case f.partition != "":
		from, err = day("partition", f.partition)
		return from, from.AddDate(0, 0, 1), err
	case f.from == "":
		return from, to, usageErrorf("forget: which days? Give --partition, or --from and --to")
	}
	if from, err = day("from", f.from); err != nil {
		return from, to, err
	}
	if to, err = day("to", f.to); err == nil && !from.Before(to) {
		err = usageErrorf("forget: --from %s is not before --to %s", f.from, f.to)
	}
	return from, to, err
}

// chosen gives the tables that are meant.
func (f *forgetFlags) chosen(cfg config.Config) ([]string, error) {
	all := []string{schemas.Flows.Name, schemas.Quarantine.Name}
	for _, w := range cfg.Windows {
		all = append(all, w.Table().Name)
	}
	for _, t := range f.tables {
		if !slices.Contains(all, t) {
			return nil, usageErrorf("forget: --table %q: want one of %s", t, strings.Join(all, ", "))
		}
	}
	if len(f.tables) > 0 {
		return f.tables, nil
	}
	return all, nil
}

// record writes what was told, then deletes if that was asked for: a crash in between
// leaves rows that are expired and there, which harms nothing.
func (f *forgetFlags) record(ctx context.Context, cmd *cobra.Command, cfg config.Config, sink *clickhouse.Sink, tables []string, from, to time.Time) error {
	if f.drop && len(cfg.ClickHouse.Servers) > 0 {
		return errors.New("forget: --drop reaches one server, and the target is a cluster: record it without, and drop the partitions on each server")
	}
	who := f.who
	if who == "" {
		who = processUser()
	}
	for _, t := range tables {
		r := clickhouse.Forgotten{ID: rand.Text()[:12], Table: t, Who: who, Why: f.why, Created: time.Now(), From: from, To: to}
		if err := sink.Forget(ctx, r); err != nil {
			return fmt.Errorf("record what was forgotten: %w", err)
		}
		if f.drop {
			if err := dropDays(ctx, sink, t, from, to); err != nil {
				return err
			}
		}
		if err := f.line(cmd, verify.Forget{ID: r.ID, Created: r.Created.UTC(), Table: t, From: from, To: to, Who: who, Why: f.why}); err != nil {
			return err
		}
	}
	return nil
}

func dropDays(ctx context.Context, sink *clickhouse.Sink, table string, from, to time.Time) error {
	for day := from; day.Before(to); day = day.AddDate(0, 0, 1) {
		sql := fmt.Sprintf("ALTER TABLE %s DROP PARTITION '%s'", schemas.QuoteName(table), day.Format("20060102"))
		if _, err := sink.Exec(ctx, sql); err != nil {
			return fmt.Errorf("delete a day of table %s, which is recorded as forgotten: %w: run the command again", table, err)
		}
	}
	return nil
}

// show lists the records, and takes one back first.
func (f *forgetFlags) show(ctx context.Context, cmd *cobra.Command, sink *clickhouse.Sink, deps verify.Deps) error {
	all, err := verify.Forgotten(ctx, deps.Conn)
	if err != nil {
		return err
	}
	if f.undo != "" {
		i := slices.IndexFunc(all, func(r verify.Forget) bool { return r.ID == f.undo })
		if i < 0 {
			return fmt.Errorf("forget: there is no record %q: millrace forget --list shows them", f.undo)
		}
		return sink.Forget(ctx, clickhouse.Forgotten{ID: all[i].ID, Table: all[i].Table, Who: processUser(), Why: f.why, Created: time.Now(), From: all[i].From, To: all[i].To, Undone: true})
	}
	for _, r := range all {
		if err := f.line(cmd, r); err != nil {
			return err
		}
	}
	return nil
}

func (f *forgetFlags) line(cmd *cobra.Command, r verify.Forget) error {
	if f.output == "json" {
		return jsonline.Write(cmd.OutOrStdout(), r)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 22, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%s\tfrom %s until before %s\tby %s: %s\n", r.ID, r.Table, r.From.UTC().Format(time.DateOnly), r.To.UTC().Format(time.DateOnly), reread.Printable(r.Who), reread.Printable(r.Why))
	return w.Flush()
}

// processUser is who runs this process.
func processUser() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
