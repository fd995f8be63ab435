// Command millrace-clickhouse is the embedded ClickHouse: a real ClickHouse
// server on loopback, out of the shared library libchdb.so.
//
// It is a program of its own for two reasons: the library is half a gigabyte
// and must not be loaded into the pipeline, and bin/millrace stays a static
// binary. It binds to the library without cgo and runs on the operating
// systems, architectures and C libraries the library is published for.
//
// What flows in: flags, an optional password in MILLRACE_CLICKHOUSE_PASSWORD,
// and, with --die-with-parent, a pipe on standard input whose end means that
// the parent is gone. What flows out: HTTP and native TCP on 127.0.0.1, and on
// standard output the single line "ready http=HOST:PORT tcp=HOST:PORT" once
// both answer. Error texts of ClickHouse go to standard error.
//
// Goroutines: main runs ClickHouse on its own thread until the process ends;
// one goroutine waits for readiness, one for signals, one for the parent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Exit codes: 0 stopped when asked to, 1 failed, 2 wrong usage.
const (
	exitFailed = 1
	exitUsage  = 2
)

// readyTimeout bounds the start: 0.3 s is usual, a cold disk cache has to read
// half a gigabyte of library.
const readyTimeout = 90 * time.Second

// stopTimeout bounds the soft stop. It takes 0.2 s when no client is connected;
// an open connection, even an idle one, holds ClickHouse back for 5 s. After the
// limit the process just ends: written parts are files already, and a restart
// finds them.
const stopTimeout = 3 * time.Second

type options struct {
	path          string
	lib           string
	httpPort      int
	tcpPort       int
	extraConfig   string
	password      string
	memoryLimit   uint64
	logFile       string
	logLevel      string
	dieWithParent bool

	// token is made at each start: it marks the keep-alive query and is the
	// password of the user we ask the server as.
	token string
}

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "millrace-clickhouse:", err)
		os.Exit(exitUsage)
	}
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "millrace-clickhouse:", err)
		os.Exit(exitFailed)
	}
}

// parseOptions reads flags and environment and reports every fault at once.
func parseOptions(args []string, usage io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("millrace-clickhouse", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&o.path, "path", "", "folder for data and configuration (required)")
	f.StringVar(&o.lib, "lib", os.Getenv("MILLRACE_LIBCHDB"), "path of libchdb.so (default $MILLRACE_LIBCHDB)")
	f.IntVar(&o.httpPort, "http-port", 8123, "port for HTTP on 127.0.0.1")
	f.IntVar(&o.tcpPort, "tcp-port", 9000, "port for the native protocol on 127.0.0.1")
	f.StringVar(&o.extraConfig, "config", "", "a configuration file (.xml or .yaml) merged over the built-in one")
	f.Uint64Var(&o.memoryLimit, "memory-limit", 0, "bytes of memory the server may use (0: nine tenths of the machine)")
	f.StringVar(&o.logFile, "log-file", "", "write the server's log to this file (none if empty)")
	f.StringVar(&o.logLevel, "log-level", "information", "level of --log-file: error, warning, information, debug or trace")
	f.BoolVar(&o.dieWithParent, "die-with-parent", false, "end when standard input ends")
	f.Usage = func() {
		fmt.Fprint(f.Output(), "Serve an embedded ClickHouse on loopback.\n\nUsage: millrace-clickhouse --path DIR [flags]\n\n"+
			"Example: millrace-clickhouse --path /tmp/ch --lib libchdb.so --http-port 8123 --tcp-port 9000\n\n"+
			"Clients are the user \"default\" without a password; or, if MILLRACE_CLICKHOUSE_PASSWORD is set,\n"+
			"the user \"millrace\" with that password.\n\nFlags:\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.password = os.Getenv("MILLRACE_CLICKHOUSE_PASSWORD")
	return o, o.validate(f.Args())
}

func (o *options) validate(rest []string) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(rest) > 0 {
		fault("unexpected argument %q", rest[0])
	}
	if o.path == "" {
		fault("--path is missing: name a folder for the data")
	}
	if o.lib == "" {
		fault("no library: set --lib or MILLRACE_LIBCHDB to the path of libchdb.so (`millrace parts install` downloads it)")
	}
	for name, port := range map[string]int{"--http-port": o.httpPort, "--tcp-port": o.tcpPort} {
		if port < 1 || port > 65535 {
			fault("%s is %d, want 1 to 65535", name, port)
		}
	}
	if o.httpPort == o.tcpPort {
		fault("--http-port and --tcp-port are both %d", o.httpPort)
	}
	return errors.Join(faults...)
}

// run serves until it is told to stop.
func run(o options, out io.Writer) error {
	abs, err := filepath.Abs(o.path)
	if err != nil {
		return err
	}
	o.path = abs
	if o.dieWithParent {
		go exitWithParent(os.Stdin)
	}
	if o.token, err = newToken(); err != nil {
		return err
	}
	l, err := writeConfig(o)
	if err != nil {
		return err
	}
	lib, err := openLibrary(o.lib)
	if err != nil {
		return err
	}
	return serve(lib, o, l, newControl(o), out)
}

// serve runs ClickHouse on this thread. The query that keeps it alive never
// ends by itself, so a return without a stop request is a failed start or a
// crash of that query, whatever the library's result says.
func serve(lib *library, o options, l layout, c *control, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopping := make(chan struct{})
	go func() {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		<-signals
		close(stopping)
		c.stop(signals)
	}()
	go announceReady(ctx, c, o, out)
	// ClickHouse's threads write to sockets whose clients have gone. Its own server
	// ignores the signal, too; the Go runtime would end the process for a foreign thread.
	signal.Ignore(syscall.SIGPIPE)

	runtime.LockOSThread()
	err := lib.run(arguments(o, l, c.keepAliveQuery()))
	cancel()
	select {
	case <-stopping:
		return nil
	default:
	}
	if err == nil {
		err = errors.New("the server ended by itself; its message stands above")
	}
	return fmt.Errorf("serve %q: %w", o.path, err)
}

// announceReady prints the ready line, or ends the process when the server
// does not come up in time.
func announceReady(ctx context.Context, c *control, o options, out io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := c.waitReady(ctx)
	switch {
	case err == nil:
		fmt.Fprintf(out, "ready http=%s:%d tcp=%s:%d\n", listenHost, o.httpPort, listenHost, o.tcpPort)
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(os.Stderr, "millrace-clickhouse: not ready after %s: %v\n", readyTimeout, c.lastError())
		os.Exit(exitFailed)
	}
}

// exitWithParent ends the process when r does. It does not ask ClickHouse
// first: nobody is left to wait for the answer.
func exitWithParent(r io.Reader) {
	_, _ = io.Copy(io.Discard, r)
	os.Exit(exitFailed)
}

// arguments is the command line of "clickhouse local".
func arguments(o options, l layout, query string) []string {
	return []string{
		"--config-file=" + l.config(),
		"--path=" + l.data(),
		"--listen_host=" + listenHost,
		fmt.Sprintf("--http_port=%d", o.httpPort),
		fmt.Sprintf("--tcp_port=%d", o.tcpPort),
		"--query", query,
	}
}
