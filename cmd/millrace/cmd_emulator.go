package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/cmd/internal/telemetry"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

type emulatorOptions struct {
	listen    string
	hubs      []string
	groups    []string
	key       string
	events    int
	megabytes int64
	age       time.Duration
	verbose   bool
}

func newEmulatorCommand() *cobra.Command {
	var o emulatorOptions
	cmd := &cobra.Command{
		Use:     "emulator",
		Short:   "Serve Azure Event Hubs on this machine, in memory",
		GroupID: groupDevelop,
		Long: `Serve Azure Event Hubs on this machine: AMQP 1.0 over plain TCP, as the official
clients speak it. Events are kept in memory and lost when the command ends.

It prints the connection string and serves until it is interrupted. Without --key
every client is let in.`,
		Example: `  # Two hubs on the default port; give the printed text to any Event Hubs client.
  millrace emulator --listen 127.0.0.1:5672 --hub flow-events:4 --hub audit:1

  # A free port, a consumer group besides $Default, one hour of events.
  millrace emulator --listen 127.0.0.1:0 --hub flow-events:4 --group millrace --age 1h`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("emulator: unexpected argument %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runEmulator(ctx, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:5672", "address to listen on; port 0 picks a free one")
	f.StringArrayVar(&o.hubs, "hub", []string{"flow-events:4"}, "event hub as name:partitions; may be repeated")
	f.StringArrayVar(&o.groups, "group", nil, "consumer group of all hubs besides $Default; may be repeated")
	f.StringVar(&o.key, "key", "", "shared access key that clients must have; empty lets everybody in")
	f.IntVar(&o.events, "max-events", 1_000_000, "events kept per partition")
	f.Int64Var(&o.megabytes, "max-mebibytes", 64, "MiB kept per partition")
	f.DurationVar(&o.age, "age", 24*time.Hour, "how long events are kept")
	f.BoolVar(&o.verbose, "verbose", false, "log refused and broken connections")
	return cmd
}

func runEmulator(ctx context.Context, o emulatorOptions, out, errOut io.Writer) error {
	cfg, err := o.config(errOut)
	if err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return usageErrorf("%w", err)
	}
	s, err := emulator.New(cfg)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen, or port 0 for a free one", err)
	}
	for _, h := range cfg.Hubs {
		fmt.Fprintf(out, "%s: %d partitions\n  %s\n", h.Name, h.Partitions, s.ConnectionString(h.Name))
	}
	fmt.Fprintf(out, "listening on %s; stop with Ctrl-C\n", s.Addr())
	return s.Run(ctx)
}

func (o emulatorOptions) config(errOut io.Writer) (emulator.Config, error) {
	cfg := emulator.DefaultConfig()
	cfg.Addr, cfg.Key = o.listen, o.key
	cfg.Retention = emulator.Retention{Events: o.events, Bytes: o.megabytes << 20, Age: o.age}
	if o.verbose {
		cfg.Logger = telemetry.NewTextLogger(errOut, slog.LevelDebug)
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return cfg, usageErrorf("emulator: --listen %q: want host:port", o.listen)
	}
	for _, text := range o.hubs {
		name, count, ok := strings.Cut(text, ":")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 1 {
			return cfg, usageErrorf("emulator: --hub %q: want name:partitions, for example flow-events:4", text)
		}
		cfg.Hubs = append(cfg.Hubs, emulator.Hub{Name: name, Partitions: n, ConsumerGroups: o.groups})
	}
	if o.events < 1 || o.megabytes < 1 || o.age <= 0 {
		return cfg, usageErrorf("emulator: --max-events, --max-mebibytes and --age must be above zero")
	}
	return cfg, nil
}
