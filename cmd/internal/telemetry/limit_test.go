package telemetry

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lines logs with a limiter and gives the messages that passed.
func lines(t *testing.T, burst int, f func(*slog.Logger, *limiter)) []string {
	t.Helper()
	var out bytes.Buffer
	var got []string
	synctest.Test(t, func(*testing.T) {
		handler := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}})
		l := newLimiter(handler, burst, time.Minute)
		f(slog.New(l), l)
		synctest.Wait()
		got = strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		l.close()
	})
	return got
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("lines\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRepeatedLinesAreHeldBack(t *testing.T) {
	got := lines(t, 2, func(log *slog.Logger, _ *limiter) {
		for i := range 5 {
			log.Warn("landing", slog.Int("attempt", i))
		}
		time.Sleep(time.Minute + time.Second)
		log.Warn("landing", slog.Int("attempt", 9))
	})
	want(t, got, "msg=landing attempt=0", "msg=landing attempt=1",
		`msg="repeated lines suppressed" line=landing suppressed=3 within=1m0s`, "msg=landing attempt=9")
}

// Slow repetition is none.
func TestSlowLinesPass(t *testing.T) {
	got := lines(t, 1, func(log *slog.Logger, _ *limiter) {
		for range 3 {
			log.Info("live")
			time.Sleep(time.Minute)
		}
	})
	want(t, got, "msg=live", "msg=live", "msg=live")
}

func TestKindsOfLinesAreToldApart(t *testing.T) {
	got := lines(t, 1, func(log *slog.Logger, _ *limiter) {
		for _, shard := range []int{1, 2} {
			log := log.With(slog.Int("shard", shard))
			for _, table := range []string{"flows", "windows"} {
				for _, blob := range []string{"a", "b"} {
					log.Warn("landing", slog.String("table", table), slog.String("blob", blob))
				}
			}
		}
		log.Debug("detail")
		log.Debug("detail") // who asks for these wants all
	})
	want(t, got, "msg=landing shard=1 table=flows blob=a", "msg=landing shard=1 table=windows blob=a",
		"msg=landing shard=2 table=flows blob=a", "msg=landing shard=2 table=windows blob=a", "msg=detail", "msg=detail")
}

// The end tells what is held back, with the attributes of the logger.
func TestCloseTellsWhatIsHeld(t *testing.T) {
	got := lines(t, 1, func(log *slog.Logger, l *limiter) {
		for range 3 {
			log.With(slog.String("hub", "h")).Info("gap")
		}
		l.close()
		log.Info("the end")
		log.Info("the end")
	})
	want(t, got, "msg=gap hub=h", `msg="repeated lines suppressed" hub=h line=gap suppressed=2 within=1m0s`, `msg="the end"`, `msg="the end"`)
}

// Endless kinds of lines neither eat the memory nor pass uncounted.
func TestKindsAreBounded(t *testing.T) {
	passed := lines(t, 1, func(log *slog.Logger, l *limiter) {
		for i := range 3 * maxKinds {
			log.Info("line", slog.Int("shard", i))
		}
		if n := len(l.seen); n > maxKinds {
			t.Errorf("%d kinds are held, at most %d", n, maxKinds)
		}
	})
	if len(passed) != maxKinds {
		t.Errorf("%d lines passed, want %d", len(passed), maxKinds)
	}
}
