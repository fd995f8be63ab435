package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/ledgertest"
)

// container is a shared store in memory. down answers instead of it.
type container struct {
	mu      sync.Mutex
	objects map[string][]byte
	version map[string]int
	serial  int
	down    func(op string) error
}

func newContainer() *container {
	return &container{objects: map[string][]byte{}, version: map[string]int{}}
}

func (c *container) fails(op string) error {
	if c.down == nil {
		return nil
	}
	return c.down(op)
}

func (c *container) set(name string, data []byte) string {
	c.serial++
	c.objects[name], c.version[name] = data, c.serial
	return fmt.Sprint(c.serial)
}

func (c *container) Create(_ context.Context, name string, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.objects[name]; ok {
		return ledger.ErrExists
	}
	c.set(name, data)
	return nil
}

func (c *container) Put(_ context.Context, name string, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(name, data)
	return nil
}

func (c *container) Get(ctx context.Context, name string) ([]byte, error) {
	data, _, err := c.Load(ctx, name)
	return data, err
}

func (c *container) List(_ context.Context, prefix string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.objects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names, nil
}

func (c *container) Delete(_ context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.objects, name)
	delete(c.version, name)
	return nil
}

func (c *container) Load(_ context.Context, name string) ([]byte, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fails("load"); err != nil {
		return nil, "", err
	}
	data, ok := c.objects[name]
	if !ok {
		return nil, "", ledger.ErrNotExist
	}
	return data, fmt.Sprint(c.version[name]), nil
}

func (c *container) Swap(_ context.Context, name string, data []byte, version string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fails("swap"); err != nil {
		return "", err
	}
	switch have, ok := c.version[name]; {
	case ok && string(c.objects[name]) == string(data):
		return fmt.Sprint(have), nil // a lost answer
	case ok != (version != ""), ok && fmt.Sprint(have) != version:
		return "", ledger.ErrChanged
	}
	next := c.set(name, data)
	return next, c.fails("swapped")
}

func TestContainerInMemoryKeepsTheLawsOfStores(t *testing.T) {
	ledgertest.Run(t, func(*testing.T) ledger.Store { return newContainer() })
}

func owner(instance string, expiry time.Duration) ledger.OwnerConfig {
	return ledger.OwnerConfig{Instance: instance, Expiry: expiry}
}

func own(t *testing.T, c *container, instance string, expiry time.Duration) *ledger.Lease {
	t.Helper()
	l, err := ledger.Own(t.Context(), c, owner(instance, expiry), func(ledger.Owner) {})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keep gives signs of life until stop, which gives what Keep gave.
func keep(t *testing.T, l *ledger.Lease) (stop func() error, lost <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() {
		err := l.Keep(ctx)
		done <- err
		done <- err
	}()
	return func() error { cancel(); return <-done }, done
}

func TestStandbyWaitsForTheOwnersExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContainer()
		a := own(t, c, "a", 10*time.Second)
		stop, _ := keep(t, a)
		type taken struct {
			lease *ledger.Lease
			at    time.Time
		}
		b := make(chan taken, 1)
		var seen ledger.Owner
		go func() {
			l, err := ledger.Own(t.Context(), c, owner("b", 5*time.Second), func(o ledger.Owner) { seen = o })
			if err != nil {
				t.Error(err)
			}
			b <- taken{l, time.Now()}
		}()
		time.Sleep(time.Hour)
		select {
		case <-b:
			t.Fatal("b took over from an owner that lives")
		default:
		}
		if err := stop(); err != nil { // as kill -9: nothing is released
			t.Fatal(err)
		}
		died := time.Now()
		got := <-b
		if waited := got.at.Sub(died); waited < 7*time.Second || waited > 12*time.Second {
			t.Errorf("b took over %v after the last sign of life was due, want about the owner's 10s", waited)
		}
		if got.lease.Epoch() != 2 || seen.Instance != "a" || seen.Epoch != 1 {
			t.Errorf("b owns epoch %d, and saw %+v", got.lease.Epoch(), seen)
		}
		// a wakes up: it is told, whatever it does.
		for what, err := range map[string]error{"keep": a.Keep(t.Context()), "raise": a.Raise(t.Context()), "release": a.Release(t.Context())} {
			if !errors.Is(err, pipeline.ErrFenced) || what == "raise" && !strings.Contains(err.Error(), `instance "b" owns the ledger since epoch 2`) {
				t.Errorf("%s of the old owner: %v", what, err)
			}
		}
	})
}

func TestReleasedLedgerIsTakenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContainer()
		a := own(t, c, "a", time.Minute)
		if err := a.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		b := own(t, c, "b", time.Minute)
		if took := time.Since(began); took > 0 || b.Epoch() != 2 {
			t.Errorf("b owns epoch %d after %v", b.Epoch(), took)
		}
		// The same instance need not wait for itself, and gets an epoch of its own.
		if again := own(t, c, "b", time.Minute); again.Epoch() != 3 || time.Since(began) > 0 {
			t.Errorf("b again: epoch %d after %v", again.Epoch(), time.Since(began))
		}
		time.Sleep(time.Millisecond) // two writes of one instance differ by their time
		if err := b.Raise(t.Context()); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("the older lease of the same instance: %v", err)
		}
	})
}

func TestRaise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := own(t, newContainer(), "a", time.Minute)
		for want := uint64(2); want < 5; want++ {
			if err := a.Raise(t.Context()); err != nil || a.Epoch() != want {
				t.Errorf("epoch %d, %v; want %d", a.Epoch(), err, want)
			}
		}
	})
}

// An owner that cannot reach the store gives up before anybody may take over; one
// that can again in time goes on, also when the answers to its writes were lost.
func TestOwnerWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContainer()
		a := own(t, c, "a", 8*time.Second)
		stop, lost := keep(t, a)
		set := func(down func(string) error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.down = down
		}
		transient := fmt.Errorf("cut: %w", pipeline.ErrTransient)
		time.Sleep(time.Second)
		set(func(op string) error {
			if op == "swapped" {
				return transient // done, but nobody hears of it
			}
			return nil
		})
		time.Sleep(time.Hour)
		set(func(string) error { return transient })
		time.Sleep(5 * time.Second)
		set(nil)
		time.Sleep(time.Minute)
		select {
		case err := <-lost:
			t.Fatalf("lost: %v", err)
		default:
		}
		set(func(string) error { return transient })
		began := time.Now()
		err := <-lost
		if took := time.Since(began); !errors.Is(err, pipeline.ErrFenced) || took > 8*time.Second || took < 6*time.Second {
			t.Errorf("gave up after %v with %v", took, err)
		}
		_ = stop()
	})
}

// Of many that wait, one takes over.
// A store that does not answer for as long as the expiry costs an owner its ledger,
// not its process: it stands by and may own it again.
func TestRaiseWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContainer()
		cfg := ledger.OwnerConfig{Instance: "a", Expiry: 5 * time.Second}
		l, err := ledger.Own(t.Context(), c, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.down = func(string) error { return pipeline.ErrTransient }
		if err := l.Raise(t.Context()); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("raise: %v, want %v", err, pipeline.ErrFenced)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Raise(ended); errors.Is(err, pipeline.ErrFenced) || err == nil {
			t.Errorf("raise of somebody who stops: %v, want no loss", err)
		}
		c.down = nil
		if l, err = ledger.Own(t.Context(), c, cfg, nil); err != nil || l.Epoch() != 2 {
			t.Errorf("own again: epoch %d, %v", l.Epoch(), err)
		}
	})
}

// A sign of life that was given up, tried again, and comes a second time is no other
// owner.
func TestSignOfLifeComesTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContainer()
		l, err := ledger.Own(t.Context(), c, ledger.OwnerConfig{Instance: "a", Expiry: 5 * time.Second}, nil)
		if err != nil {
			t.Fatal(err)
		}
		kept := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { kept <- l.Keep(ctx) }()
		for range 3 {
			time.Sleep(2 * time.Second) // of the bubble
			c.mu.Lock()
			c.set("owner", c.objects["owner"])
			c.mu.Unlock()
		}
		time.Sleep(10 * time.Second)
		stop()
		if err := <-kept; err != nil {
			t.Errorf("keep: %v", err)
		}
	})
}

func TestOneOfManyTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContainer()
		ctx, cancel := context.WithCancel(t.Context())
		owners := make(chan *ledger.Lease, 10)
		for i := range 10 {
			go func() {
				if l, err := ledger.Own(ctx, c, owner(fmt.Sprint("i", i), 5*time.Second), func(ledger.Owner) {}); err == nil {
					owners <- l
					_ = l.Keep(ctx)
				}
			}()
		}
		time.Sleep(time.Hour)
		cancel()
		synctest.Wait()
		if n := len(owners); n != 1 {
			t.Errorf("%d owners, want 1", n)
		}
	})
}

func TestLedgerOfAnOwner(t *testing.T) {
	c := newContainer()
	register := func(context.Context, string, int) (uint16, error) { return 3, nil }
	a := own(t, c, "a", time.Minute)
	for want := uint64(1); want < 3; want++ {
		l, err := ledger.OpenOwned(t.Context(), a, ledger.Info{Shards: 2}, register)
		if err != nil || l.Epoch() != want || l.Info().ID != 3 {
			t.Fatalf("epoch %d, id %d, %v", l.Epoch(), l.Info().ID, err)
		}
		if err := a.Raise(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
