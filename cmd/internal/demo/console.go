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

	"github.com/millrace/millrace/cmd/internal/digits"
)

// console prints lines for people: on a terminal the status line is rewritten in
// place, elsewhere one is printed every ten seconds. Any goroutine may use it.
type console struct {
	mu      sync.Mutex
	out     io.Writer
	width   func() int // of the terminal, in characters; nil elsewhere
	open    bool       // the cursor stands in a status line
	printed time.Time
	last    sample
}

// sample is how everything stands at one time. Rates are computed from two.
type sample struct {
	at            time.Time
	blobs, tuples uint64 // so far
	quarantined   uint64
	// Texts: seconds between what was written last, or the clock once live, and the
	// watermark; the watermark; where the estate is; what else there is to say.
	lag, watermark, mode, rest string
}

const plainEvery = 10 * time.Second

// terminalWidth is assumed when a terminal does not tell.
const terminalWidth = 80

func newConsole(out io.Writer) *console {
	c := &console{out: out}
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return c
	}
	c.width = func() int {
		w, _, err := term.GetSize(int(f.Fd()))
		if err != nil || w <= 0 {
			return terminalWidth
		}
		return w
	}
	return c
}

// line prints a line of its own.
func (c *console) line(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endStatus()
	fmt.Fprintf(c.out, format+"\n", args...)
}

// close leaves the cursor at the beginning of a line.
func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endStatus()
}

func (c *console) endStatus() {
	if c.open {
		fmt.Fprintln(c.out)
		c.open = false
	}
}

// status shows a sample and the rates since the one shown before.
func (c *console) status(s sample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.width == nil && s.at.Sub(c.printed) < plainEvery {
		return
	}
	before := c.last
	c.last = s
	seconds := s.at.Sub(before.at).Seconds()
	if before.at.IsZero() || seconds <= 0 || s.tuples < before.tuples {
		return
	}
	text := fmt.Sprintf("%.0f blobs/s, %s tuples/s, lag %s, watermark %s, quarantined %d | %s, %s",
		float64(s.blobs-before.blobs)/seconds, digits.Thousands(uint64(float64(s.tuples-before.tuples)/seconds)), s.lag, s.watermark, s.quarantined, s.mode, s.rest)
	c.printed = s.at
	c.show(text)
}

// progress shows a text in place of the status; only on a terminal.
func (c *console) progress(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.width != nil {
		c.show(text)
	}
}

// show writes a status line; a terminal's one is overwritten, and cut so that it
// never wraps.
func (c *console) show(text string) {
	if c.width == nil {
		fmt.Fprintln(c.out, text)
		return
	}
	if room := max(0, c.width()-1); len(text) > room {
		text = text[:room]
	}
	fmt.Fprintf(c.out, "\r\033[K%s", text)
	c.open = true
}

// residentPeak gives the highest resident memory of a process so far, in bytes; 0
// where the system does not tell.
func residentPeak(pid int) int64 {
	return int64(kibibytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM:"))
}

// memoryOfMachine gives the memory of this machine in bytes; 0 where the system
// does not tell.
func memoryOfMachine() uint64 { return kibibytes("/proc/meminfo", "MemTotal:") }

// kibibytes reads a "Name:  123 kB" line of a file of the kernel and gives bytes.
func kibibytes(path, name string) uint64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64) // 0 says unknown
			return n << 10
		}
	}
	return 0
}
