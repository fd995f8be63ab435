// Package process starts the local parts of a demo or a test (ClickHouse,
// Azurite, an emulator, the pipeline itself) as child processes that never
// outlive their parent.
//
// What flows in: a command line and where to log. What flows out: the child's
// end, as a closed channel and an error. Output goes to a log file of bounded
// size, and its last lines stay in memory for error messages.
//
// A child dies with its parent in two ways. On Linux the kernel sends SIGKILL
// when the thread that forked it ends (Pdeathsig); that thread therefore
// belongs to a goroutine that is locked to it for as long as the child lives.
// Everywhere, the child's standard input is a pipe that only the parent holds:
// a program that reads its end leaves (see [WatchParent] for Go programs and
// Config.Node for Node.js).
//
// Each child has one goroutine, which starts it and waits for it, and the two
// of os/exec that copy output; all are gone when Done is closed.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// outputDelay is how long output is still read after the child ended, if a
// grandchild keeps the pipe open.
const outputDelay = time.Second

// nodeGuard is JavaScript that ends the process when standard input does. It
// is loaded before the program, so that no start-up code can outlive us.
const nodeGuard = `data:text/javascript,` +
	`for(const e of['end','close','error'])process.stdin.on(e,()=>process.exit(1));process.stdin.resume();process.stdin.unref();`

// Config describes one child.
type Config struct {
	// Name stands in error messages and log lines.
	Name string
	// Path is the program: a path, or a name that is looked up in PATH.
	Path string
	Args []string
	// Env is added to the environment of this process; a later entry wins.
	Env []string
	// Dir is the working directory; empty means that of this process.
	Dir string
	// Node says that Path is node and Args begin with a script: a guard is put
	// in front that ends the program with its parent.
	Node bool
	// LogFile receives standard output and error; empty keeps only the tail.
	LogFile string
	// MaxLogBytes bounds LogFile; at the limit it is renamed to LogFile.1 and
	// begun anew, so twice as much is on disk. Default 4 MiB.
	MaxLogBytes int64
	// Stdout also gets the standard output, as it comes. Optional.
	Stdout io.Writer
}

// Process is a running child, or one that has ended.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  *logFile
	// stdin is the pipe whose end tells the child that we are gone.
	stdin   io.Closer
	done    chan struct{}
	err     error // Valid once done is closed.
	stopped atomic.Bool
}

// Start starts the child and returns when it has been executed, not when it
// is ready to serve.
//
// Errors: the program does not exist or cannot be run, or the log file cannot
// be written.
func Start(cfg Config) (*Process, error) {
	log, err := openLog(cfg.LogFile, cfg.MaxLogBytes)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	p := &Process{name: cfg.Name, cmd: command(cfg, log), log: log, done: make(chan struct{})}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, errors.Join(err, log.Close()))
	}
	started := make(chan error)
	go p.live(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	return p, nil
}

// live is the child's goroutine, from fork to end.
//
// The kernel's parent-death signal watches the forking *thread*. Were this
// goroutine not locked, the runtime could retire that thread while we live,
// and the child would be killed for no reason.
func (p *Process) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		_ = p.log.Close()
		started <- err
		return
	}
	started <- nil
	err := p.cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // It ended well; only its output was cut short.
	}
	if closeErr := p.log.Close(); err == nil {
		err = closeErr
	}
	p.err = err
	close(p.done)
}

func command(cfg Config, log *logFile) *exec.Cmd {
	args := cfg.Args
	if cfg.Node {
		args = append([]string{"--import", nodeGuard}, args...)
	}
	cmd := exec.Command(cfg.Path, args...)
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.Dir = cfg.Dir
	cmd.WaitDelay = outputDelay
	cmd.Stdout, cmd.Stderr = log, log
	if cfg.Stdout != nil {
		cmd.Stdout = io.MultiWriter(log, cfg.Stdout)
	}
	cmd.SysProcAttr = attributes()
	return cmd
}

// Name is what the child is called in messages.
func (p *Process) Name() string { return p.name }

// Pid is the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and all its output was written.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended: nil for exit code 0. Before Done is closed it
// is nil too.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Stopped tells an end we asked for, by Stop or Kill, from one of the child's
// own.
func (p *Process) Stopped() bool { return p.stopped.Load() }

// Tail returns the last lines the child wrote, for an error message.
func (p *Process) Tail() string { return p.log.Tail() }

// ExitError wraps the way the child ended and the last thing it said.
func (p *Process) ExitError() error {
	how := "exit status 0"
	if err := p.Err(); err != nil {
		how = err.Error()
	}
	tail := strings.TrimSpace(p.Tail())
	if tail == "" {
		return fmt.Errorf("%s ended: %s", p.name, how)
	}
	return fmt.Errorf("%s ended: %s: %s", p.name, how, tail)
}

// Stop asks the child to end (SIGTERM), waits, and kills it when ctx ends
// first. It returns when the child is gone.
//
// Errors: the child had to be killed. A non-zero exit code after the request
// is not an error: see Err.
func (p *Process) Stop(ctx context.Context) error {
	p.stopped.Store(true)
	select {
	case <-p.done:
		return nil
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // It may have ended just now.
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("stop %s: killed: %w", p.name, context.Cause(ctx))
	}
}

// Kill ends the child and its own children at once and waits until it is gone.
func (p *Process) Kill() {
	p.stopped.Store(true)
	p.SendKill()
	<-p.done
}

// SendKill kills without waiting and without marking the end as asked for: to
// a supervisor it looks like a crash.
func (p *Process) SendKill() {
	select {
	case <-p.done:
		return // The process id may belong to somebody else by now.
	default:
	}
	killGroup(p.cmd.Process)
}

// WatchParent calls gone, once, when the parent of this process has ended. It
// takes standard input for itself and needs a parent that keeps the pipe open
// for as long as it lives, as Start does.
func WatchParent(gone func()) {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		gone()
	}()
}

// logPath makes the folder of a log file.
func makeLogDir(path string) error {
	return os.MkdirAll(filepath.Dir(path), 0o700)
}
