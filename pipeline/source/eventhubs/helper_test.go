package eventhubs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "eventhubs")
	if err == nil {
		err = trust(dir)
	}
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

const (
	hub  = "events"
	key  = "c2VjcmV0LWtleS1vZi10ZXN0cw=="
	wait = 20 * time.Second
)

// startHub runs an emulator until the test ends.
func startHub(t testing.TB, change func(*emulator.Config)) *emulator.Server {
	t.Helper()
	cfg := emulator.Config{Addr: "127.0.0.1:0", Hubs: []emulator.Hub{{Name: hub, Partitions: 4}}, Key: key}
	if change != nil {
		change(&cfg)
	}
	s, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func publish(t testing.TB, s *emulator.Server, partition int, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if _, err := s.Publish(hub, emulator.ToPartition(partition), []byte(b), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// parse announces the blobs that a body names, separated by spaces; "-" is none.
func parse(body []byte) []pipeline.Announcement {
	var out []pipeline.Announcement
	for name := range strings.FieldsSeq(string(body)) {
		if name != "-" {
			out = append(out, pipeline.Announcement{Blob: pipeline.BlobID{Account: "a", Container: "c", Path: name}})
		}
	}
	return out
}

// collector is the pipeline behind the source: it remembers what came, and
// acknowledges what ack lets through.
type collector struct {
	mu   sync.Mutex
	got  map[string]int
	acks map[string]func()
	ack  func(string) bool
	news chan struct{}
}

func newCollector(ack func(string) bool) *collector {
	return &collector{got: map[string]int{}, acks: map[string]func(){}, ack: ack, news: make(chan struct{}, 1)}
}

func (c *collector) emit(_ context.Context, d pipeline.Delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := d.Announcements[0].Blob.Path
	for _, a := range d.Announcements {
		c.got[a.Blob.Path]++
	}
	if c.ack(name) {
		d.Ack()
	} else {
		c.acks[name] = d.Ack
	}
	select {
	case c.news <- struct{}{}:
	default:
	}
	return nil
}

func (c *collector) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.got))
}

// waitFor waits until n different blobs were announced.
func (c *collector) waitFor(t testing.TB, n int) {
	t.Helper()
	limit := time.After(wait)
	for len(c.names()) < n {
		select {
		case <-c.news:
		case <-limit:
			t.Fatalf("%d of %d blobs announced", len(c.names()), n)
		}
	}
}

func (c *collector) acknowledge(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks[name]()
	delete(c.acks, name)
}

func all(string) bool  { return true }
func none(string) bool { return false }

// setup is a source with a pipeline behind it.
type setup struct {
	cfg  eventhubs.Config
	deps eventhubs.Deps
	path string
	log  *safeBuffer
	gaps chan eventhubs.Gap
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newSetup(t testing.TB, s *emulator.Server) *setup {
	t.Helper()
	u := &setup{
		cfg:  eventhubs.DefaultConfig(secret.New(s.ConnectionString(hub)), ""),
		path: filepath.Join(t.TempDir(), "state", "events.json"),
		log:  &safeBuffer{}, gaps: make(chan eventhubs.Gap, 100),
	}
	u.cfg.CheckpointInterval = 10 * time.Millisecond
	u.cfg.RetryMin, u.cfg.RetryMax = 5*time.Millisecond, 50*time.Millisecond
	u.deps = eventhubs.Deps{
		Parse: parse, Checkpoints: eventhubs.NewFileStore(u.path, hub, "$Default"),
		OnGap: func(g eventhubs.Gap) { u.gaps <- g }, Logger: slog.New(slog.NewTextHandler(u.log, nil)),
	}
	return u
}

// running is a source that runs.
type running struct {
	*eventhubs.Source
	stop func() error // ends it and gives Run's error
}

func (u *setup) run(t testing.TB, c *collector) running {
	t.Helper()
	return u.runInto(t, c.emit)
}

func (u *setup) runInto(t testing.TB, emit func(context.Context, pipeline.Delivery) error) running {
	t.Helper()
	s, err := eventhubs.New(u.cfg, u.deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, emit) }()
	stop := sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(wait):
			return errors.New("the source does not stop")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return running{s, stop}
}

func (u *setup) stored(t testing.TB) map[string]eventhubs.Checkpoint {
	t.Helper()
	got, err := u.deps.Checkpoints.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%04d", prefix, i)
	}
	return out
}
