package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/digits"
	"github.com/millrace/millrace/cmd/internal/telemetry"
	"github.com/millrace/millrace/pipeline/engine"
)

// liveEvery is how often the line on a terminal is written anew.
const liveEvery = time.Second

// standing is how a pipeline stands at one time. Rates are computed from two.
type standing struct {
	at time.Time
	engine.Status
}

// statusLine tells people every now and then how the pipeline stands: on a terminal
// one line that is rewritten, elsewhere a line each time, or a record of the log when
// machines read that.
type statusLine struct {
	every  time.Duration // 0 is never
	read   func() (engine.Status, bool)
	now    func() time.Time
	say    func(text string)
	record *slog.Logger // instead of say; nil for people
	screen *screen      // instead of say; nil elsewhere
	before standing
}

// newStatusLine writes where the log goes.
func newStatusLine(every time.Duration, out io.Writer, format string, log *slog.Logger, server *assembly.Server) *statusLine {
	l := &statusLine{every: every, now: time.Now, say: func(text string) { fmt.Fprintln(out, text) }}
	l.read = func() (engine.Status, bool) {
		p := server.Pipeline()
		if p == nil {
			return engine.Status{}, false
		}
		return p.Engine.Status(), true
	}
	s, terminal := out.(*screen)
	switch {
	case format == telemetry.LogJSON:
		l.record = log
	case terminal && every > 0:
		l.screen, l.every = s, liveEvery
	}
	return l
}

// run tells until ctx ends.
func (l *statusLine) run(ctx context.Context) {
	if l.every <= 0 {
		return
	}
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.tell(ctx)
		case <-ctx.Done():
			if l.screen != nil {
				l.screen.show("")
			}
			return
		}
	}
}

// tell shows what has become since the last time. A pipeline that is new, or whose
// counts have begun anew, has no rates yet.
func (l *statusLine) tell(ctx context.Context) {
	s, ok := l.read()
	now := standing{at: l.now(), Status: s}
	before := l.before
	l.before = now
	if !ok {
		l.before = standing{}
		return
	}
	var rows, bytes float64
	if seconds := now.at.Sub(before.at).Seconds(); !before.at.IsZero() && seconds > 0 && s.Landed >= before.Landed && s.Bytes >= before.Bytes {
		rows, bytes = float64(s.Landed-before.Landed)/seconds, float64(s.Bytes-before.Bytes)/seconds
	}
	switch {
	case l.record != nil:
		l.record.InfoContext(ctx, "status", slog.Bool("live", s.Live), slog.Float64("rows_per_second", rows), slog.Float64("bytes_per_second", bytes),
			slog.Float64("lag_seconds", float64(s.OldestMS)/1000), slog.Int64("lag_notifications", s.Behind), slog.Int64("lag_bytes", s.LagBytes),
			slog.Time("watermark", time.UnixMilli(s.Watermark).UTC()), slog.Int("blobs_waiting", s.Queued), slog.Int64("quarantined", s.Quarantined), slog.Int64("filtered", s.Filtered), slog.Int("in_doubt", s.InDoubt))
	case l.screen != nil:
		l.screen.show(statusText(now, rows, bytes))
	default:
		l.say(statusText(now, rows, bytes))
	}
}

// statusText is the line for people.
func statusText(s standing, rows, bytes float64) string {
	watermark := "none yet"
	if s.Watermark > 0 {
		watermark = time.UnixMilli(s.Watermark).UTC().Format("15:04:05")
	}
	state := ""
	if !s.Live {
		state = "recovering, "
	}
	filtered := ""
	if s.Filtered > 0 {
		filtered = digits.Thousands(s.Filtered) + " filtered, "
	}
	return fmt.Sprintf("%s status: %s%s rows/s, %.1f MB/s, lag %d s and %s notifications (%.1f MB), watermark %s, %s blobs waiting, %s quarantined, %s%d in doubt",
		s.at.UTC().Format("15:04:05Z"), state, digits.Thousands(int64(rows)), bytes/1e6, (s.OldestMS+500)/1000, digits.Thousands(s.Behind), float64(s.LagBytes)/1e6,
		watermark, digits.Thousands(int64(s.Queued)), digits.Thousands(s.Quarantined), filtered, s.InDoubt)
}

// screen is a terminal whose last line is rewritten; what else is written goes above
// it. Any goroutine may write.
type screen struct {
	out   io.Writer
	width func() int // in characters

	mu   sync.Mutex
	line string
}

// asScreen gives a terminal as a screen, anything else as it is.
func asScreen(w io.Writer) io.Writer {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(w) {
		return w
	}
	return &screen{out: w, width: func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 {
			return 80
		}
		return width
	}}
}

const clearLine = "\r\x1b[K"

// Write puts p above the line.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.out.Write(p)
	}
	if _, err := io.WriteString(s.out, clearLine+string(p)+s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show rewrites the line, cut so that it never wraps; "" takes it away.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = line[:min(len(line), max(0, s.width()-1))]
	fmt.Fprint(s.out, clearLine+s.line)
}
