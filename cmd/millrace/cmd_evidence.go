package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/evidence"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
)

type evidenceFlags struct {
	config, output  string
	blob            string
	generation      uint32
	record, ordinal int64
	batch           string
	window, start   string
	key             []string
	limit           int
}

// newEvidenceCommand makes `millrace evidence`.
func newEvidenceCommand() *cobra.Command {
	var f evidenceFlags
	cmd := &cobra.Command{
		Use:     "evidence [ADDRESS]",
		GroupID: groupInvestigate,
		Short:   "Go from rows back to the bytes that they were made of, and verify",
		Long: `Reads the bytes of rows again out of their blobs. The hash of the byte range that
the row's commit read says whether the bytes are those of then; the record is
decoded again, and every column compared with the row in ClickHouse.

Rows are named by ADDRESS (ACCOUNT/CONTAINER/PATH@GENERATION:OFFSET:ORDINAL, without
ORDINAL all rows of the record), by the same in flags, by the number of a commit, or
by the key of a window, whose flow rows are also added up against it.

Says of each row VERIFIED; DIFFERS with the columns; REWRITTEN when other bytes stand
in the blob now; SOURCE EXPIRED when the blob is gone; UNREADABLE when it cannot be
read now; or UNKNOWN with what is near. The exit code is 0 when all that was read is
verified. Nothing is written. Columns of enrichment are not compared.`,
		Example: `  millrace evidence 'account/container/path/PT1H.json@0:1234:5'
  millrace evidence --blob account/container/path/PT1H.json --generation 0 --record 1234 --ordinal 5 -o json
  millrace evidence --batch 281474976710657 --limit 100
  millrace evidence --window rules_5m --start 2026-01-02T15:05:00Z --key acl_id=/subscriptions/... \
      --key rule=DenyAll --key direction=inbound --key action=denied`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file of the pipeline")
	flags.StringVarP(&f.output, "output", "o", "table", "table, or json: one object a line")
	flags.StringVar(&f.blob, "blob", "", "blob of a row: account/container/path, as in the column")
	flags.Uint32Var(&f.generation, "generation", 0, "generation of the row")
	flags.Int64Var(&f.record, "record", -1, "record_offset of the row")
	flags.Int64Var(&f.ordinal, "ordinal", -1, "ordinal of the row; without it: all rows of the record")
	flags.StringVar(&f.batch, "batch", "", "commit: a batch_id, or ledger/shard/sequence")
	flags.StringVar(&f.window, "window", "", "table of windows, such as traffic_1m")
	flags.StringVar(&f.start, "start", "", "window_start, such as 2026-01-02T15:04:00Z")
	flags.StringArrayVar(&f.key, "key", nil, "column=value of the window's key; one for each group column")
	flags.IntVar(&f.limit, "limit", 20, "read at most so many rows")
	return cmd
}

// run checks what was typed, opens the parts and looks.
func (f *evidenceFlags) run(cmd *cobra.Command, args []string) error {
	if f.output != "table" && f.output != "json" {
		return usageErrorf("-o %q: want table or json", f.output)
	}
	if f.limit < 1 {
		return usageErrorf("--limit %d: want 1 or more", f.limit)
	}
	if err := f.oneWay(cmd, args); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	look, err := f.looker(args)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	key := evidence.Key{}
	if f.window != "" {
		if key, err = evidence.NewKey(cfg.Windows, f.window, f.start, f.key); err != nil {
			return &exitError{code: exitUsage, err: err}
		}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT)
	defer stop()
	p, deps, err := assembly.OpenEvidence(cfg)
	if err != nil {
		return err
	}
	defer p.Close()
	checker := evidence.New(deps)
	defer checker.Release()
	out := &evidence.Printer{Out: cmd.OutOrStdout(), JSON: f.output == "json"}
	read := 0
	total, err := look(ctx, checker, key, out, func(found evidence.Finding) error {
		read++
		return out.Finding(found)
	})
	if err != nil {
		return err
	}
	if err := out.Summary(read, total); err != nil {
		return err
	}
	if !out.AllVerified() {
		return &exitError{code: exitFailed}
	}
	return nil
}

// oneWay holds that rows are named in one way, with the flags of that way.
func (f *evidenceFlags) oneWay(cmd *cobra.Command, args []string) error {
	const ways = "name rows by ADDRESS, by --blob and --record, by --batch, or by --window and --start: see millrace evidence --help"
	for _, group := range []struct {
		leader string
		flags  []string
	}{{"blob", []string{"generation", "record", "ordinal"}}, {"window", []string{"start", "key"}}} {
		for _, name := range group.flags {
			if cmd.Flags().Changed(name) && !cmd.Flags().Changed(group.leader) {
				return fmt.Errorf("--%s belongs to --%s, which is missing", name, group.leader)
			}
		}
	}
	n := len(args)
	for _, given := range []string{f.blob, f.batch, f.window} {
		if given != "" {
			n++
		}
	}
	switch n {
	case 0:
		return errors.New("which rows? " + ways)
	case 1:
		return nil
	}
	return errors.New("in one way only: " + ways)
}

type looker func(ctx context.Context, c *evidence.Checker, key evidence.Key, out *evidence.Printer, emit func(evidence.Finding) error) (total uint64, err error)

// looker makes what looks for the rows that were named.
//
// Errors: an address or commit that is none.
func (f *evidenceFlags) looker(args []string) (looker, error) {
	switch {
	case f.window != "":
		return func(ctx context.Context, c *evidence.Checker, key evidence.Key, out *evidence.Printer, emit func(evidence.Finding) error) (uint64, error) {
			return c.Window(ctx, key, f.limit, out.Window, emit)
		}, nil
	case f.batch != "":
		id, err := parseBatch(f.batch)
		return func(ctx context.Context, c *evidence.Checker, _ evidence.Key, _ *evidence.Printer, emit func(evidence.Finding) error) (uint64, error) {
			return c.Batch(ctx, id, f.limit, emit)
		}, err
	}
	a, err := f.address(args)
	return func(ctx context.Context, c *evidence.Checker, _ evidence.Key, _ *evidence.Printer, emit func(evidence.Finding) error) (uint64, error) {
		return c.Address(ctx, a, f.limit, emit)
	}, err
}

// address reads the pasted form, or the flags.
func (f *evidenceFlags) address(args []string) (reread.Address, error) {
	if len(args) == 1 {
		return reread.ParseAddress(args[0])
	}
	id, err := pipeline.ParseBlobID(f.blob)
	if err != nil {
		return reread.Address{}, fmt.Errorf("--blob: %w", err)
	}
	if f.record < 0 {
		return reread.Address{}, errors.New("--record is missing: the record_offset of the row")
	}
	if f.ordinal < -1 || f.ordinal > 1<<32-1 {
		return reread.Address{}, fmt.Errorf("--ordinal %d: want the ordinal of the row", f.ordinal)
	}
	return reread.Address{Blob: id, Generation: f.generation, Offset: f.record, Ordinal: f.ordinal}, nil
}

// parseBatch reads a commit as a number or as people see it.
func parseBatch(s string) (pipeline.BatchID, error) {
	wrong := fmt.Errorf("--batch %q: want a batch_id, or ledger/shard/sequence", s)
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return pipeline.BatchID(n), nil
	}
	var part [3]uint64
	texts := strings.Split(s, "/")
	if len(texts) != len(part) {
		return 0, wrong
	}
	for i, t := range texts {
		var err error
		if part[i], err = strconv.ParseUint(t, 10, 64); err != nil {
			return 0, wrong
		}
	}
	if part[0] > pipeline.MaxLedger || part[1] >= pipeline.MaxShards || part[2] > pipeline.MaxSeq {
		return 0, wrong
	}
	return pipeline.NewBatchID(uint16(part[0]), int(part[1]), part[2]), nil
}
