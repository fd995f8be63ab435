// Command partsctl checks and installs the local parts before anything else is
// built: it compiles in a second, so that `make demo` can say within another
// what this machine lacks, and can download beside the build. The same
// commands are in the product as `millrace parts`.
package main

import (
	"context"
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
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: partsctl check|install|env build|demo|test")
		return 2
	}
	purpose, err := local.ParsePurpose(args[1])
	if err == nil {
		err = local.Command(ctx, args[0], local.Need{Purpose: purpose}, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "partsctl:", err)
		return 1
	}
	return 0
}
