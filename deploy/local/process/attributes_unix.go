//go:build unix && !linux

package process

import (
	"os"
	"syscall"
)

// attributes puts the child in a group of its own, so that Ctrl-C at the
// terminal reaches only the parent, which then stops its children in order.
// The pipe on standard input alone makes it die with us here.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

func killGroup(p *os.Process) {
	if syscall.Kill(-p.Pid, syscall.SIGKILL) != nil {
		_ = p.Kill()
	}
}
