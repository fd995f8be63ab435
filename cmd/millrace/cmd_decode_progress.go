package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// decodeProgress tells how far a run has come: a line that is rewritten on a
// terminal, plain lines now and then elsewhere. Short runs say nothing.
type decodeProgress struct {
	out      io.Writer
	terminal bool
	silent   bool
	every    time.Duration
	start    time.Time
	last     time.Time
	shown    bool
	total    int64 // bytes on disk; 0 when unknown
	read     int64
	rows     int64
}

func newDecodeProgress(stderr, stdout io.Writer, files []input) *decodeProgress {
	now := time.Now()
	p := &decodeProgress{out: stderr, start: now, last: now, every: 10 * time.Second}
	p.terminal = isTerminal(stderr)
	if p.terminal {
		p.every = 200 * time.Millisecond
		p.silent = isTerminal(stdout) // rows and progress would overwrite each other
	}
	for _, f := range files {
		if f.size == 0 {
			p.total = 0
			break
		}
		p.total += f.size
	}
	return p
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// count counts what is read from a file.
func (p *decodeProgress) count(in io.Reader) io.Reader { return &progressReader{in, p} }

type progressReader struct {
	in io.Reader
	p  *decodeProgress
}

func (r *progressReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	r.p.read += int64(n)
	return n, err
}

// step is called between chunks.
func (p *decodeProgress) step(rows int) {
	p.rows += int64(rows)
	now := time.Now()
	if p.silent || now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	line := p.line(now)
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		p.shown = true
		return
	}
	fmt.Fprintf(p.out, "millrace: decode: %s\n", line)
}

func (p *decodeProgress) line(now time.Time) string {
	used := now.Sub(p.start)
	rate := float64(p.read) / used.Seconds()
	line := fmt.Sprintf("%d MB, %d rows, %.0f MB/s", p.read/1e6, p.rows, rate/1e6)
	if p.total > p.read {
		left := time.Duration(float64(p.total-p.read) / rate * float64(time.Second))
		line += fmt.Sprintf(", %d %%, %s left", p.read*100/p.total, left.Round(time.Second))
	}
	return line
}

// clear makes room for another line on a terminal.
func (p *decodeProgress) clear() {
	if p != nil && p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

func (p *decodeProgress) end() { p.clear() }
