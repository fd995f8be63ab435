package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/millrace/millrace/deploy/local/process"
)

// ClickHouseOptions says which ClickHouse to start and where.
type ClickHouseOptions struct {
	// Bin is the path of millrace-clickhouse; Lib that of libchdb.so.
	Bin, Lib string
	// Dir holds data and configuration; a second start on it finds the data.
	Dir string
	// HTTPPort and TCPPort are the preferred ports; 0 takes any free one.
	HTTPPort, TCPPort int
	// Password, if set, makes clients work as the user "millrace" with it. It
	// travels in the child's environment and is stored as a hash. Without it
	// they are "default", let in from this machine.
	Password string
	// MemoryLimit in bytes; 0 leaves ClickHouse's default, nine tenths of the
	// machine.
	MemoryLimit uint64
	// ExtraConfig is a ClickHouse configuration file merged over ours. Optional.
	ExtraConfig string
	// LogFile takes what the program prints; ServerLog the server's own log,
	// which is off when empty.
	LogFile, ServerLog string
}

// ClickHouse is a running embedded server.
type ClickHouse struct {
	*process.Process
	// HTTPURL is like "http://127.0.0.1:8123", TCPAddr like "127.0.0.1:9000".
	HTTPURL, TCPAddr  string
	HTTPPort, TCPPort int
	// User is who clients log in as; the password is that of the options.
	User string
	// PortsMoved says that a preferred port was busy.
	PortsMoved bool
}

// StartClickHouse starts a server and returns when HTTP and native TCP answer:
// 0.3 s warm. The database "default" is not an ordinary one here; make an
// Atomic database of your own for anything that lasts. Tables and queries are
// free; files of the machine, other addresses and users are refused.
//
// Errors: the program's or ClickHouse's own message; ctx's cause.
func StartClickHouse(ctx context.Context, o ClickHouseOptions) (*ClickHouse, error) {
	if o.Bin == "" || o.Lib == "" || o.Dir == "" {
		return nil, errors.New("start clickhouse: Bin, Lib and Dir must be set")
	}
	var ch *ClickHouse
	err := retryPorts(ctx, func(ctx context.Context) (err error) {
		ch, err = startClickHouse(ctx, o)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	return ch, nil
}

func startClickHouse(ctx context.Context, o ClickHouseOptions) (*ClickHouse, error) {
	ports, err := reserve(o.HTTPPort, o.TCPPort)
	if err != nil {
		return nil, err
	}
	defer bound(ports)
	ready := newLineSignal(func(line []byte) bool { return bytes.HasPrefix(line, []byte("ready ")) })
	release(ports)
	p, err := process.Start(process.Config{
		Name:    "clickhouse",
		Path:    o.Bin,
		Args:    o.arguments(ports[0].Number, ports[1].Number),
		Env:     []string{"MILLRACE_CLICKHOUSE_PASSWORD=" + o.Password},
		LogFile: o.LogFile,
		Stdout:  ready,
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-ready.seen:
	case <-p.Done():
		return nil, exitCause(p, ports)
	case <-ctx.Done():
		p.Kill()
		return nil, context.Cause(ctx)
	}
	user := "default"
	if o.Password != "" {
		user = "millrace"
	}
	return &ClickHouse{
		Process:    p,
		User:       user,
		HTTPURL:    fmt.Sprintf("http://127.0.0.1:%d", ports[0].Number),
		TCPAddr:    fmt.Sprintf("127.0.0.1:%d", ports[1].Number),
		HTTPPort:   ports[0].Number,
		TCPPort:    ports[1].Number,
		PortsMoved: ports[0].Moved || ports[1].Moved,
	}, nil
}

func (o ClickHouseOptions) arguments(httpPort, tcpPort int) []string {
	args := []string{
		"--die-with-parent",
		"--lib", o.Lib,
		"--path", o.Dir,
		"--http-port", strconv.Itoa(httpPort),
		"--tcp-port", strconv.Itoa(tcpPort),
	}
	if o.MemoryLimit > 0 {
		args = append(args, "--memory-limit", strconv.FormatUint(o.MemoryLimit, 10))
	}
	if o.ExtraConfig != "" {
		args = append(args, "--config", o.ExtraConfig)
	}
	if o.ServerLog != "" {
		args = append(args, "--log-file", o.ServerLog)
	}
	return args
}
