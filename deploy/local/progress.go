package local

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// plainInterval is how often a part says how far it is where no line can be
// rewritten.
const plainInterval = 5 * time.Second

// Printer shows progress: one line that is rewritten on a terminal, plain
// lines elsewhere.
type Printer struct {
	w        io.Writer
	terminal bool
	width    func() int
	now      func() time.Time

	mu     sync.Mutex
	active []*partLine
	shown  int // Columns of the line that stands on the terminal.
}

type partLine struct {
	part, phase string
	done, total int64
	printed     time.Time
}

// NewPrinter writes to w; a terminal is recognised if w is an *os.File.
func NewPrinter(w io.Writer) *Printer {
	p := &Printer{w: w, now: time.Now}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return p
	}
	p.terminal = true
	p.width = func() int {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
		return 80
	}
	return p
}

// Update implements [Progress].
func (p *Printer) Update(part, phase string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(part)
	changed := l.phase != phase
	l.phase, l.done, l.total = phase, done, total
	if p.terminal {
		p.draw()
		return
	}
	if now := p.now(); changed || now.Sub(l.printed) >= plainInterval {
		l.printed = now
		fmt.Fprintln(p.w, l.String())
	}
}

// End implements [Progress].
func (p *Printer) End(part string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active = slices.DeleteFunc(p.active, func(l *partLine) bool { return l.part == part })
	p.clear()
	if err == nil {
		fmt.Fprintf(p.w, "%s: installed\n", part)
	}
	p.draw()
}

// Note implements [Progress].
func (p *Printer) Note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.w, text)
	p.draw()
}

func (p *Printer) line(part string) *partLine {
	for _, l := range p.active {
		if l.part == part {
			return l
		}
	}
	l := &partLine{part: part}
	p.active = append(p.active, l)
	return l
}

func (l *partLine) String() string {
	percent := int64(0)
	if l.total > 0 {
		percent = 100 * l.done / l.total
	}
	return fmt.Sprintf("%s: %s %d %% (%s of %s)", l.part, l.phase, percent, Megabytes(l.done), Megabytes(l.total))
}

// draw rewrites the line of all active parts, cut to the terminal.
func (p *Printer) draw() {
	if !p.terminal || len(p.active) == 0 {
		return
	}
	texts := make([]string, 0, len(p.active))
	for _, l := range p.active {
		texts = append(texts, l.String())
	}
	line := strings.Join(texts, "   ")
	line = line[:min(len(line), p.width()-1)]
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, p.shown-len(line))))
	p.shown = len(line)
}

func (p *Printer) clear() {
	if p.shown > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.shown))
		p.shown = 0
	}
}

// Megabytes renders a size for people, in MB of a million bytes.
func Megabytes(n int64) string { return fmt.Sprintf("%d MB", (n+500_000)/1_000_000) }
