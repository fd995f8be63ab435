// Bounds is the program behind `make cardinality` and `make listing`: it brings a
// part of the pipeline to its limits, in a process of its own, and measures it.
//
// It prints one JSON object, and ends with 1 when a limit is missed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// result is what a measurement found, and what of it is not good enough.
type result interface{ missed() []string }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bounds", flag.ContinueOnError)
	flags.SetOutput(stderr)
	keys := flags.Int("keys", 10_000_000, "distinct keys of cardinality")
	blobs := flags.Int("blobs", 1_000_000, "names of listing")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var got result
	var err error
	switch flags.Arg(0) {
	case "cardinality":
		got, err = cardinality(ctx, *keys, stderr)
	case "listing":
		got, err = listNames(ctx, *blobs)
	default:
		fmt.Fprintln(stderr, "bounds: say what to measure: bounds [flags] cardinality|listing")
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "bounds:", err)
		return 1
	}
	if err := json.NewEncoder(stdout).Encode(got); err != nil {
		fmt.Fprintln(stderr, "bounds:", err)
		return 1
	}
	for _, fault := range got.missed() {
		fmt.Fprintln(stderr, "missed:", fault)
	}
	if len(got.missed()) > 0 {
		return 1
	}
	return 0
}
