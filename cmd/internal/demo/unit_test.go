package demo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/bench/traffic"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func sampleAt(seconds int, tuples uint64) sample {
	return sample{
		at: noon.Add(time.Duration(seconds) * time.Second), blobs: uint64(seconds) * 20, tuples: tuples, quarantined: 3,
		lag: "75 s", watermark: "11:58:45", mode: "live", rest: "landed 1 of 2",
	}
}

// A terminal's status line is written over, never wraps, and makes room for lines.
func TestTerminal(t *testing.T) {
	var out strings.Builder
	width := 200
	c := &console{out: &out, width: func() int { return width }}
	c.status(sampleAt(1, 100_000))
	c.status(sampleAt(2, 220_000))
	c.status(sampleAt(3, 220_000))
	c.line("port %d is busy", 9464)
	width = 40
	c.status(sampleAt(4, 230_000))
	c.close()
	c.close()
	want := "\r\033[K20 blobs/s, 120,000 tuples/s, lag 75 s, watermark 11:58:45, quarantined 3 | live, landed 1 of 2" +
		"\r\033[K20 blobs/s, 0 tuples/s, lag 75 s, watermark 11:58:45, quarantined 3 | live, landed 1 of 2\n" +
		"port 9464 is busy\n" +
		"\r\033[K20 blobs/s, 10,000 tuples/s, lag 75 s, \n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// Elsewhere a line comes every ten seconds, and its rates are of that time.
func TestPlainLines(t *testing.T) {
	var out strings.Builder
	c := newConsole(&out)
	for second := 1; second <= 25; second++ {
		c.status(sampleAt(second, uint64(second)*1000))
	}
	c.progress("not for files")
	const line = "20 blobs/s, 1,000 tuples/s, lag 75 s, watermark 11:58:45, quarantined 3 | live, landed 1 of 2\n"
	if diff := cmp.Diff(strings.Repeat(line, 3), out.String()); diff != "" {
		t.Error(diff)
	}
}

// The lag is what is between the newest log written, or the clock once live, and
// the watermark.
func TestStatusOf(t *testing.T) {
	e := EstateStatus{Traffic: traffic.Stats{Appends: 7, Tuples: 1234, Position: noon.Add(-30 * time.Minute)}}
	p := pipelineStatus{Watermark: noon.Add(-32 * time.Minute).UnixMilli()}
	got := statusOf(noon, e, p, 1000, 5)
	want := sample{
		at: noon, blobs: 7, tuples: 1000, quarantined: 5,
		lag: "120 s", watermark: "11:28:00", mode: "replaying 11:30", rest: "landed 1,000 of 1,234",
	}
	equal := cmp.AllowUnexported(sample{})
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("replaying (-want +got):\n%s", diff)
	}
	e.Traffic.Live, e.Traffic.Position = true, noon.Add(-40*time.Second)
	p.Watermark = noon.Add(-75 * time.Second).UnixMilli()
	want.lag, want.watermark, want.mode = "75 s", "11:58:45", "live"
	if diff := cmp.Diff(want, statusOf(noon, e, p, 1000, 5), equal); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}
	want.lag, want.watermark = "-", "-"
	if diff := cmp.Diff(want, statusOf(noon, e, pipelineStatus{}, 1000, 5), equal); diff != "" {
		t.Errorf("before the first row (-want +got):\n%s", diff)
	}
}

// A demo cleans up in its own folders only.
func TestForeignFolders(t *testing.T) {
	project := t.TempDir()
	precious := filepath.Join(project, "state", "precious")
	if err := os.MkdirAll(precious, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LockFolder(project); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a folder with other files: %v, want a refusal", err)
	}
	if left, err := os.ReadDir(project); err != nil || len(left) != 1 {
		t.Errorf("%d entries are left, %v", len(left), err)
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "new", "folder")} {
		unlock, err := LockFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LockFolder(dir); !errors.Is(err, ErrBusy) {
			t.Errorf("a second lock: %v, want ErrBusy", err)
		}
		if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
			t.Fatal(err)
		}
		unlock()
		again, err := LockFolder(dir)
		if err != nil {
			t.Fatalf("a demo's own folder: %v", err)
		}
		again()
	}
}

// prepare removes what the last demo left, and keeps tables when it is asked to.
func TestPrepare(t *testing.T) {
	var said strings.Builder
	demoIn := func(dir string, keep bool, url string, seed uint64) *demo {
		cfg := Config{Dir: dir, Keep: keep, ClickHouse: Server{URL: url}}
		cfg.Traffic.Seed = seed
		return &demo{cfg: cfg, say: newConsole(&said), began: noon}
	}
	dir := t.TempDir()
	unlock, err := LockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	fill := func() {
		t.Helper()
		for _, name := range []string{"clickhouse", "state", "logs"} {
			if err := os.MkdirAll(filepath.Join(dir, name, "old"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := func() (names string) {
		found, err := filepath.Glob(filepath.Join(dir, "*", "old"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			names += filepath.Base(filepath.Dir(f)) + " "
		}
		return names
	}
	for _, c := range []struct {
		name     string
		keep     bool
		url      string
		seed     uint64
		database string
		left     string
		kept     bool
	}{
		{"nothing to keep", true, "", 1, "millrace", "", false},
		{"keep", true, "", 2, "millrace", "clickhouse ", true},
		{"clean", false, "", 1, "millrace", "", false},
		{"another server", true, "http://there:8123", 3, "millrace_demo_20261123_120000_", "", false},
		{"the same server", true, "http://there:8123", 4, "millrace_demo_20261123_120000_", "clickhouse ", true},
		{"the server again, clean", false, "http://there:8123", 5, "millrace_demo_20261123_120000_", "", false},
	} {
		fill()
		d := demoIn(dir, c.keep, c.url, c.seed)
		if err := d.prepare(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !strings.HasPrefix(d.tables.database, c.database) || old() != c.left || d.cfg.Keep != c.kept {
			t.Errorf("%s: database %q, left %q, kept %v; want %+v", c.name, d.tables.database, old(), d.cfg.Keep, c)
		}
	}
	if err := demoIn(dir, true, "http://there:8123", 5).prepare(); err == nil || !strings.Contains(err.Error(), "--seed") {
		t.Errorf("the same seed again: %v, want a refusal", err)
	}
	if !strings.Contains(said.String(), "there are no tables of an earlier demo here") {
		t.Errorf("said %q", said.String())
	}
}
