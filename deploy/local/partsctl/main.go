// Command partsctl checks and installs the local parts before anything else is
// built: it compiles in a second, so that `make demo` can say within another
// what this machine lacks, and can download beside the build. The same
// commands are in the product as `millrace parts`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace/millrace/deploy/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("partsctl", flag.ContinueOnError)
	noClickHouse := flags.Bool("no-clickhouse", false, "leave the embedded ClickHouse out")
	if err := flags.Parse(args); err != nil || flags.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: partsctl [-no-clickhouse] check|install|env build|demo|test")
		return 2
	}
	purpose, err := local.ParsePurpose(flags.Arg(1))
	if err == nil {
		need := local.Need{Purpose: purpose, NoClickHouse: *noClickHouse}
		err = local.Command(ctx, flags.Arg(0), need, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "partsctl:", err)
		return 1
	}
	return 0
}
