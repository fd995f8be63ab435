package faults

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/cmd/internal/jobtest"
)

var (
	steals = flag.Int("steals", 4, "how often a frozen owner loses its ledger, and wakes up late")
	lanes  = flag.Int("lanes", 4, "how many ledgers, each with its instances, side by side")
)

type ownerFigures struct {
	Steals     int `json:"steals"`      // ledgers taken from owners that were frozen or killed
	LateOwners int `json:"late_owners"` // owners that woke up after that
	Fenced     int `json:"fenced"`      // INSERTs of theirs that came late and were refused by the fence
	Caught     int `json:"caught"`      // owners frozen or killed with an INSERT on its way
	Short      int `json:"short"`       // freezes that cost nobody the ledger
	Killed     int `json:"killed"`
	Stopped    int `json:"stopped"` // softly: the next owner need not wait
	Links      int `json:"links"`   // times that another reader took the hub's partitions away
	// What the tables say at the end, of the lanes that came so far.
	Reconciled int    `json:"reconciled"`
	Lost       uint64 `json:"lost"`
	Dup        uint64 `json:"dup"`
	Altered    uint64 `json:"altered"`
	Rows       uint64 `json:"rows"`
	// From the freeze or the kill until the successor's first row can be seen.
	TakeoverP50 float64 `json:"takeover_p50_s"`
	TakeoverP99 float64 `json:"takeover_p99_s"`
	Lanes       int     `json:"lanes"`
	Seconds     float64 `json:"seconds"`
	Seed        uint64  `json:"seed"`
}

// tally is what all lanes report to.
type tally struct {
	mu        sync.Mutex
	figures   ownerFigures
	takeovers []time.Duration
	left      int // late owners that are still wanted
}

// claim is false when enough owners have been late.
func (c *tally) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left--
	return c.left >= 0
}

func (c *tally) count(f func(*ownerFigures)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.figures)
}

func (c *tally) tookOver(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takeovers = append(c.takeovers, d)
}

// Instances over shared ledgers, under load: owners are frozen until another one has
// taken over, and wake up while it lands, some with an INSERT that was on its way all
// the time; others are frozen for a moment, killed, stopped. In the end everything is
// there once.
func TestLateOwners(t *testing.T) {
	began := time.Now()
	s := drawSeed(t)
	c := &tally{left: *steals, figures: ownerFigures{Lanes: *lanes, Seed: s}}
	var all []*lane
	for i := range *lanes {
		all = append(all, newLane(t, c, s, i))
	}
	t.Run("lanes", func(t *testing.T) {
		for i, l := range all {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				l.World = l.In(t)
				l.run()
			})
		}
	})
	f := &c.figures
	for _, l := range all {
		f.Fenced += int(l.gate.refused.Load())
	}
	f.Seconds = time.Since(began).Seconds()
	f.TakeoverP50, f.TakeoverP99 = percentile(c.takeovers, 50).Seconds(), percentile(c.takeovers, 99).Seconds()
	jobtest.Figures(t, f)
	if f.Reconciled < *lanes {
		t.Errorf("the tables of %d of %d lanes were compared: what is said of lost and doubled rows is of them alone", f.Reconciled, *lanes)
	}
	if f.LateOwners < *steals || f.Steals < *steals {
		t.Errorf("%d owners came late and %d were followed, want %d", f.LateOwners, f.Steals, *steals)
	}
}

// lane is one ledger with the instances over it.
type lane struct {
	*jobtest.World
	tally *tally
	rng   *rand.Rand
	gate  *gate
	seed  uint64

	owner, standby *jobtest.Program
}

func newLane(t *testing.T, c *tally, s uint64, i int) *lane {
	t.Helper()
	l := &lane{tally: c, rng: rand.New(rand.NewPCG(s, uint64(i))), gate: newGate(t), seed: s + uint64(i)}
	t.Cleanup(l.gate.close)
	l.World = jobtest.New(t, jobtest.Options{Extra: jobtest.SweeperSoon, Via: func(s jobtest.Service, addr string) string {
		if s == jobtest.ClickHouse {
			return l.gate.via(addr)
		}
		return addr
	}})
	l.SharedLedger()
	return l
}

func (l *lane) run() {
	t := l.T
	stopEstate := l.EstateInto(500, l.Notify, steady(l.seed, 16))
	l.owner = l.Instance()
	l.owner.Until("owner", jobtest.Owns)
	l.standby = l.Instance()
	l.standby.Until("standby", jobtest.StandsBy)
	for l.tally.claim() {
		l.late()
		l.other()
	}
	last := l.Instance("--end-of-input-on-stop")
	last.Until("standby", jobtest.StandsBy)
	l.standby.Stop(syscall.SIGTERM)
	l.owner.Stop(syscall.SIGTERM)
	last.Until("owner", jobtest.Owns)
	truth := stopEstate()
	l.Settle(truth)
	if _, took := last.Stop(syscall.SIGTERM); last.Cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("end of input: exit code %d after %v", last.Cmd.ProcessState.ExitCode(), took)
	}
	v := l.Reconcile(truth)
	if !v.Exact() {
		t.Errorf("%+v", v)
	}
	l.tally.count(func(f *ownerFigures) {
		f.Reconciled++
		f.Lost += v.Lost
		f.Dup += v.Duplicated
		f.Altered += v.Spoiled()
		f.Rows += v.RowsLanded
	})
}

// moment is within the span.
func (l *lane) moment(span time.Duration) time.Duration {
	return time.Duration(l.rng.Int64N(int64(span)))
}

// busy catches the owner while an INSERT of it is on its way, every second time; nil
// at any other moment.
func (l *lane) busy() *trap {
	l.T.Helper()
	time.Sleep(l.moment(time.Second)) // the moment is drawn, not waited for
	if l.rng.IntN(2) == 0 {
		return nil
	}
	tr := l.gate.catch(where(l.rng.IntN(3)))
	select {
	case <-tr.caught:
	case <-time.After(jobtest.Patience):
		l.T.Errorf("the owner lands nothing: %s", l.owner.Said())
	}
	l.tally.count(func(f *ownerFigures) { f.Caught++ })
	return tr
}

// late freezes the owner until another one has taken over, and wakes it while that
// one recovers or lands. What it had on its way goes on before that, or after.
func (l *lane) late() {
	t := l.T
	t.Helper()
	tr := l.busy()
	l.owner.Signal(syscall.SIGSTOP)
	frozen := time.Now()
	before := l.Number("SELECT count() FROM millrace.flows")
	l.standby.Until("owner", func(s jobtest.Status) bool { return s.Role == "owner" })
	late := l.owner.Cmd
	wake := func() error {
		time.Sleep(l.moment(1500 * time.Millisecond)) // as above
		if tr != nil && l.rng.IntN(3) > 0 {
			tr.release()
			select {
			case <-tr.told:
			case <-time.After(5 * time.Second):
			}
		}
		err := late.Process.Signal(syscall.SIGCONT)
		if tr != nil {
			tr.release()
		}
		return err
	}
	woken := make(chan error, 1)
	go func() { woken <- wake() }()
	l.follow(frozen, before)
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	l.tally.count(func(f *ownerFigures) { f.LateOwners++ })
	l.owner, l.standby = l.standby, l.owner
	l.standby.Until("standby", jobtest.StandsBy)
	l.owner.Until("owner", jobtest.Owns)
}

// follow waits until the standby has landed something, and takes the time since.
func (l *lane) follow(since time.Time, before uint64) {
	l.T.Helper()
	l.standby.Until("landing", func(s jobtest.Status) bool { return jobtest.Owns(s) && s.Landed > 0 })
	l.WaitUntil("rows of the successor", func() bool { return l.Number("SELECT count() FROM millrace.flows") > before })
	took := time.Since(since)
	l.tally.tookOver(took)
	l.tally.count(func(f *ownerFigures) { f.Steals++ })
	l.T.Logf("followed after %.2f s", took.Seconds())
}

// other is what else happens to owners, now and then.
func (l *lane) other() {
	l.T.Helper()
	switch l.rng.IntN(12) {
	case 0, 1:
		l.short()
	case 2:
		l.killed()
	case 3:
		l.stopped()
	case 4:
		l.evicted()
	}
}

// short freezes the owner for less than the expiry.
func (l *lane) short() {
	l.T.Helper()
	tr := l.busy()
	before, _ := l.owner.Ask()
	l.owner.Signal(syscall.SIGSTOP)
	time.Sleep(l.moment(2500 * time.Millisecond)) // as above
	if tr != nil {
		tr.release()
	}
	l.owner.Signal(syscall.SIGCONT)
	s := l.owner.Until("landing again", func(s jobtest.Status) bool { return jobtest.Owns(s) && s.Landed > before.Landed })
	// On a machine that is busy beyond measure an owner may give up by itself, and comes
	// back with another epoch.
	if s.Owner != before.Owner {
		l.T.Errorf("the ledger changed hands: %+v, then %+v", before, s)
	}
	l.tally.count(func(f *ownerFigures) { f.Short++ })
}

// killed ends the owner; what it had on its way arrives when another one works.
func (l *lane) killed() {
	l.T.Helper()
	tr := l.busy()
	l.owner.Kill()
	since := time.Now()
	l.follow(since, l.Number("SELECT count() FROM millrace.flows"))
	if tr != nil {
		tr.release()
	}
	l.owner, l.standby = l.standby, l.Instance()
	l.standby.Until("standby", jobtest.StandsBy)
	l.tally.count(func(f *ownerFigures) { f.Killed++ })
}

// stopped ends the owner softly.
func (l *lane) stopped() {
	l.T.Helper()
	l.owner.Stop(syscall.SIGTERM)
	if code := l.owner.Cmd.ProcessState.ExitCode(); code != 0 {
		l.T.Errorf("the owner ended with %d", code)
	}
	l.standby.Until("owner", jobtest.Owns)
	l.owner, l.standby = l.standby, l.Instance()
	l.standby.Until("standby", jobtest.StandsBy)
	l.tally.count(func(f *ownerFigures) { f.Stopped++ })
}

// evicted takes every partition of the hub away from the owner, which stays away for
// a while and is fed by the sweeper.
func (l *lane) evicted() {
	t := l.T
	t.Helper()
	reader, err := azeventhubs.NewConsumerClientFromConnectionString(l.Hub.ConnectionString(jobtest.HubName), "", azeventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	defer func() { _ = reader.Close(ctx) }() // it has read enough
	for id := range 4 {
		p, err := reader.NewPartitionClient(fmt.Sprint(id), &azeventhubs.PartitionClientOptions{
			OwnerLevel: to.Ptr(int64(1)), StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)},
		})
		if err != nil {
			t.Fatal(err)
		}
		bounded, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		_, _ = p.ReceiveEvents(bounded, 1, nil) // attached is enough
		cancel()
		_ = p.Close(ctx) // as above
	}
	l.tally.count(func(f *ownerFigures) { f.Links++ })
}
