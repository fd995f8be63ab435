package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode"
)

// hostileTexts are names of blobs and rules as an attacker would choose them.
var hostileTexts = []string{
	"a\nlevel=ERROR msg=\"forged\"", "a\r\nforged", "a\rforged", "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07", "\u009b31m", "a\x00b", "a\bb", "\x7f",
	"a=b", `quo"te`, `back\slash`, "\u2028line", "\u2029", "\u202eright to left", "\u2066x", "\ufeff", "\xff\xfe", `","level":"ERROR","msg":"forged`, "tab\tforged=1", "%s%n%x", "", "{}", "日本語",
}

// forged is a value that writes itself.
type forged string

func (f forged) LogValue() slog.Value { return slog.StringValue(string(f)) }

type printed struct{ Name string }

// Whatever stands in a line, it is one line, its fields are those that were logged,
// and a terminal obeys nothing of it.
func TestLinesAreOneLine(t *testing.T) {
	for _, format := range []string{LogText, LogJSON} {
		for _, text := range hostileTexts {
			var out bytes.Buffer
			handler, err := NewHandler(&out, format, slog.LevelDebug)
			if err != nil {
				t.Fatal(err)
			}
			log := slog.New(handler).With(slog.String("rule", text)).WithGroup("unit")
			log.Warn("blob changed", slog.String("blob", text), slog.Any("cause", fmt.Errorf("read %w", errors.New(text))),
				slog.Any("value", forged(text)), slog.Any("bytes", []byte(text)), slog.Any("struct", printed{text}), slog.Any("list", []string{text}))
			log.Warn(text) //nolint:sloglint // no part of ours does that; libraries do
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if len(lines) != 2 {
				t.Errorf("%s, %q: %d lines, want 2: %q", format, text, len(lines), out.String())
			}
			for _, r := range strings.ReplaceAll(out.String(), "\n", "") {
				if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || format == LogText && !unicode.IsPrint(r) {
					t.Errorf("%s, %q: the line holds %q: %q", format, text, r, out.String())
					break
				}
			}
			if format != LogJSON {
				continue
			}
			for i, line := range lines {
				var fields map[string]any
				if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["level"] != "WARN" || i == 0 && fields["msg"] != "blob changed" {
					t.Errorf("%q became %s, %v", text, line, err)
				}
			}
		}
	}
}
