package faults

import (
	"flag"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
)

var (
	kills   = flag.Int("kills", 6, "how often something is killed")
	restart = flag.Duration("restart", 15*time.Second, "how long 99 of 100 restarts may take until a batch has landed")
	seed    = flag.Uint64("seed", 0, "what decides the faults; 0 draws one")
)

// drawSeed gives the seed of this run.
func drawSeed(t *testing.T) uint64 {
	t.Helper()
	s := *seed
	if s == 0 {
		s = uint64(rand.Uint32())
	}
	t.Logf("seed %d", s)
	return s
}

// steady is an estate that has something new to read at every moment of a long run:
// three hours of many small appends. Every append is told of, as the sweeper looks for
// what nobody tells of in the last two hours.
func steady(seed uint64, nics int) func(*traffic.Config) {
	return func(c *traffic.Config) {
		c.Seed, c.NICs, c.TuplesPerMinute = seed, nics, 200
		c.Start, c.Malformed, c.Late, c.Dropped = time.Now().Add(-3*time.Hour), 0.001, 0.01, 0
	}
}

// What is killed.
const (
	thePipeline   = "pipeline"
	theClickHouse = "clickhouse"
	both          = "both"
)

// killer kills a job, and starts it again.
type killer struct {
	*jobtest.World
	rng     *rand.Rand
	cluster *localtest.Cluster
	p       *jobtest.Program

	figures  killFigures
	restarts []time.Duration
}

type killFigures struct {
	Kills    int            `json:"kills"`
	ByTarget map[string]int `json:"by_target"`
	// InRecovery counts those of them that came before the life had landed anything.
	InRecovery int `json:"in_recovery"`
	// Aborts counts servers that ended by themselves, as this version does when a client
	// hangs up in the middle of a request's header.
	Aborts     int     `json:"aborts"`
	Lost       uint64  `json:"lost"`
	Dup        uint64  `json:"dup"`
	Altered    uint64  `json:"altered"`
	RestartP50 float64 `json:"restart_p50_s"`
	RestartP99 float64 `json:"restart_p99_s"`
	Rows       uint64  `json:"rows"`
	Seconds    float64 `json:"seconds"`
	Seed       uint64  `json:"seed"`
}

// A pipeline under load, its ClickHouse, or both are killed at random moments, also
// while they recover, and started again. In the end everything is there once.
func TestRandomKills(t *testing.T) {
	began := time.Now()
	s := drawSeed(t)
	cluster := localtest.StartCluster(t, 1)
	k := &killer{
		World: jobtest.New(t, jobtest.Options{URL: cluster.Servers[0].HTTPURL, Extra: jobtest.SweeperSoon}),
		rng:   rand.New(rand.NewPCG(s, 1)), cluster: cluster,
		figures: killFigures{ByTarget: map[string]int{}, Seed: s},
	}
	stopEstate := k.EstateInto(2000, k.Notify, steady(s, 48))
	k.p = k.StartProgram("--end-of-input-on-stop")
	k.More(0)
	for k.figures.Kills < *kills {
		time.Sleep(k.moment(1500 * time.Millisecond)) // the moment is drawn, not waited for
		k.round()
	}
	truth := stopEstate()
	k.Settle(truth)
	if _, took := k.p.Stop(syscall.SIGTERM); k.p.Cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("end of input: exit code %d after %v", k.p.Cmd.ProcessState.ExitCode(), took)
	}
	k.report(truth, time.Since(began))
}

// moment is within the span.
func (k *killer) moment(span time.Duration) time.Duration {
	return time.Duration(k.rng.Int64N(int64(span)))
}

// round kills once, now and then again before anything has landed, and measures how
// long it takes then.
func (k *killer) round() {
	k.T.Helper()
	again := k.kill()
	for k.figures.Kills < *kills && k.rng.IntN(5) == 0 {
		time.Sleep(k.moment(time.Second)) // as above
		k.figures.InRecovery++
		again = k.kill()
	}
	k.restarts = append(k.restarts, k.landed(again))
}

// life is how things stood when parts were started again.
type life struct {
	began  time.Time
	target string
	landed int64 // by the pipeline, before
}

// kill ends what is drawn and starts it again.
func (k *killer) kill() life {
	k.T.Helper()
	target := []string{thePipeline, thePipeline, theClickHouse, both}[k.rng.IntN(4)]
	k.figures.Kills++
	k.figures.ByTarget[target]++
	if target != thePipeline {
		k.cluster.Servers[0].SendKill()
	}
	if target != theClickHouse {
		k.p.Kill()
	}
	if target != thePipeline {
		<-k.cluster.Servers[0].Done()
	}
	again := life{target: target, began: time.Now()}
	if target == theClickHouse {
		if k.p.Serves() {
			s, _ := k.p.Ask()
			again.landed = s.Landed
		}
	} else {
		k.p = k.Launch("--end-of-input-on-stop")
	}
	if target != thePipeline {
		k.cluster.Start(k.T, 0)
	}
	return again
}

// landed waits until the pipeline says that it has landed rows, and until rows can be
// seen that were not there when the parts had just been started. What an INSERT of
// the life before leaves is not taken for one of this life.
func (k *killer) landed(l life) time.Duration {
	k.T.Helper()
	before, known := uint64(0), false
	k.WaitUntil("batch after a restart", func() bool {
		k.mend()
		rows, ok := k.rows()
		if !known {
			before, known = rows, ok
			return false
		}
		if !ok || rows <= before || !k.p.Serves() {
			return false
		}
		s, ok := k.p.Ask()
		return ok && s.Landed > l.landed
	})
	took := time.Since(l.began)
	k.T.Logf("kill %d: %s, landed after %.2f s", k.figures.Kills, l.target, took.Seconds())
	if took > *restart/2 {
		k.T.Logf("that is long; since %s the pipeline has said:\n%s", l.began.Format(time.RFC3339Nano), k.p.Said())
	}
	return took
}

// mend starts a server again that aborted, and sees that the pipeline lives.
func (k *killer) mend() {
	k.T.Helper()
	select {
	case <-k.cluster.Servers[0].Done():
		k.figures.Aborts++
		k.T.Logf("%v", k.cluster.Servers[0].ExitError())
		k.cluster.Start(k.T, 0)
	case <-k.p.Done:
		k.T.Fatalf("the pipeline ended by itself: %s", k.p.Said())
	default:
	}
}

// rows is false while nobody can say.
func (k *killer) rows() (n uint64, ok bool) {
	n, err := k.Count("SELECT count() FROM millrace.flows")
	return n, err == nil
}

func (k *killer) report(truth traffic.Truth, took time.Duration) {
	k.T.Helper()
	v := k.Reconcile(truth)
	f := &k.figures
	f.Lost, f.Dup, f.Altered, f.Rows, f.Seconds = v.Lost, v.Duplicated, v.Spoiled(), v.RowsLanded, took.Seconds()
	f.RestartP50, f.RestartP99 = percentile(k.restarts, 50).Seconds(), percentile(k.restarts, 99).Seconds()
	jobtest.Figures(k.T, f)
	if !v.Exact() {
		k.T.Errorf("after %d kills: %+v", f.Kills, v)
	}
	if p99 := percentile(k.restarts, 99); p99 > *restart {
		k.T.Errorf("99 of 100 restarts took up to %v, want %v", p99, *restart)
	}
}

// percentile is the nearest rank.
func percentile(took []time.Duration, p int) time.Duration {
	if len(took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(took))
	return sorted[(len(sorted)*p+99)/100-1]
}
