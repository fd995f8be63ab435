package process

import (
	"os"
	"syscall"
)

// attributes puts the child in a group of its own, so that Ctrl-C at the
// terminal reaches only the parent, which then stops its children in order;
// and has the kernel kill it with the thread that forks it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(p *os.Process) {
	if syscall.Kill(-p.Pid, syscall.SIGKILL) != nil {
		_ = p.Kill()
	}
}
