package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// shared is the one broker of this package's tests.
var (
	shared localtest.SharedKafka
	topics atomic.Int64 // that were made
)

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// topic is a topic with a group of its own. Messages hold a blob's path.
type topic struct {
	cfg  Config
	gaps chan Gap
}

func newTopic(t testing.TB, partitions int32) *topic {
	t.Helper()
	addr := shared.Broker(t).Addr
	name := fmt.Sprintf("announcements-%d", topics.Add(1))
	cfg := DefaultConfig(broker.Config{Brokers: []string{addr}}, name)
	cfg.Group, cfg.CommitInterval = name, 50*time.Millisecond
	w := &topic{cfg: cfg, gaps: make(chan Gap, 100)}
	w.admin(t, func(a *kadm.Client) {
		if _, err := a.CreateTopic(t.Context(), partitions, 1, nil, name); err != nil {
			t.Fatal(err)
		}
	})
	return w
}

func (w *topic) admin(t testing.TB, f func(a *kadm.Client)) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Broker.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f(kadm.NewClient(c))
}

func parse(body []byte) []pipeline.Announcement {
	if len(body) == 0 {
		return nil
	}
	return []pipeline.Announcement{{Blob: pipeline.BlobID{Account: "a", Container: "c", Path: string(body)}}}
}

func (w *topic) Open(t testing.TB) pipeline.Source {
	t.Helper()
	s, err := New(w.cfg, Deps{Parse: parse, OnGap: func(g Gap) { w.gaps <- g }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *topic) Send(t testing.TB, paths ...string) { w.sendTo(t, 0, paths...) }

func (w *topic) sendTo(t testing.TB, partition int32, paths ...string) {
	t.Helper()
	if err := w.produce(t.Context(), partition, paths...); err != nil {
		t.Error(err)
	}
}

func (w *topic) produce(ctx context.Context, partition int32, paths ...string) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Broker.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer c.Close()
	var records []*kgo.Record
	for _, p := range paths {
		records = append(records, &kgo.Record{Topic: w.cfg.Topic, Partition: partition, Value: []byte(p)})
	}
	return c.ProduceSync(ctx, records...).FirstErr()
}

func TestConformance(t *testing.T) {
	pipelinetest.SourceLaws(t, func(t *testing.T) pipelinetest.SourceTarget { return newTopic(t, 1) })
}

// run reads until n distinct paths have been acknowledged, and stops.
func run(t *testing.T, s pipeline.Source, seen func(path string), done <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func(_ context.Context, d pipeline.Delivery) error {
			seen(pipelinetest.Path(d))
			d.Ack()
			return nil
		})
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("not read within a minute")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Members come and go while messages flow: each message is read by somebody, and what
// was acknowledged before a member left is not read again by more than those that were
// on their way.
func TestMembersComeAndGo(t *testing.T) {
	w := newTopic(t, 4)
	const each = 200
	want := map[string]bool{}
	var senders sync.WaitGroup
	defer senders.Wait()
	for p := range int32(4) {
		var paths []string
		for i := range each {
			path := fmt.Sprintf("p%d-%d", p, i)
			paths = append(paths, path)
			want[path] = true
		}
		w.sendTo(t, p, paths[:each/2]...)
		senders.Go(func() { w.sendTo(t, p, paths[each/2:]...) })
	}
	var mu sync.Mutex
	got := map[string]bool{}
	all := make(chan struct{})
	var times int
	seen := func(path string) {
		time.Sleep(4 * time.Millisecond) // so that the members meet
		mu.Lock()
		defer mu.Unlock()
		times++
		got[path] = true
		if len(got) == len(want) {
			select {
			case <-all:
			default:
				close(all)
			}
		}
	}
	var members sync.WaitGroup
	for range 2 {
		members.Go(func() { run(t, w.Open(t), seen, all) })
	}
	// A third one comes for a moment.
	short := make(chan struct{})
	members.Go(func() { run(t, w.Open(t), seen, short) })
	time.AfterFunc(time.Second, func() { close(short) })
	members.Wait()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	t.Logf("%d messages were read %d times", len(want), times)
}

// Messages that expired before they were read are told of; reading goes on behind them.
func TestExpiredMessagesAreReported(t *testing.T) {
	w := newTopic(t, 1)
	w.Send(t, "1", "2", "3", "4")
	w.admin(t, func(a *kadm.Client) {
		offsets := kadm.Offsets{}
		offsets.AddOffset(w.cfg.Topic, 0, 1, -1)
		if err := a.CommitAllOffsets(t.Context(), w.cfg.Group, offsets); err != nil {
			t.Fatal(err)
		}
		expire := kadm.Offsets{}
		expire.AddOffset(w.cfg.Topic, 0, 3, -1)
		if _, err := a.DeleteRecords(t.Context(), expire); err != nil {
			t.Fatal(err)
		}
	})
	done := make(chan struct{})
	var got []string
	run(t, w.Open(t), func(path string) { got = append(got, path); close(done) }, done)
	if diff := cmp.Diff([]string{"4"}, got); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	want := Gap{Partition: 0, Reason: GapExpired, From: 1, Missing: 2}
	select {
	case g := <-w.gaps:
		if g != want {
			t.Errorf("gap %+v, want %+v", g, want)
		}
	default:
		t.Error("the gap was not told")
	}
}

func TestStartPositions(t *testing.T) {
	for start, want := range map[string][]string{StartEarliest: {"1", "2", "3"}, StartLatest: {"3"}} {
		t.Run(start, func(t *testing.T) {
			w := newTopic(t, 1)
			w.cfg.Start = start
			w.Send(t, "1", "2")
			done := make(chan struct{})
			var got []string
			s := w.Open(t)
			// The end is that of the moment at which the group gives the partition; nobody
			// tells when the client has asked for it, so the message comes again and again.
			var sender sync.WaitGroup
			defer sender.Wait()
			sender.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(200 * time.Millisecond):
						w.Send(t, "3")
					}
				}
			})
			run(t, s, func(path string) {
				if len(got) > 0 && got[len(got)-1] == "3" {
					return
				}
				got = append(got, path)
				if path == "3" {
					close(done)
				}
			}, done)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATopicThatIsNotThere(t *testing.T) {
	cfg := DefaultConfig(broker.Config{Brokers: []string{shared.Broker(t).Addr}}, "nothing")
	s, err := New(cfg, Deps{Parse: parse})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context(), func(context.Context, pipeline.Delivery) error { return errors.New("BUG: nothing to read") })
	if err == nil || s.unacknowledged() != 0 {
		t.Errorf("a topic that is not there gives %v", err)
	}
}
