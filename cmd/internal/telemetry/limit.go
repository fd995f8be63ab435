package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// lineBurst lines of one kind pass within lineEvery; the others are counted, and
	// one line tells how many there were.
	lineBurst = 10
	lineEvery = time.Minute
	// maxKinds bounds the kinds that are told apart at one time.
	maxKinds = 1000
)

// kindKeys are the attributes that tell kinds of lines with one message apart. All
// have few values: with a blob's name among them nothing would ever be a repetition.
var kindKeys = map[string]bool{
	"hub": true, "kind": true, "operator": true, "partition": true, "reason": true, "shard": true, "sink": true, "table": true, "topic": true, "what": true,
}

// limiter is a slog.Handler that holds repeated lines back. Lines below Info pass:
// whoever asks for them wants all.
type limiter struct {
	next slog.Handler
	kind string // of what With has added
	*kinds
}

// kinds is shared by a limiter and those that With made of it.
type kinds struct {
	burst int
	every time.Duration

	mu     sync.Mutex
	seen   map[string]*kindOfLine
	closed bool
}

type kindOfLine struct {
	began   time.Time
	passed  int
	held    int64
	message string
	level   slog.Level
	next    slog.Handler
	timer   *time.Timer // runs while lines are held
}

func newLimiter(next slog.Handler, burst int, every time.Duration) *limiter {
	return &limiter{next: next, kinds: &kinds{burst: burst, every: every, seen: map[string]*kindOfLine{}}}
}

func (l *limiter) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !l.pass(r) {
		return nil
	}
	return l.next.Handle(ctx, r)
}

func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	kind := l.kind
	for _, a := range attrs {
		kind += kindOf(a)
	}
	return &limiter{next: l.next.WithAttrs(attrs), kind: kind, kinds: l.kinds}
}

func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{next: l.next.WithGroup(name), kind: l.kind + "\x00" + name, kinds: l.kinds}
}

func kindOf(a slog.Attr) string {
	if !kindKeys[a.Key] {
		return ""
	}
	return "\x00" + a.Key + "=" + a.Value.String()
}

// pass says whether the line is written, and counts it otherwise.
func (l *limiter) pass(r slog.Record) bool {
	var key strings.Builder
	key.WriteString(r.Level.String() + "\x00" + r.Message + l.kind)
	r.Attrs(func(a slog.Attr) bool {
		key.WriteString(kindOf(a))
		return true
	})
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return true
	}
	k := l.find(key.String(), now)
	if k == nil || k.held == 0 && now.Sub(k.began) >= l.every {
		if k == nil {
			k = &kindOfLine{}
			l.seen[key.String()] = k
		}
		*k = kindOfLine{began: now, message: r.Message, level: r.Level, next: l.next}
	}
	if k.passed < l.burst {
		k.passed++
		return true
	}
	if k.held++; k.timer == nil {
		k.timer = time.AfterFunc(k.began.Add(l.every).Sub(now), func() { l.tell(k) })
	}
	return false
}

// find gives the kind with the key, nil for a new one. When there is no room for a
// new one it gives another, so that nothing passes uncounted. The caller holds mu.
func (l *kinds) find(key string, now time.Time) *kindOfLine {
	k := l.seen[key]
	if k != nil || len(l.seen) < maxKinds {
		return k
	}
	for name, old := range l.seen {
		if old.held == 0 && now.Sub(old.began) >= l.every {
			delete(l.seen, name)
		}
	}
	if len(l.seen) < maxKinds {
		return nil
	}
	for _, any := range l.seen {
		return any
	}
	return nil
}

// tell writes how many lines of a kind were held back, and begins anew.
func (l *kinds) tell(k *kindOfLine) {
	l.mu.Lock()
	held, message, level, next := k.held, k.message, k.level, k.next
	k.held, k.passed, k.began, k.timer = 0, 0, time.Now(), nil
	l.mu.Unlock()
	if held == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), level, "repeated lines suppressed", 0)
	r.AddAttrs(slog.String("line", message), slog.Int64("suppressed", held), slog.Duration("within", l.every))
	_ = next.Handle(context.Background(), r) // as every line: there is nobody to tell
}

// close tells what is held back; lines that come later all pass.
func (l *kinds) close() {
	l.mu.Lock()
	l.closed = true
	var open []*kindOfLine
	for _, k := range l.seen {
		if k.timer != nil && k.timer.Stop() {
			open = append(open, k)
		}
	}
	l.mu.Unlock()
	for _, k := range open {
		l.tell(k)
	}
}
