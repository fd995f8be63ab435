package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
)

var (
	stopped = flag.Duration("stopped", 10*time.Second, "TestSlowSink: how long ClickHouse is away")
	catchUp = flag.Float64("catch-up", 1, "TestSlowSink: how many times faster than they arrive rows land afterwards")
)

const (
	mib = 1 << 20
	// Limits of a pipeline whose target is away, and of one that may have little.
	maxGrowth = 64 * mib
	maxMemory = 512 * mib
)

type slowFigures struct {
	Minutes  float64 `json:"minutes"`
	RSS      int64   `json:"rss_mib"` // before
	Growth   int64   `json:"rss_growth_mib"`
	Peak     int64   `json:"rss_peak_mib"`      // of the whole run
	Arrival  float64 `json:"arrival_per_s"`     // rows
	CatchUp  float64 `json:"catch_up_ratio"`    // rows landed to rows arrived, until nothing waits
	CaughtUp float64 `json:"catch_up_s"`        // how long that took
	Limited  bool    `json:"limited_by_cgroup"` // the kernel held it to 512 MiB
	Lost     uint64  `json:"lost"`
	Dup      uint64  `json:"dup"`
	Rows     uint64  `json:"rows"`
}

// ClickHouse is frozen, then cut off, while rows go on arriving: the pipeline waits
// without taking more memory, and lands what has gathered faster than more arrives.
// All of that in 512 MiB.
func TestSlowSink(t *testing.T) {
	ch := localtest.StartClickHouseIn(t, t.TempDir())
	var path *networkPath
	w := jobtest.New(t, jobtest.Options{URL: ch.HTTPURL, Via: func(s jobtest.Service, addr string) string {
		if s != jobtest.ClickHouse {
			return addr
		}
		path = newPath(t, s, addr)
		return path.proxy.Listen
	}})
	w.Env = append(w.Env, "GOMEMLIMIT=400MiB")
	began := time.Now()
	stopEstate := w.EstateInto(2000, w.Notify, lively(1))
	p := w.StartProgram("--end-of-input-on-stop")
	f := slowFigures{Minutes: stopped.Minutes(), Limited: limitMemory(t, p.Cmd.Process.Pid)}
	w.More(8_000) // its buffers have their size
	usual, _ := p.Ask()
	before := memoryOf(t, p, "VmRSS")
	s := &slowSink{t: t, w: w, p: p}
	// Frozen, it takes what the kernel keeps for it, and answers nothing; then nobody is there.
	if err := syscall.Kill(ch.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	most := s.watch(*stopped / 2)
	path.begin(t, down, rand.New(rand.NewPCG(1, 1)))
	if err := syscall.Kill(ch.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	most = max(most, s.watch(*stopped/2))
	path.end(t, down)
	rows, took := s.catchUp(usual.Behind)
	truth := stopEstate()
	lasted := time.Since(began)
	f.Peak = memoryOf(t, p, "VmHWM") / mib
	p.Stop(syscall.SIGTERM)
	if code := p.Cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, tail(p.Said(), 40))
	}
	f.report(t, w, truth, before, most)
	f.Arrival, f.CaughtUp = float64(truth.Totals.Tuples)/lasted.Seconds(), took.Seconds()
	f.CatchUp = float64(rows) / took.Seconds() / f.Arrival
	jobtest.Figures(t, f)
	if f.CatchUp < *catchUp {
		t.Errorf("rows landed %.1f times as fast as they arrived, want %.1f", f.CatchUp, *catchUp)
	}
}

func (f *slowFigures) report(t *testing.T, w *jobtest.World, truth traffic.Truth, before, most int64) {
	t.Helper()
	f.RSS, f.Growth = before/mib, max(0, most-before)/mib
	v := w.Reconcile(truth)
	f.Lost, f.Dup, f.Rows = v.Lost, v.Duplicated, v.RowsLanded
	if !v.Exact() {
		t.Errorf("%+v", v)
	}
	if most-before > maxGrowth {
		t.Errorf("it grew from %d to %d MiB while its target was away, want %d MiB more at most", before/mib, most/mib, maxGrowth/mib)
	}
	if f.Peak > maxMemory/mib {
		t.Errorf("it took %d MiB, want %d", f.Peak, maxMemory/mib)
	}
}

// slowSink watches a pipeline whose target is away.
type slowSink struct {
	t *testing.T
	w *jobtest.World
	p *jobtest.Program
}

// watch gives the most memory that the pipeline takes for a while; it must live.
func (s *slowSink) watch(lasts time.Duration) (most int64) {
	s.t.Helper()
	for end := time.After(lasts); ; {
		select {
		case <-end:
			return most
		case <-s.p.Done:
			s.t.Fatalf("the pipeline ended: %s", tail(s.p.Said(), 40))
		case <-time.After(100 * time.Millisecond):
			most = max(most, memoryOf(s.t, s.p, "VmRSS"))
		}
	}
}

// catchUp waits until no more than usual waits, and gives how much landed.
func (s *slowSink) catchUp(usual int64) (rows int64, took time.Duration) {
	s.t.Helper()
	began := time.Now()
	first, _ := s.p.Ask()
	for {
		now, ok := s.p.Ask()
		took = time.Since(began)
		if ok && now.Landed > first.Landed && now.Behind <= usual+first.Behind/20 {
			return now.Landed - first.Landed, took
		}
		if took > *stopped+jobtest.Patience {
			s.t.Fatalf("%d of %d messages still wait after %v, %d usually: %s", now.Behind, first.Behind, took, usual, tail(s.p.Said(), 40))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// memoryOf reads a line of what the kernel says of the program, in bytes.
func memoryOf(t *testing.T, p *jobtest.Program, line string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + line + `:\s+(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in %s", line, text)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// limitMemory holds a process to the limit by a control group of its own, of the
// second or the first kind; false where we may make none.
func limitMemory(t *testing.T, pid int) bool {
	t.Helper()
	root, limit := "/sys/fs/cgroup", "memory.max"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		root, limit = filepath.Join(root, "memory"), "memory.limit_in_bytes"
	}
	group := filepath.Join(root, fmt.Sprintf("millrace-test-%d", pid))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Logf("no control group: %v", err)
		return false
	}
	t.Cleanup(func() { _ = os.Remove(group) }) // the process is gone
	for _, x := range [][2]string{{limit, strconv.Itoa(maxMemory)}, {"cgroup.procs", strconv.Itoa(pid)}} {
		if err := os.WriteFile(filepath.Join(group, x[0]), []byte(x[1]), 0o600); err != nil {
			t.Logf("no control group: %v", err)
			return false
		}
	}
	return true
}
