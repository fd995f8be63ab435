package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/pipeline/secret"
)

// Formats of the log on standard error.
const (
	LogText = "text"
	LogJSON = "json"
)

// NewHandler writes log records as text or JSON, one a line, with the ids of the
// span that they were logged in.
//
// Errors: an unknown format.
func NewHandler(w io.Writer, format string, level slog.Leveler) (slog.Handler, error) {
	options := &slog.HandlerOptions{Level: level}
	w = escaped{w}
	switch format {
	case LogText:
		return traceIDs{slog.NewTextHandler(w, options)}, nil
	case LogJSON:
		return traceIDs{slog.NewJSONHandler(w, options)}, nil
	}
	return nil, fmt.Errorf("log format %q: want %s or %s", format, LogText, LogJSON)
}

// NewTextLogger is the log of a command that people run, on standard error.
func NewTextLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(escaped{w}, &slog.HandlerOptions{Level: level}))
}

// escaped writes the control characters that slog lets pass, DEL and those behind
// ASCII, as \u00XX, which JSON reads back: some terminals obey them. A write is whole
// lines.
type escaped struct{ io.Writer }

func (e escaped) Write(line []byte) (int, error) {
	out := line
	if bytes.IndexByte(line, 0x7f) >= 0 || bytes.IndexByte(line, 0xc2) >= 0 {
		out = nil
		for rest := line; len(rest) > 0; {
			r, n := utf8.DecodeRune(rest)
			if r >= 0x7f && r < 0xa0 {
				out = fmt.Appendf(out, `\u%04x`, r)
			} else {
				out = append(out, rest[:n]...)
			}
			rest = rest[n:]
		}
	}
	if _, err := e.Writer.Write(out); err != nil {
		return 0, err
	}
	return len(line), nil
}

// traceIDs adds trace_id and span_id to the records of a span.
type traceIDs struct{ slog.Handler }

func (h traceIDs) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traceIDs) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceIDs{h.Handler.WithAttrs(attrs)}
}

func (h traceIDs) WithGroup(name string) slog.Handler { return traceIDs{h.Handler.WithGroup(name)} }

// sent passes to the receiver what the level lets through: it has no say of its
// own.
type sent struct {
	slog.Handler
	level slog.Handler // asked, not written to
}

func (h sent) Enabled(ctx context.Context, l slog.Level) bool { return h.level.Enabled(ctx, l) }

func (h sent) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sent{h.Handler.WithAttrs(attrs), h.level}
}

func (h sent) WithGroup(name string) slog.Handler { return sent{h.Handler.WithGroup(name), h.level} }

// newLogger gives what parts log with: repeated lines are held back, the others go
// to the given handler and, when logs are sent, over OTLP.
func (t *Telemetry) newLogger(local slog.Handler) {
	out := local
	if t.logs != nil {
		out = slog.NewMultiHandler(local, sent{otelslog.NewHandler(scope, otelslog.WithLoggerProvider(t.logs)), local})
	}
	t.limit = newLimiter(out, lineBurst, lineEvery)
	t.logger = slog.New(t.limit)
}

// scope names this program's log records and instruments.
const scope = "github.com/millrace/millrace"

// masked keeps secrets out of what libraries say about themselves: OpenTelemetry
// logs a header that it does not understand, and the answer of a receiver.
type masked struct {
	slog.Handler
	secrets *strings.Replacer
}

// headerMask replaces what the environment's headers hold.
func headerMask() *strings.Replacer {
	var pairs []string
	for _, s := range headerSecrets() {
		pairs = append(pairs, s, secret.Mask)
	}
	return strings.NewReplacer(pairs...)
}

func (h masked) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, h.secrets.Replace(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(h.mask(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h masked) mask(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, h.secrets.Replace(v.String()))
	case slog.KindAny:
		return slog.String(a.Key, h.secrets.Replace(fmt.Sprintf("%+v", v.Any())))
	case slog.KindGroup:
		var inner []any
		for _, g := range v.Group() {
			inner = append(inner, h.mask(g))
		}
		return slog.Group(a.Key, inner...)
	default:
		return slog.Attr{Key: a.Key, Value: v} // a number or a time
	}
}

func (h masked) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = h.mask(a)
	}
	return masked{h.Handler.WithAttrs(out), h.secrets}
}

func (h masked) WithGroup(name string) slog.Handler {
	return masked{h.Handler.WithGroup(name), h.secrets}
}
