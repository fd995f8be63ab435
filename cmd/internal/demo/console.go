package demo

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// console prints lines for people: on a terminal the status line is rewritten in
// place, elsewhere one is printed every ten seconds.
type console struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	open     bool // the cursor stands in a status line
	printed  time.Time
	last     sample
}

// sample is a point in time for the rates.
type sample struct {
	at            time.Time
	blobs, tuples int64
}

const plainEvery = 10 * time.Second

func newConsole(out io.Writer) *console {
	f, ok := out.(*os.File)
	return &console{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

func (c *console) line(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open {
		fmt.Fprintln(c.out)
		c.open = false
	}
	fmt.Fprintf(c.out, format+"\n", args...)
}

// status prints the rates since the last sample and the text.
func (c *console) status(s sample, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.terminal && s.at.Sub(c.printed) < plainEvery {
		return
	}
	seconds := s.at.Sub(c.last.at).Seconds()
	if c.last.at.IsZero() || seconds <= 0 || s.tuples < c.last.tuples {
		c.last = s
		return
	}
	text := fmt.Sprintf("%.0f blobs/s, %s tuples/s | ", float64(s.blobs-c.last.blobs)/seconds, thousands(int64(float64(s.tuples-c.last.tuples)/seconds))) +
		fmt.Sprintf(format, args...)
	c.last, c.printed = s, s.at
	if c.terminal {
		fmt.Fprintf(c.out, "\r\033[K%s", text)
		c.open = true
		return
	}
	fmt.Fprintln(c.out, text)
}

// thousands groups the digits of n.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// residentPeak gives the highest resident memory of a process so far, in bytes; 0
// where the system does not tell.
func residentPeak(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
