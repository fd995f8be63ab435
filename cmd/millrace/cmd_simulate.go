package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/millrace/millrace/bench/traffic"
)

// newSimulateCommand makes flow logs with known contents.
func newSimulateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "simulate",
		Short:   "Make flow logs whose contents are known",
		GroupID: groupDevelop,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSimulateFilesCommand())
	return cmd
}

// simulateFiles holds the flags of `millrace simulate files`.
type simulateFiles struct {
	dir   string
	hours int
	start string
	cfg   traffic.Config
}

func newSimulateFilesCommand() *cobra.Command {
	o := simulateFiles{cfg: traffic.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "files --dir DIR",
		Short: "Write a tree of PT1H.json files and truth.json",
		Long: `Write the flow logs of a simulated estate for some whole hours: one PT1H.json
per network interface and hour, named as in blob storage, below DIR, and
DIR/truth.json, which tells what a reader must find in them: tuples, bytes and
checksums per file, tuples and bytes per minute, every malformed tuple.

The same flags give the same bytes.`,
		Example: `  # 64 interfaces, one hour: 10 million tuples, 0.7 GB
  millrace simulate files --dir /tmp/logs

  # a small estate with older formats and some garbage
  millrace simulate files --dir /tmp/logs --nics 8 --tuples-per-minute 100 --nsg-v2 0.3 --malformed 0.001`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "folder to write to, made when needed (required)")
	f.IntVar(&o.hours, "hours", 1, "number of hours")
	f.StringVar(&o.start, "start", "2026-01-05T10:00:00Z", "first hour, RFC 3339; rounded down to the hour, UTC")
	f.Uint64Var(&o.cfg.Seed, "seed", o.cfg.Seed, "what the estate and its flows are made from")
	f.IntVar(&o.cfg.NICs, "nics", o.cfg.NICs, "number of network interfaces")
	f.IntVar(&o.cfg.TuplesPerMinute, "tuples-per-minute", o.cfg.TuplesPerMinute, "mean number of tuples per interface and minute over a day")
	f.Float64Var(&o.cfg.NSGv1Share, "nsg-v1", 0, "share of interfaces with NSG flow logs version 1")
	f.Float64Var(&o.cfg.NSGv2Share, "nsg-v2", 0, "share of interfaces with NSG flow logs version 2")
	f.Float64Var(&o.cfg.Malformed, "malformed", 0, "malformed tuples per good tuple")
	f.Float64Var(&o.cfg.Late, "late", 0, "share of tuples older than the minute of their record")
	return cmd
}

func (o *simulateFiles) run(cmd *cobra.Command) error {
	if o.dir == "" {
		return usageErrorf("simulate files: --dir is missing: name the folder to write to")
	}
	if o.hours < 1 {
		return usageErrorf("simulate files: --hours is %d, want 1 or more", o.hours)
	}
	start, err := time.Parse(time.RFC3339, o.start)
	if err != nil {
		return usageErrorf("simulate files: --start %q is no time like 2026-01-05T10:00:00Z", o.start)
	}
	if err := o.cfg.Validate(); err != nil {
		return usageErrorf("simulate files: %w", err)
	}
	estate, err := traffic.NewEstate(o.cfg)
	if err != nil {
		return err
	}
	begun := time.Now()
	truth, err := estate.WriteTree(cmd.Context(), o.dir, start, o.hours, o.progress(cmd.ErrOrStderr()))
	if err != nil {
		return fmt.Errorf("simulate files: %w", err)
	}
	path := filepath.Join(o.dir, "truth.json")
	if err := truth.WriteFile(path); err != nil {
		return fmt.Errorf("simulate files: %w", err)
	}
	t := truth.Totals
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d files, %d bytes, %d tuples and %d malformed ones in %.1f s; the truth is in %s\n",
		len(truth.Blobs), t.Bytes, t.Tuples, t.Malformed, time.Since(begun).Seconds(), path)
	return err
}

// progress returns what shows progress: one line that changes on a terminal,
// nothing elsewhere, where the summary is enough.
func (o *simulateFiles) progress(w io.Writer) func(traffic.Stats) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	total := uint64(o.cfg.NICs) * uint64(o.hours)
	var last time.Time
	return func(s traffic.Stats) {
		if done := s.Blobs == total; !done && time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		end := "\r"
		if s.Blobs == total {
			end = "\n"
		}
		_, _ = fmt.Fprintf(w, "%d of %d files, %d MB, %d tuples%s", s.Blobs, total, s.Bytes/1e6, s.Tuples, end)
	}
}
