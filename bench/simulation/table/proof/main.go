// Command proof runs the same random scripts on the simulation's model of a
// ClickHouse server and on the engine that ships, and compares them after every
// statement: rows, parts by name, probes by batch and partition, classes of errors.
//
// Scripts create tables, insert with and without tokens, over one partition and
// several, in one block and several, land pieces through the sink, raise the fence,
// drop, delete, merge, hold INSERTs up, and live through restarts and kills: between
// statements, at random moments of INSERTs, and at chosen system calls of them. A
// group of scripts shares a server, so that one kill serves all.
//
// After a kill at a random moment the model gives every state that the kill can
// leave. Those that later answers contradict are dropped; when none is left, that is
// a difference.
//
// The last line on standard output is one JSON object; the exit code is 1 when there
// was any difference.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	var o options
	flag.IntVar(&o.scripts, "scripts", 1000, "random scripts")
	flag.Uint64Var(&o.first, "first", 1, "seed of the first script")
	flag.IntVar(&o.group, "group", 40, "scripts that share a server")
	flag.IntVar(&o.rounds, "rounds", 4, "rounds of a script; each ends with a restart")
	flag.IntVar(&o.workers, "workers", 4, "scripts that run at once")
	flag.StringVar(&o.bin, "clickhouse", os.Getenv("MILLRACE_CLICKHOUSE_BIN"), "path of millrace-clickhouse")
	flag.StringVar(&o.lib, "lib", os.Getenv("MILLRACE_LIBCHDB"), "path of libchdb.so")
	flag.BoolVar(&o.trace, "trace", false, "print every statement with its outcome")
	flag.Parse()
	sum, err := prove(ctx, o, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
	}
	line, _ := json.Marshal(sum) // Numbers only.
	fmt.Println(string(line))
	if err != nil || sum.Differences > 0 || sum.Scripts < o.scripts || sum.Facts < len(facts) {
		return 1
	}
	return 0
}

// summary is the last line.
type summary struct {
	Facts      int `json:"facts"`
	Scripts    int `json:"scripts"`
	Statements int `json:"statements"`
	// Kills and Restarts are the server's; KillsDuring are scripts' INSERTs that a
	// kill met, ExactKills those at a chosen system call.
	Kills       int     `json:"kills"`
	Restarts    int     `json:"restarts"`
	KillsDuring int     `json:"kills_during_insert"`
	ExactKills  int     `json:"kills_at_system_call"`
	Differences int     `json:"differences"`
	Seconds     float64 `json:"seconds"`
}

type options struct {
	scripts, group, rounds, workers int
	first                           uint64
	bin, lib                        string
	trace                           bool
}

// prove checks the facts and runs all groups one after the other. Progress and
// differences go to out.
func prove(ctx context.Context, o options, out io.Writer) (summary, error) {
	began := time.Now()
	var sum summary
	if err := checkFacts(ctx, o, out, &sum); err != nil {
		return sum, fmt.Errorf("facts: %w", err)
	}
	since := func() float64 { return float64(time.Since(began).Milliseconds()) / 1000 }
	sum.Seconds = since()
	fmt.Fprintf(out, "%d facts, %d differences, %.0f s\n", sum.Facts, sum.Differences, sum.Seconds)
	for done := 0; done < o.scripts; done += o.group {
		g := group{options: o, out: out, first: o.first + uint64(done), size: min(o.group, o.scripts-done), sum: &sum}
		if err := g.run(ctx); err != nil {
			return sum, fmt.Errorf("scripts %d to %d: %w", g.first, g.first+uint64(g.size)-1, err)
		}
		sum.Seconds = since()
		fmt.Fprintf(out, "%d scripts, %d statements, %d kills, %d differences, %.0f s\n", sum.Scripts, sum.Statements, sum.Kills, sum.Differences, sum.Seconds)
	}
	return sum, nil
}
