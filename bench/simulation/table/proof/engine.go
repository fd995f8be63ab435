package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/deploy/local/servers"
)

const (
	// memoryLimit of the server, in bytes.
	memoryLimit  = 4 << 30
	startTimeout = 90 * time.Second
	stopTimeout  = 15 * time.Second
)

// engine is the real server. It keeps its ports over restarts, unless somebody else
// takes them meanwhile.
type engine struct {
	options         servers.ClickHouseOptions
	ch              *servers.ClickHouse
	kills, restarts int
}

func startEngine(ctx context.Context, bin, lib, dir string) (*engine, error) {
	e := &engine{options: servers.ClickHouseOptions{Bin: bin, Lib: lib, Dir: dir, MemoryLimit: memoryLimit}}
	return e, e.start(ctx)
}

func (e *engine) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ch, err := servers.StartClickHouse(ctx, e.options)
	if err != nil {
		return err
	}
	e.ch, e.options.HTTPPort, e.options.TCPPort = ch, ch.HTTPPort, ch.TCPPort
	return nil
}

// restart starts the server after its end.
func (e *engine) restart(ctx context.Context) error {
	e.restarts++
	return e.start(ctx)
}

func (e *engine) kill() {
	e.kills++
	e.ch.Kill()
}

// stop ends the server softly.
func (e *engine) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return e.ch.Stop(ctx)
}

// trap is a tracer that kills the server at one of its system calls.
type trap struct {
	cmd  *exec.Cmd
	said said
}

// trap sets one: the server dies at the entry of the n-th call (from 1 on), which is
// then not done. path narrows it down to calls about that file, if set.
func (e *engine) trap(ctx context.Context, call string, n int, path string) (*trap, error) {
	args := []string{
		"-f", "-o", os.DevNull, "-p", strconv.Itoa(e.ch.Pid()),
		"-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n),
	}
	if path != "" {
		args = append(args, "-P", path)
	}
	t := &trap{cmd: exec.CommandContext(ctx, "strace", args...), said: said{ready: make(chan struct{})}}
	t.cmd.Stderr = &t.said
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start strace: %w", err)
	}
	select {
	case <-t.said.ready:
		return t, nil
	case <-ctx.Done():
	case <-time.After(startTimeout):
	}
	_ = t.cmd.Process.Kill()
	t.remove()
	return nil, fmt.Errorf("strace did not attach: %s", t.said.text())
}

// remove takes the trap away after the server's end, sprung or not. A tracer that is
// asked to leave while its threads die may never come back: with the server gone it
// leaves by itself.
func (t *trap) remove() {
	over := time.AfterFunc(stopTimeout, func() { _ = t.cmd.Process.Kill() })
	_ = t.cmd.Wait() // It ends as the server did.
	over.Stop()
}

// said collects a program's output and tells when it says that it is attached.
type said struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(p)
	if strings.Contains(s.buf.String(), "attached") {
		s.once.Do(func() { close(s.ready) })
	}
	return len(p), nil
}

func (s *said) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSpace(s.buf.String())
}
