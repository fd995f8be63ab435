package listing_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/pipeline/source/listing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account   = "flowlogs"
	container = "insights-logs-flowlogflowevent"
)

// The three published layouts of VNet flow logs, and that of NSG flow logs.
var layouts = []string{
	"flowLogResourceID=/SUB_NETWORKWATCHERRG/NETWORKWATCHER_WESTUS_LOG/",
	"flowLogResourceID=/sub_NETWORKWATCHERRG/NETWORKWATCHER_westus_vnet-rg-FLOWLOGS/",
	"flowLogResourceID=/SUBSCRIPTIONS/SUB/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_WESTUS/FLOWLOGS/LOG/",
	"resourceId=/SUBSCRIPTIONS/SUB/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/NSG/",
}

// world is a blob store and a sweeper over it under a clock that the test moves.
// In the bubble of synctest it is midnight, 1 January 2000, UTC, at first.
type world struct {
	t      *testing.T
	server *blobtest.Server
	store  *blob.AzureStore
	source *listing.Source

	mu  sync.Mutex
	got []string // announced since the last look: hour, stream, length
}

var began = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t *testing.T, start time.Time, edit func(*listing.Config)) *world {
	w := &world{t: t, server: blobtest.New()}
	dial, stop := w.server.Pipe()
	var err error
	w.store, err = blob.NewAzureStore([]blob.AccountConfig{{
		Name: account, Endpoint: w.server.Endpoint(account), SAS: secret.New("sig=x"), Dial: dial,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.store.Close()
		stop()
	})
	cfg := listing.DefaultConfig(start, listing.Container{Account: account, Container: container})
	if edit != nil {
		edit(&cfg)
	}
	if w.source, err = listing.New(cfg, w.store); err != nil {
		t.Fatal(err)
	}
	w.server.Create(account, container)
	return w
}

// run starts the sweeper; it ends with the test.
func (w *world) run() {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error)
	go func() { done <- w.source.Run(ctx, w.emit) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("run: %v", err)
		}
	})
}

func (w *world) emit(_ context.Context, d pipeline.Delivery) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.Ack != nil || len(d.Announcements) != 1 {
		w.t.Errorf("delivery %+v", d)
	}
	a := d.Announcements[0]
	hour, _ := a.Blob.Hour()
	w.got = append(w.got, fmt.Sprintf("%s %s %d", hour.Format("02T15"), strings.TrimPrefix(a.Blob.Stream(), account+"/"+container+"/"), a.ContentLength))
	return nil
}

// take gives what was announced since the last call, sorted.
func (w *world) take() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got = nil
	slices.Sort(got)
	return got
}

func (w *world) expect(what string, want ...string) {
	w.t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, w.take()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func id(root string, hour time.Time, mac string) pipeline.BlobID {
	return pipeline.BlobID{
		Account: account, Container: container,
		Path: root + hour.Format("y=2006/m=01/d=02/h=15/m=00/") + "macAddress=" + mac + "/PT1H.json",
	}
}

// put makes a blob of the given length.
func (w *world) put(root string, hour time.Time, mac string, size int) {
	w.server.Put(id(root, hour, mac), make([]byte, size))
}

func line(root string, hour time.Time, mac string, size int) string {
	return fmt.Sprintf("%s %smacAddress=%s/PT1H.json %d", hour.Format("02T15"), root, mac, size)
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(50*time.Hour + 20*time.Minute)
		now := time.Now().UTC()
		w := newWorld(t, now.Add(-49*time.Hour), nil)
		first := now.Add(-49 * time.Hour).Truncate(time.Hour)
		var want []string
		for i, root := range layouts {
			w.put(root, first.Add(-time.Hour), "000000000001", 500) // before the start
			for h := first; !h.After(now); h = h.Add(time.Hour) {
				w.put(root, h, "000000000001", 100+i)
				want = append(want, line(root, h, "000000000001", 100+i))
			}
		}
		for _, odd := range []string{"x", "flowLogResourceID=/PT1H.json", "y=20000/PT1H.json", layouts[0] + "y=2000/m=01/d=03/h=02/m=00/macAddress=1/other.json", layouts[0] + "y=2000/m=01/d=03/h=xx/m=00/PT1H.json"} {
			w.server.Put(pipeline.BlobID{Account: account, Container: container, Path: odd}, make([]byte, 100))
		}
		w.run()
		time.Sleep(time.Second)
		w.expect("at the start", want...)
		time.Sleep(time.Hour)
		w.expect("nothing changed")

		now = time.Now().UTC()
		w.put(layouts[0], now, "000000000001", 300)
		w.put(layouts[0], now, "000000000000", 300) // sorts before what is known
		w.put(layouts[1], now.Add(-time.Hour), "FFFFFFFFFFFF", 300)
		time.Sleep(10 * time.Minute)
		w.expect("new and grown",
			line(layouts[0], now, "000000000001", 300), line(layouts[0], now, "000000000000", 300),
			line(layouts[1], now.Add(-time.Hour), "FFFFFFFFFFFF", 300))

		w.put(layouts[0], now, "000000000001", 250)
		w.put(layouts[0], now, "000000000000", 300)
		time.Sleep(10 * time.Minute)
		w.expect("shorter, and another version of the same length: have a look",
			line(layouts[0], now, "000000000001", -1), line(layouts[0], now, "000000000000", -1))

		for _, r := range w.server.Requests() {
			if r.Method != http.MethodGet || r.Op != "list" {
				t.Errorf("%+v", r)
			}
		}
		if s := w.source.Stats(); s.Prefixes != 4 || s.Errors != 0 || s.Announced != int64(len(want)+5) {
			t.Errorf("%+v", s)
		}
	})
}

// An hour is listed while it is the current or the previous one, and a last time
// two hours after its beginning; its blobs are forgotten an hour later.
func TestHoursSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		root := layouts[0]
		w.put(root, began, "A", 100)
		w.run()
		time.Sleep(time.Second)
		w.expect("at the start", line(root, began, "A", 100))
		time.Sleep(time.Hour + 58*time.Minute)
		w.put(root, began, "A", 200)
		w.put(root, began, "B", 200)
		time.Sleep(2 * time.Minute)
		w.expect("the last pass", line(root, began, "A", 200), line(root, began, "B", 200))
		w.put(root, began, "A", 300)
		w.server.Forget()
		time.Sleep(30 * time.Minute)
		w.expect("after the last pass")
		prefixes := map[string]bool{}
		for _, r := range w.server.Requests() {
			if _, rest, ok := strings.Cut(r.Query, "h%3D"); ok {
				prefixes[rest[:2]] = true
			}
		}
		if diff := cmp.Diff(map[string]bool{"01": true, "02": true}, prefixes); diff != "" {
			t.Errorf("hours listed at 02:30 (-want +got):\n%s", diff)
		}
		if n := w.source.Stats().Remembered; n != 2 {
			t.Errorf("%d remembered at 02:30, want 2", n)
		}
		time.Sleep(time.Hour)
		if n := w.source.Stats().Remembered; n != 0 {
			t.Errorf("%d remembered at 03:30, want 0", n)
		}
	})
}

// Folders are walked once an hour; a flow log that is made in between is found
// then, with the blobs it has.
func TestNewFlowLogsAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		w.run()
		time.Sleep(time.Second)
		w.expect("an empty container")
		w.put(layouts[0], time.Now(), "A", 100)
		time.Sleep(10 * time.Minute)
		w.expect("the first flow log is found at the next pass", line(layouts[0], began, "A", 100))
		w.put(layouts[2], time.Now(), "B", 100)
		time.Sleep(30 * time.Minute)
		w.expect("the next one waits for the walk")
		time.Sleep(30 * time.Minute)
		w.expect("the walk", line(layouts[2], began, "B", 100))

		// Ten hours later: a new folder is listed from shortly before the last walk on.
		time.Sleep(10 * time.Hour)
		w.take()
		now := time.Now().UTC().Truncate(time.Hour)
		w.put(layouts[3], now.Add(-time.Hour), "C", 100)
		w.put(layouts[3], now, "C", 100)
		w.server.Forget()
		time.Sleep(61 * time.Minute)
		w.expect("a late one", line(layouts[3], now.Add(-time.Hour), "C", 100), line(layouts[3], now, "C", 100))
		listed := 0
		for _, r := range w.server.Requests() {
			if strings.Contains(r.Query, "NSG") && !strings.Contains(r.Query, "delimiter") {
				listed++
			}
		}
		if listed > 8 {
			t.Errorf("%d listings of a new folder, want no walk over all its hours", listed)
		}
		if n := w.source.Stats().Prefixes; n != 3 {
			t.Errorf("%d folders", n)
		}
		for _, h := range []time.Time{now.Add(-time.Hour), now} {
			w.server.Delete(id(layouts[3], h, "C"))
		}
		time.Sleep(61 * time.Minute)
		if n := w.source.Stats().Prefixes; n != 2 {
			t.Errorf("%d folders after one was deleted", n)
		}
	})
}

// A machine that slept lists all the hours that it missed.
func TestMissedHoursAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		w := newWorld(t, began, func(c *listing.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		})
		w.put(layouts[0], began, "A", 100)
		w.run()
		time.Sleep(time.Second)
		w.take()
		var want []string
		for h := range 7 {
			at := began.Add(time.Duration(h) * time.Hour)
			w.put(layouts[0], at, "A", 200)
			want = append(want, line(layouts[0], at, "A", 200))
		}
		synctest.Wait()
		offset.Store(int64(6 * time.Hour))
		time.Sleep(10 * time.Minute)
		w.expect("after the sleep", want...)
	})
}

// A start of weeks ago lists whole days.
func TestOldDaysAreListedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(30 * 24 * time.Hour)
		now := time.Now().UTC()
		w := newWorld(t, began.Add(5*time.Hour), nil)
		w.server.PageSize = 7
		var want []string
		for h := began; !h.After(now); h = h.Add(time.Hour) {
			w.put(layouts[0], h, "A", 100)
			if !h.Before(began.Add(5 * time.Hour)) {
				want = append(want, line(layouts[0], h, "A", 100))
			}
		}
		w.run()
		time.Sleep(time.Second)
		w.expect("all hours", want...)
		// 28 days of four pages, the hours of the first day and of the last two, the walk.
		if n := len(w.server.Requests()); n > 28*4+19+25+5 {
			t.Errorf("%d requests", n)
		}
		if n := w.source.Stats().Remembered; n > 4 {
			t.Errorf("%d old blobs remembered", n)
		}
	})
}

func TestFaultsAreMetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		w.put(layouts[0], began, "A", 100)
		w.server.SetFault(func(r blobtest.Request) *blobtest.Fault {
			switch now := time.Since(began); {
			case now < 20*time.Minute:
				return &blobtest.Fault{Status: 403, Code: "AuthorizationFailure"}
			case now < 40*time.Minute:
				return &blobtest.Fault{Status: 500}
			case r.N%2 == 0:
				return &blobtest.Fault{Status: 503, Header: http.Header{"Retry-After": {"5"}}}
			}
			return nil
		})
		w.run()
		time.Sleep(39 * time.Minute)
		w.expect("while it is refused")
		if n := w.source.Stats().Errors; n < 20 {
			t.Errorf("%d errors", n)
		}
		time.Sleep(5 * time.Minute)
		w.expect("afterwards", line(layouts[0], began, "A", 100))

		// The hour that could not be listed is not settled while it cannot.
		w.put(layouts[0], began, "A", 200)
		w.server.SetFault(func(r blobtest.Request) *blobtest.Fault {
			if strings.Contains(r.Query, "h%3D00") {
				return &blobtest.Fault{Status: 500}
			}
			return nil
		})
		time.Sleep(5 * time.Hour)
		now := time.Now().UTC()
		w.put(layouts[0], now, "A", 10)
		time.Sleep(10 * time.Minute)
		w.expect("a later hour is listed all the same", line(layouts[0], now, "A", 10))
		w.server.SetFault(nil)
		time.Sleep(10 * time.Minute)
		w.expect("and the old one at last", line(layouts[0], began, "A", 200))
	})
}

// Two containers, one of which does not exist: the other is swept.
func TestMissingContainerHindersNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, func(c *listing.Config) {
			c.Containers = append([]listing.Container{{Account: account, Container: "missing"}}, c.Containers...)
		})
		w.put(layouts[0], began, "A", 100)
		w.run()
		time.Sleep(time.Second)
		w.expect("the other container", line(layouts[0], began, "A", 100))
		w.server.Create(account, "missing")
		late := id(layouts[1], began, "B")
		late.Container = "missing"
		w.server.Put(late, make([]byte, 10))
		time.Sleep(10 * time.Minute)
		if got := w.take(); len(got) != 1 || !strings.HasSuffix(got[0], "10") {
			t.Errorf("the container that came late: %q", got)
		}
	})
}

func TestEmitErrorEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		for i := range 10 {
			w.put(layouts[0], began, fmt.Sprint(i), 100)
			w.put(layouts[1], began, fmt.Sprint(i), 100)
		}
		stop := errors.New("stop")
		var n int
		var mu sync.Mutex
		err := w.source.Run(t.Context(), func(context.Context, pipeline.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			n++
			return stop
		})
		if !errors.Is(err, stop) || n > 2 {
			t.Errorf("%v after %d deliveries", err, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := w.source.Run(ctx, func(context.Context, pipeline.Delivery) error { cancel(); return ctx.Err() }); err != nil {
			t.Errorf("a context that ended: %v", err)
		}
	})
}

// Sweep announces again what a pass had announced.
func TestSweepAnnouncesEverythingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		w.put(layouts[0], began, "A", 100)
		for range 2 {
			if err := w.source.Sweep(t.Context(), w.emit); err != nil {
				t.Error(err)
			}
			w.expect("sweep", line(layouts[0], began, "A", 100))
		}
		w.server.SetFault(func(blobtest.Request) *blobtest.Fault { return &blobtest.Fault{Status: 403} })
		if err := w.source.Sweep(t.Context(), w.emit); err == nil {
			t.Error("a sweep that saw nothing says so")
		}
	})
}

func TestConfig(t *testing.T) {
	if err := listing.DefaultConfig(began, listing.Container{Account: "a", Container: "b"}).Validate(); err != nil {
		t.Error(err)
	}
	err := listing.Config{Containers: []listing.Container{{}, {}}}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") < 5 {
		t.Errorf("%v", err)
	}
	if _, err := listing.New(listing.Config{Start: began, Containers: []listing.Container{{Account: "a", Container: "b"}}}, nil); err == nil {
		t.Error("no lister")
	}
}

// A sweeper that runs takes shorter intervals and further containers over at once,
// and keeps what it knows.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		root := layouts[0]
		w.put(root, began, "A", 100)
		w.run()
		time.Sleep(time.Second)
		w.expect("at the start", line(root, began, "A", 100))
		if _, err := w.source.Renew(time.Minute, time.Second, nil); err == nil {
			t.Error("no container, and folders walked more often than listed: accepted")
		}
		const other = "insights-logs-other"
		w.server.Put(pipeline.BlobID{Account: account, Container: other, Path: id(root, began, "B").Path}, make([]byte, 50))
		apply, err := w.source.Renew(time.Minute, time.Hour, []listing.Container{{Account: account, Container: other}, {Account: account, Container: container}})
		if err != nil {
			t.Fatal(err)
		}
		apply()
		apply() // the last one counts
		time.Sleep(time.Second)
		w.expect("of the new container", began.Format("02T15")+" "+account+"/"+other+"/"+root+"macAddress=B/PT1H.json 50")
		w.put(root, began, "A", 200)
		time.Sleep(time.Minute)
		w.expect("within the new interval", line(root, began, "A", 200))
	})
}
