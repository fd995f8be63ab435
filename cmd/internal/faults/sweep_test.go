package faults

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

var sweepAll = flag.Bool("sweep", false, "TestSweep: every point, not a sample")

// sweepTries is how often a point is tried that was passed by: a thread other than
// the one whose calls are counted came first.
const sweepTries = 20

// sweepFigures is what a sweep comes to.
type sweepFigures struct {
	PointsPipeline   int `json:"points_pipeline"`   // system calls of the pipeline on its ledger
	PointsSocket     int `json:"points_socket"`     // places in its requests to ClickHouse
	PointsClickHouse int `json:"points_clickhouse"` // system calls of ClickHouse on parts
	InjectedErrors   int `json:"injected_errors"`
	Missed           int `json:"missed"` // points that no run came by
	balance
	Unstartable int     `json:"unstartable"`
	Unclear     int     `json:"unclear"` // ends without a clear error
	Seconds     float64 `json:"seconds"`
}

// sweep is one commit of three days with its base, and all points in it.
type sweep struct {
	from   small
	tuples uint64

	mu      sync.Mutex
	figures sweepFigures
}

// sweepCase dies, or fails, at one place.
type sweepCase struct {
	name string
	of   *int // the figure that counts it
	// try breaks the job once and says whether it came to it; what is left is a folder
	// and a pipeline that may start again.
	try func(t *testing.T, s small) (w smallWorld, hit bool)
}

// The pipeline and ClickHouse are killed before each system call with which they
// change a disk, and the pipeline in and around each of its requests, during the commit
// of a batch of three partitions and the base behind it; each call of the pipeline on
// its ledger also fails once. After a start that nobody disturbs the tables are exact.
func TestSweep(t *testing.T) {
	requireTracer(t)
	began := time.Now()
	s := &sweep{}
	s.from, s.tuples = template(t, false)
	cases := s.cases(t)
	t.Run("points", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s.run(t, c)
			})
		}
	})
	s.figures.Seconds = time.Since(began).Round(time.Second / 10).Seconds()
	f := s.figures
	if f.Lost+f.Dup != 0 || f.Unstartable+f.Unclear+f.Missed != 0 {
		t.Errorf("want nothing lost, doubled, unstartable, unclear or missed")
	}
	jobtest.Figures(t, f)
}

// run breaks a copy of the job at one place, starts it again, and reconciles.
func (s *sweep) run(t *testing.T, c sweepCase) {
	for range sweepTries {
		at := s.from.copyTo(t, filepath.Join(t.TempDir(), "job"))
		w, hit := c.try(t, at)
		err := w.finish(t)
		var b balance
		if err != nil {
			t.Error(err)
		} else {
			b = w.reconcile(t, s.tuples)
		}
		s.mu.Lock()
		s.figures.add(b)
		if err != nil {
			s.figures.Unstartable++
		}
		if hit {
			*c.of++
		}
		s.mu.Unlock()
		if hit || t.Failed() {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.Missed++
}

// cases lists the places by one run that is only watched.
func (s *sweep) cases(t *testing.T) []sweepCase {
	t.Helper()
	job := s.from.copyTo(t, filepath.Join(t.TempDir(), "watched"))
	pipelineTrace, clickhouseTrace := filepath.Join(t.TempDir(), "trace"), filepath.Join(t.TempDir(), "trace")
	ch := job.start(t, listing(t, clickhouseProgram(t), clickhouseTrace), 0)
	r := startRelay(t, ch.HTTPURL, 0, "", nil)
	w := job.world(t, r.url)
	w.Bin = listing(t, pipelinetest.RequirePart(t, jobtest.EnvProgram), pipelineTrace)
	p := w.Launch()
	if !ended(p) || p.Cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("the watched run: %s", p.Said())
	}
	if b := job.world(t, ch.HTTPURL).reconcile(t, s.tuples); b != (balance{}) {
		t.Fatalf("the watched run: %+v", b)
	}
	ch.Kill()
	ledger := readPoints(t, pipelineTrace, job.root, "state", p.Cmd.Process.Pid)
	parts := slices.DeleteFunc(readPoints(t, clickhouseTrace, job.root, "clickhouse", ch.Pid()), func(p point) bool {
		return !strings.Contains(p.path, "_#_") // what a start does anew under names by chance: views, settings
	})
	t.Logf("%d calls of the pipeline, %d of ClickHouse, %d requests", len(ledger), len(parts), r.asked.Load())
	return slices.Concat(
		some(s.ledgerKills(ledger), 3), some(s.ledgerErrors(ledger), 3),
		some(s.socketKills(r.asked.Load()), 3), some(s.clickhouseKills(parts), 3))
}

// some gives all, or a sample spread evenly.
func some(all []sweepCase, n int) []sweepCase {
	if *sweepAll || len(all) <= n {
		return all
	}
	out := make([]sweepCase, n)
	for i := range out {
		out[i] = all[(2*i+1)*len(all)/(2*n)]
	}
	return out
}

func (s *sweep) ledgerKills(points []point) []sweepCase {
	var cases []sweepCase
	for _, at := range points {
		cases = append(cases, sweepCase{fmt.Sprintf("pipeline killed before %v", at), &s.figures.PointsPipeline, func(t *testing.T, job small) (smallWorld, bool) {
			w, p, _ := job.pipelineWith(t, at, "signal=SIGKILL")
			return w, p.Cmd.ProcessState.ExitCode() == -1
		}})
	}
	return cases
}

// ledgerErrors make calls fail. A full disk is no error of a fsync's own, or of
// removing something; a broken one is.
func (s *sweep) ledgerErrors(points []point) []sweepCase {
	texts := map[string]string{"ENOSPC": "no space left on device", "EIO": "input/output error"}
	var cases []sweepCase
	for _, at := range points {
		for errno, text := range texts {
			if errno == "ENOSPC" && strings.HasPrefix(at.call, "unlink") {
				continue
			}
			cases = append(cases, sweepCase{fmt.Sprintf("%s at %v", errno, at), &s.figures.InjectedErrors, func(t *testing.T, job small) (smallWorld, bool) {
				w, p, trace := job.pipelineWith(t, at, "error="+errno)
				if code := p.Cmd.ProcessState.ExitCode(); code != 0 && (code != 1 || !strings.Contains(p.Said(), text)) {
					t.Errorf("exit code %d without a clear error: %s", code, p.Said())
					s.mu.Lock()
					s.figures.Unclear++
					s.mu.Unlock()
				}
				return w, strings.Contains(trace, "INJECTED")
			}})
		}
	}
	slices.SortFunc(cases, func(a, b sweepCase) int { return strings.Compare(a.name, b.name) })
	return cases
}

// pipelineWith runs the pipeline with something injected, to its end.
func (s small) pipelineWith(t *testing.T, at point, what string) (w smallWorld, p *jobtest.Program, trace string) {
	t.Helper()
	ch := s.start(t, clickhouseProgram(t), 0)
	w = s.world(t, ch.HTTPURL)
	file := filepath.Join(t.TempDir(), "trace")
	w.Bin = injected(t, pipelinetest.RequirePart(t, jobtest.EnvProgram), s.root, file, at, what)
	if p = w.Launch(); !ended(p) {
		t.Fatalf("it does not end: %s", p.Said())
	}
	w.Bin = ""
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return w, p, string(text)
}

// socketKills kill the pipeline before a request of its reaches ClickHouse, in the
// middle of it, and before the answer reaches it.
func (s *sweep) socketKills(requests int64) []sweepCase {
	var cases []sweepCase
	for n := range requests {
		for _, at := range []stage{unsent, halfSent, unanswered} {
			cases = append(cases, sweepCase{fmt.Sprintf("pipeline killed before request %d %s", n+1, at), &s.figures.PointsSocket, func(t *testing.T, job small) (smallWorld, bool) {
				ch := job.start(t, clickhouseProgram(t), 0)
				started := make(chan *jobtest.Program, 1)
				r := startRelay(t, ch.HTTPURL, n+1, at, func() {
					p := <-started
					_ = p.Cmd.Process.Kill() // it may have ended
					<-p.Done
				})
				p := job.world(t, r.url).Launch()
				started <- p
				if !ended(p) {
					t.Fatalf("it does not end: %s", p.Said())
				}
				return job.world(t, ch.HTTPURL), p.Cmd.ProcessState.ExitCode() == -1
			}})
		}
	}
	return cases
}

// clickhouseKills kill ClickHouse while the pipeline lives, which goes on by itself.
func (s *sweep) clickhouseKills(points []point) []sweepCase {
	var cases []sweepCase
	for _, at := range points {
		cases = append(cases, sweepCase{fmt.Sprintf("clickhouse killed before %v", at), &s.figures.PointsClickHouse, func(t *testing.T, job small) (w smallWorld, hit bool) {
			ch := job.start(t, injected(t, clickhouseProgram(t), job.root, "/dev/null", at, "signal=SIGKILL"), 0)
			w = job.world(t, ch.HTTPURL)
			p := w.Launch()
			select {
			case <-ch.Done():
				hit = true
			case <-p.Done:
				ch.Kill()
			case <-time.After(jobtest.Patience):
				t.Fatalf("neither ends: %s", p.Said())
			}
			job.start(t, clickhouseProgram(t), ch.HTTPPort)
			if !ended(p) || p.Cmd.ProcessState.ExitCode() != 0 {
				t.Errorf("the pipeline did not go on when ClickHouse was back: %s", p.Said())
			}
			return w, hit
		}})
	}
	return cases
}
