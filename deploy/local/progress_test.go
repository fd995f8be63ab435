package local

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrinterWritesPlainLines(t *testing.T) {
	var b strings.Builder
	now := time.Unix(0, 0)
	p := &Printer{w: &b, now: func() time.Time { return now }}
	p.Update("clickhouse", "download", 0, 200e6)
	for range 10 { // One line per five seconds.
		now = now.Add(time.Second)
		p.Update("clickhouse", "download", 50e6, 200e6)
	}
	p.Update("azurite", "install", 0, 0)
	p.Update("clickhouse", "unpack", 500e6, 500e6)
	p.Note("waiting")
	p.End("clickhouse", nil)
	p.End("azurite", errors.New("told by the caller"))
	want := `clickhouse: download 0 % (0 MB of 200 MB)
clickhouse: download 25 % (50 MB of 200 MB)
clickhouse: download 25 % (50 MB of 200 MB)
azurite: install 0 % (0 MB of 0 MB)
clickhouse: unpack 100 % (500 MB of 500 MB)
waiting
clickhouse: installed
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPrinterRewritesOneLine(t *testing.T) {
	var b strings.Builder
	p := &Printer{w: &b, terminal: true, now: time.Now, width: func() int { return 60 }}
	p.Update("clickhouse", "download", 50e6, 200e6)
	p.Update("azurite", "install", 1e6, 190e6)
	p.End("clickhouse", nil)
	p.End("azurite", nil)
	for _, line := range strings.Split(b.String(), "\r") {
		if len(strings.TrimRight(line, "\n")) > 60 {
			t.Errorf("a line of %d columns on a terminal of 60: %q", len(line), line)
		}
	}
	if strings.Count(b.String(), "\n") != 2 {
		t.Errorf("%q, want one line per finished part", b.String())
	}
}
