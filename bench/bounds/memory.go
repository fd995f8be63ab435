package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// peakMiB is the highest resident memory of the process so far.
//
// Source: proc(5), VmHWM of /proc/self/status, in KiB.
func peakMiB() (float64, error) { return statusMiB("VmHWM:") }

// residentMiB is the resident memory now.
func residentMiB() (float64, error) { return statusMiB("VmRSS:") }

func statusMiB(key string) (float64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("measure memory: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), key); ok {
			var kib float64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0, fmt.Errorf("measure memory: %s %q: %w", key, rest, err)
			}
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("measure memory: no %s in /proc/self/status", key)
}

// cpuTime is what the process has used of its cores, collection of garbage included:
// unlike the clock it does not depend on who else is at work.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
