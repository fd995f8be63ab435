package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// startOfTests is half past ten: an hour of history crosses an hour.
var startOfTests = time.Date(2026, 3, 4, 10, 30, 17, 0, time.UTC)

// setClock moves the clock of a synctest bubble to the start of the tests.
func setClock() { time.Sleep(time.Until(startOfTests)) }

// watcher checks every append while it happens: JSON, block structure, times.
type watcher struct {
	t *testing.T
	*MemoryWriter
	failAt uint64 // Refuse the commit of this number.

	mu      sync.Mutex
	commits uint64
	latest  time.Time
}

func newWatcher(t *testing.T) *watcher { return &watcher{t: t, MemoryWriter: &MemoryWriter{}} }

var errRefused = errors.New("refused")

func (w *watcher) Commit(ctx context.Context, name BlobName, ids []string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commits++
	if w.commits == w.failAt {
		return "", errRefused
	}
	etag, err := w.MemoryWriter.Commit(ctx, name, ids)
	blocks := w.Blocks(name)
	content := bytes.Join(blocks, nil)
	if !json.Valid(content) {
		w.t.Errorf("after commit %d: %q is not JSON", w.commits, name.Path)
	}
	last := len(blocks) - 1
	if string(blocks[0]) != `{"records":[` || string(blocks[last]) != `]}` {
		w.t.Errorf("%q: header %q, footer %q", name.Path, blocks[0], blocks[last])
	}
	for i, b := range blocks[1:last] {
		if wantComma := i > 0; (b[0] == ',') != wantComma {
			w.t.Errorf("%q: data block %d begins with %q", name.Path, i, b[0])
		}
	}
	w.checkTimes(bytes.TrimPrefix(blocks[last-1], []byte(",")))
	return etag, err
}

// checkTimes holds that nothing in a block passes the clock.
func (w *watcher) checkTimes(block []byte) {
	now := time.Now()
	records, tuples := readBlob(w.t, []byte(`{"records":[`+string(block)+`]}`))
	for _, r := range records {
		if r.Time.After(now) {
			w.t.Errorf("record of %v written at %v", r.Time, now)
		}
	}
	for _, u := range tuples {
		at := time.UnixMilli(u.timeMS)
		if u.fault != "" {
			continue
		}
		if at.After(now) || at.After(records[u.record].Time) {
			w.t.Errorf("tuple of %v in a record of %v written at %v", at, records[u.record].Time, now)
		}
		if at.After(w.latest) {
			w.latest = at
		}
	}
}

// hub keeps what was published.
type hub struct {
	mu     sync.Mutex
	keys   []string
	bodies [][]byte
	fail   func(n int) error
	calls  int
}

func (h *hub) publish(_ context.Context, key string, body []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	if h.fail != nil {
		if err := h.fail(h.calls); err != nil {
			return err
		}
	}
	h.keys, h.bodies = append(h.keys, key), append(h.bodies, body)
	return nil
}

// simulate runs a configuration for a while of fake time.
func simulate(t *testing.T, cfg Config, w BlobWriter, h *hub, d time.Duration) (*Simulator, error) {
	t.Helper()
	s, err := New(cfg, Deps{Blobs: w, Publish: h.publish})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return s, s.Run(ctx)
}

// checkTruth recounts all blobs of a writer and compares.
func checkTruth(t *testing.T, m *MemoryWriter, got Truth) {
	t.Helper()
	var want Truth
	for _, name := range m.Names() {
		content := m.Content(name)
		key := got.Account + "/" + name.Container + "/" + name.Path
		one := oracleTruth(t, key, content)
		b := one.Blobs[key]
		b.Appends = uint64(len(m.Blocks(name)) - 2)
		one.Blobs[key], one.Totals = b, b
		want.Merge(one)
	}
	order := cmp.Transformer("set", func(l []MalformedTuple) map[MalformedTuple]int {
		set := map[MalformedTuple]int{}
		for _, m := range l {
			set[m]++
		}
		return set
	})
	want.Seed, want.Account, want.Events = got.Seed, got.Account, got.Events
	if diff := cmp.Diff(want, got, order); diff != "" {
		t.Errorf("oracle (-), truth (+):\n%s", diff)
	}
	e := got.Events
	if got.Totals.Appends != e.Published-e.Duplicated+e.Dropped+e.Failed {
		t.Errorf("%d appends do not fit events %+v", got.Totals.Appends, e)
	}
}

func TestReplayThenLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setClock()
		cfg := smallConfig()
		cfg.Late = 0.01
		cfg.TruthFile = filepath.Join(t.TempDir(), "truth.json")
		w, h := newWatcher(t), &hub{}
		s, err := simulate(t, cfg, w, h, 5*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		truth := s.Truth()
		checkTruth(t, w.MemoryWriter, truth)
		if n := truth.Totals.Malformed; n == 0 || int(n) != len(truth.Malformed) {
			t.Errorf("%d malformed tuples, %d listed", n, len(truth.Malformed))
		}
		// 65 minutes, less the delay of the last records and the phases.
		if n := truth.Totals.Records; n < 20*63 || n > 20*65 {
			t.Errorf("%d records, want about %d", n, 20*64)
		}
		if len(w.Names()) != 2*20 {
			t.Errorf("%d blobs, want one per interface and hour", len(w.Names()))
		}
		if behind := time.Since(w.latest); behind > time.Minute {
			t.Errorf("the latest tuple is %v old", behind)
		}
		st := s.Snapshot()
		if !st.Live || time.Since(st.Position) > time.Minute || st.Tuples != truth.Totals.Tuples || st.Bytes != truth.Totals.Bytes || st.Blobs != 40 {
			t.Errorf("snapshot %+v does not fit %+v", st, truth.Totals)
		}
		read, err := ReadTruth(cfg.TruthFile)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(truth, read); diff != "" {
			t.Errorf("the file differs:\n%s", diff)
		}
	})
}

// TestSameBytesHoweverRun compares runs that differ in speed, writers, batching
// and start: whole hours are the same, and what WriteHour gives.
func TestSameBytesHoweverRun(t *testing.T) {
	cfg := smallConfig()
	cfg.NICs = 8
	e := mustEstate(t, cfg)
	for name, change := range map[string]func(*Config){
		"plain":   func(*Config) {},
		"batches": func(c *Config) { c.MinutesPerAppend, c.Writers = 7, 1 },
		"paced":   func(c *Config) { c.TuplesPerSecond, c.Writers = 1000, 8 },
		"earlier": func(c *Config) { c.Start = startOfTests.Add(-3 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				setClock()
				cfg := cfg
				cfg.Start = startOfTests.Add(-2 * time.Hour)
				cfg.Until = startOfTests.Add(-10 * time.Minute)
				change(&cfg)
				w := newWatcher(t)
				s, err := simulate(t, cfg, w, &hub{}, time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				checkTruth(t, w.MemoryWriter, s.Truth())
				hour := time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)
				for i := range e.NICs() {
					want, _ := hourOf(t, e, i, hour)
					if got := w.Content(e.Hour(i, hour)); !bytes.Equal(want, got) {
						t.Errorf("interface %d: %d bytes, want the %d of WriteHour", i, len(got), len(want))
					}
				}
				if last := s.Snapshot().Position; last.After(cfg.Until.Add(4 * time.Second)) {
					t.Errorf("went on to %v, until was %v", last, cfg.Until)
				}
				if n := s.Truth().Totals; name == "batches" && n.Appends*5 > n.Records {
					t.Errorf("%d appends for %d records", n.Appends, n.Records)
				}
			})
		})
	}
}

func TestPaceOfReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setClock()
		cfg := smallConfig()
		cfg.TuplesPerSecond = 500
		s, err := simulate(t, cfg, newWatcher(t), &hub{}, 40*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Snapshot().Tuples; n < 19_000 || n > 21_000 {
			t.Errorf("%d tuples in 40 s, want 20,000", n)
		}
		if s.Snapshot().Live {
			t.Error("live in the middle of the past")
		}
	})
}

func TestFrozenClock(t *testing.T) {
	frozen := frozenClock{startOfTests}
	cfg := smallConfig()
	cfg.Start = startOfTests.Add(-10 * time.Minute)
	m := &MemoryWriter{}
	s, err := New(cfg, Deps{Blobs: m, Publish: new(hub).publish, Clock: frozen})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for !s.Snapshot().Live && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := s.Snapshot().Records; n < 8*20 || n > 10*20 {
		t.Errorf("%d records in ten minutes of 20 interfaces", n)
	}
	for _, name := range m.Names() {
		records, tuples := readBlob(t, m.Content(name))
		for _, r := range records {
			if r.Time.After(startOfTests) {
				t.Errorf("record of %v", r.Time)
			}
		}
		for _, u := range tuples {
			if u.fault == "" && time.UnixMilli(u.timeMS).After(startOfTests) {
				t.Errorf("tuple %q", u.text)
			}
		}
	}
}

type frozenClock struct{ now time.Time }

func (c frozenClock) Now() time.Time                         { return c.now }
func (c frozenClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func TestWriterErrorEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setClock()
		w := newWatcher(t)
		w.failAt = 100
		s, err := simulate(t, smallConfig(), w, &hub{}, time.Minute)
		if !errors.Is(err, errRefused) {
			t.Fatalf("error %v, want %v", err, errRefused)
		}
		if d := s.Truth().Doubtful; d != nil {
			t.Errorf("doubtful: %v", d)
		}
		checkTruth(t, w.MemoryWriter, s.Truth()) // Without the refused append.
	})
}

func TestDoubtIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setClock()
		w := doubtful{newWatcher(t)}
		s, err := simulate(t, smallConfig(), w, &hub{}, time.Minute)
		if !errors.Is(err, ErrDoubt) || len(s.Truth().Doubtful) == 0 {
			t.Errorf("error %v, doubtful %q", err, s.Truth().Doubtful)
		}
	})
}

type doubtful struct{ *watcher }

func (d doubtful) Commit(ctx context.Context, name BlobName, ids []string) (string, error) {
	_, err := d.watcher.Commit(ctx, name, ids)
	return "", errors.Join(ErrDoubt, err)
}

func TestDirectoryWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setClock()
		dir := t.TempDir()
		cfg := smallConfig()
		cfg.NICs = 5
		m := &MemoryWriter{}
		s, err := simulate(t, cfg, both{m, NewDirectoryWriter(dir)}, &hub{}, 2*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Names()) != 10 || s.Snapshot().Appends < 5*60 {
			t.Errorf("%d blobs, %d appends", len(m.Names()), s.Snapshot().Appends)
		}
		for _, name := range m.Names() {
			got, err := os.ReadFile(filepath.Join(dir, name.Container, name.Path))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, m.Content(name)) {
				t.Errorf("%q differs", name.Path)
			}
		}
	})
}

// both writes to two writers.
type both struct{ a, b BlobWriter }

func (w both) EnsureContainer(ctx context.Context, c string) error {
	return errors.Join(w.a.EnsureContainer(ctx, c), w.b.EnsureContainer(ctx, c))
}

func (w both) Stage(ctx context.Context, n BlobName, id string, data []byte) error {
	return errors.Join(w.a.Stage(ctx, n, id, data), w.b.Stage(ctx, n, id, data))
}

func (w both) Commit(ctx context.Context, n BlobName, ids []string) (string, error) {
	tag, e1 := w.a.Commit(ctx, n, ids)
	_, e2 := w.b.Commit(ctx, n, ids)
	return tag, errors.Join(e1, e2)
}

func TestBlockIDs(t *testing.T) {
	seen := map[string]bool{}
	sorted := true
	last := ""
	for i := range uint64(60) {
		id := blockID(7, i)
		if len(id) != 44 || !strings.HasSuffix(id, "=") || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
		sorted = sorted && id > last
		last = id
	}
	if sorted {
		t.Error("the ids tell their order")
	}
}

func TestTruthIsCompact(t *testing.T) {
	truth := Truth{Blobs: map[string]BlobTruth{}}
	cfg := DefaultConfig()
	cfg.NICs, cfg.TuplesPerMinute = 4, 2000
	e := mustEstate(t, cfg)
	for i := range e.NICs() {
		_, one := hourOf(t, e, i, noon)
		for k, b := range one.Blobs {
			for n := range 2500 {
				truth.Blobs[fmt.Sprintf("%s%04d", k, n)] = b
			}
		}
	}
	data, err := json.Marshal(truth)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 8<<20 {
		t.Errorf("%d blobs take %d bytes", len(truth.Blobs), len(data))
	}
	t.Logf("%d blobs: %d bytes", len(truth.Blobs), len(data))
}
