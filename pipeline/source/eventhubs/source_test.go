package eventhubs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// TestReadsEverythingOnce: a fresh source begins at the earliest message, and the
// next one behind what was acknowledged.
func TestReadsEverythingOnce(t *testing.T) {
	s := startHub(t, nil)
	var want []string
	for p := range 4 {
		batch := names(fmt.Sprint("p", p), 250)
		publish(t, s, p, batch...)
		want = append(want, batch...)
	}
	u := newSetup(t, s)
	first := newCollector(all)
	r := u.run(t, first)
	first.waitFor(t, 1000)
	publish(t, s, 2, "live two blobs")
	first.waitFor(t, 1003)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append([]string{"blobs", "live"}, append(want, "two")...), first.names()); diff != "" {
		t.Error(diff)
	}
	for id, c := range u.stored(t) {
		if want := map[string]int64{"0": 249, "1": 249, "2": 250, "3": 249}[id]; c.Sequence != want || c.Offset == "" || c.Created.IsZero() {
			t.Errorf("checkpoint of partition %s: %+v, want sequence %d", id, c, want)
		}
	}
	publish(t, s, 0, "new-a", "-", "-")
	second := newCollector(all)
	r = u.run(t, second)
	second.waitFor(t, 1)
	publish(t, s, 3, "new-b")
	second.waitFor(t, 2)
	deadline := time.Now().Add(wait)
	for u.stored(t)["0"].Sequence != 252 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // messages without an announcement count as acknowledged
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"new-a", "new-b"}, second.names()); diff != "" {
		t.Error(diff)
	}
	if got := u.stored(t)["0"].Sequence; got != 252 {
		t.Errorf("checkpoint %d, want 252", got)
	}
	if len(u.gaps) > 0 {
		t.Errorf("gap %+v", <-u.gaps)
	}
}

// TestLinksBreak: whatever breaks on the way, nothing is missing.
func TestLinksBreak(t *testing.T) {
	s := startHub(t, nil)
	u := newSetup(t, s)
	c := newCollector(all)
	u.run(t, c)
	sent := 0
	more := func() {
		for p := range 4 {
			publish(t, s, p, names(fmt.Sprint("round", sent, "-p", p), 25)...)
		}
		sent += 100
	}
	more()
	c.waitFor(t, sent)
	breaks := []func(){
		func() { s.Disconnect() },
		func() { _, _ = s.Detach(hub, "$Default", 1, "amqp:link:detach-forced", "moved") },
		func() { _, _ = s.Detach(hub, "$Default", 2, "amqp:internal-error", "broken") },
		func() { s.Throttle(5); s.Disconnect() },
		func() { s.Disconnect(); more(); s.Disconnect() },
	}
	for _, b := range breaks {
		more()
		b()
		more()
		c.waitFor(t, sent)
	}
	if len(u.gaps) > 0 {
		t.Errorf("gap %+v", <-u.gaps)
	}
}

// TestLowWaterMark: acknowledgements come in any order and some never; what is
// stored is always the end of the acknowledged run, and a restart gives exactly
// the rest.
func TestLowWaterMark(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := startHub(t, func(c *emulator.Config) { c.Hubs[0].Partitions = 1 })
	all60 := names("m", 60)
	publish(t, s, 0, all60...)
	u := newSetup(t, s)
	acknowledged := map[string]bool{}
	for round := range 5 {
		low := slices.IndexFunc(all60, func(n string) bool { return !acknowledged[n] })
		c := newCollector(none)
		r := u.run(t, c)
		c.waitFor(t, 60-low)
		if diff := cmp.Diff(all60[low:], c.names()); diff != "" {
			t.Fatalf("round %d: %s", round, diff)
		}
		pick := c.names()
		random.Shuffle(len(pick), func(i, j int) { pick[i], pick[j] = pick[j], pick[i] })
		pick = pick[:len(pick)*3/4]
		for _, n := range pick[len(pick)/2:] {
			c.acknowledge(n)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		for _, n := range pick[:len(pick)/2] { // these come after Run has returned
			c.acknowledge(n)
		}
		if err := r.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		// An acknowledgement beyond the mark is forgotten by a restart.
		for _, n := range pick {
			acknowledged[n] = true
		}
		low = slices.IndexFunc(all60, func(n string) bool { return !acknowledged[n] })
		for _, n := range all60[low:] {
			delete(acknowledged, n)
		}
		if got, ok := u.stored(t)["0"]; ok != (low > 0) || ok && got.Sequence != int64(low-1) {
			t.Fatalf("round %d: stored %+v, want sequence %d", round, got, low-1)
		}
	}
}

// TestWaitsAtTheLimit: no more messages are given than may wait.
func TestWaitsAtTheLimit(t *testing.T) {
	s := startHub(t, nil)
	publish(t, s, 0, names("m", 50)...)
	u := newSetup(t, s)
	u.cfg.MaxUnacknowledged = 10
	c := newCollector(none)
	u.run(t, c)
	c.waitFor(t, 10)
	time.Sleep(50 * time.Millisecond)
	if got := c.names(); len(got) != 10 {
		t.Fatalf("%d messages given, limit 10", len(got))
	}
	c.acknowledge("m-0003") // not the front: the mark cannot pass
	time.Sleep(20 * time.Millisecond)
	if got := c.names(); len(got) != 10 {
		t.Fatalf("%d messages given, limit 10", len(got))
	}
	for _, n := range []string{"m-0000", "m-0001", "m-0002"} {
		c.acknowledge(n)
	}
	c.waitFor(t, 14)
	time.Sleep(20 * time.Millisecond)
	if got := c.names(); len(got) != 14 {
		t.Errorf("%d messages given, want 14", len(got))
	}
}

// TestStolen: another reader takes the partition; the source stays away for a
// while, and reads on once it may.
func TestStolen(t *testing.T) {
	s := startHub(t, nil)
	publish(t, s, 0, "a")
	u := newSetup(t, s)
	u.cfg.OwnerLevel = to.Ptr(int64(1))
	u.cfg.OwnershipWait = 300 * time.Millisecond
	c := newCollector(all)
	u.run(t, c)
	c.waitFor(t, 1)

	other, err := azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString(hub), "", "$Default", nil)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := other.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{
		OwnerLevel: to.Ptr(int64(2)), StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if _, err := pc.ReceiveEvents(ctx, 1, nil); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 0, "b")
	time.Sleep(700 * time.Millisecond) // two tries at most
	if got := c.names(); len(got) != 1 {
		t.Errorf("%v read from a partition that another reader has", got)
	}
	if n := strings.Count(u.log.String(), "is not read"); n < 1 || n > 4 {
		t.Errorf("%d tries in 700 ms, want one every 300 ms:\n%s", n, u.log)
	}
	if err := errors.Join(pc.Close(ctx), other.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	c.waitFor(t, 2)
}

// TestRefused: what can never work ends Run with an error that says what to do and
// holds no key.
func TestRefused(t *testing.T) {
	s := startHub(t, nil)
	wrong := "d3Jvbmcta2V5LW9mLXRlc3Rz"
	for name, change := range map[string]func(*eventhubs.Config){
		"key": func(c *eventhubs.Config) {
			c.ConnectionString = secret.New(strings.Replace(s.ConnectionString(hub), key, wrong, 1))
		},
		"hub": func(c *eventhubs.Config) {
			c.ConnectionString, c.Hub = secret.New(s.ConnectionString("")), "absent"
		},
		"group": func(c *eventhubs.Config) { c.ConsumerGroup = "absent" },
	} {
		t.Run(name, func(t *testing.T) {
			u := newSetup(t, s)
			change(&u.cfg)
			u.deps.Checkpoints = eventhubs.NewFileStore(u.path, u.cfg.Hub, u.cfg.ConsumerGroup)
			src, err := eventhubs.New(u.cfg, u.deps)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			defer cancel()
			err = src.Run(ctx, newCollector(all).emit)
			if err == nil || !strings.Contains(err.Error(), "check the") {
				t.Errorf("error %v, want what to check", err)
			}
			for _, text := range []string{fmt.Sprint(err), u.log.String(), fmt.Sprintf("%+v %#v", u.cfg, u.cfg)} {
				if strings.Contains(text, key) || strings.Contains(text, wrong) || strings.Contains(text, "SharedAccessSignature ") {
					t.Errorf("a secret is printed: %s", text)
				}
			}
		})
	}
}

// TestUnreachable: a hub that is down is waited for.
func TestUnreachable(t *testing.T) {
	s := startHub(t, nil)
	u := newSetup(t, s)
	u.cfg.ConnectionString = secret.New(strings.Replace(s.ConnectionString(hub), s.Addr(), "127.0.0.1:1", 1))
	r := u.run(t, newCollector(all))
	time.Sleep(100 * time.Millisecond)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(u.log.String(), "does not answer") {
		t.Errorf("log: %s", u.log)
	}
}

// TestPipelineStops: an error of the pipeline ends the source.
func TestPipelineStops(t *testing.T) {
	s := startHub(t, nil)
	publish(t, s, 3, "a")
	u := newSetup(t, s)
	src, err := eventhubs.New(u.cfg, u.deps)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := src.Run(ctx, func(context.Context, pipeline.Delivery) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want broken", err)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	const connection = "Endpoint=sb://ns.example;SharedAccessKeyName=n;SharedAccessKey=topsecret"
	bad := eventhubs.Config{ConnectionString: secret.New(connection), OwnerLevel: to.Ptr(int64(-1)), Prefetch: 9999, MaxUnacknowledged: -1, RetryMin: 2, RetryMax: 1}
	err := bad.Validate()
	for _, want := range []string{"names the hub", "consumer group", "owner level", "prefetch", "unacknowledged", "checkpoint interval", "retry", "ownership wait"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	for _, text := range []string{"", "topsecret", "Endpoint=topsecret", "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=topsecret;x", connection + ";EntityPath=other"} {
		err := eventhubs.DefaultConfig(secret.New(text), "hub").Validate()
		if err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%q: error %v, want one without the secret", text, err)
		}
	}
	if err := eventhubs.DefaultConfig(secret.New(connection), "hub").Validate(); err != nil {
		t.Errorf("the defaults are invalid: %v", err)
	}
	if err := eventhubs.DefaultConfig(secret.New(connection+";EntityPath=hub"), "").Validate(); err != nil {
		t.Errorf("a connection string with the hub's name is invalid: %v", err)
	}
}

// BenchmarkSource measures messages/s from the emulator through the source, with
// bodies as long as Event Grid's.
func BenchmarkSource(b *testing.B) {
	s := startHub(b, nil)
	u := newSetup(b, s)
	u.deps.Parse = func([]byte) []pipeline.Announcement { return make([]pipeline.Announcement, 1) }
	src, err := eventhubs.New(u.cfg, u.deps)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan struct{}, 1<<16)
	done := make(chan error, 1)
	go func() {
		done <- src.Run(ctx, func(_ context.Context, d pipeline.Delivery) error {
			d.Ack()
			got <- struct{}{}
			return nil
		})
	}()
	body := strings.Repeat("x", 1200)
	b.SetBytes(1000 * 1200)
	for b.Loop() {
		for i := range 1000 {
			publish(b, s, i%4, body)
		}
		for range 1000 {
			<-got
		}
	}
	b.ReportMetric(float64(b.N*1000)/b.Elapsed().Seconds(), "messages/s")
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
