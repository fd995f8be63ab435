package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

const processorPartitions = 6

// TestGoProcessor: processors of the official Go SDK share a hub's partitions
// through checkpoints and ownerships in blob storage. A second one gets half of
// them, a stopped one's go to the other, and whoever takes a partition over goes on
// behind the checkpoint: no event is missed.
func TestGoProcessor(t *testing.T) {
	t.Parallel()
	store := checkpointStore(t)
	s := start(t, func(c *emulator.Config) {
		c.Hubs = []emulator.Hub{{Name: "logs", Partitions: processorPartitions}}
	})
	seen := &received{}
	sent := 0
	// publishAndWait sends events to every partition and waits until all have come.
	publishAndWait := func(n int) {
		t.Helper()
		for range n {
			for p := range processorPartitions {
				if _, err := s.Publish("logs", emulator.ToPartition(p), fmt.Appendf(nil, "%d-%d", p, sent), nil); err != nil {
					t.Fatal(err)
				}
			}
			sent++
		}
		eventually(t, "all events", func() bool { return seen.behind(sent) == 0 })
	}

	a := join(t, s, store, seen, "a")
	eventually(t, "the first has all partitions", func() bool { return a.holds() == processorPartitions })
	publishAndWait(20)

	b := join(t, s, store, seen, "b")
	eventually(t, "each has half", func() bool { return a.holds() == processorPartitions/2 && b.holds() == processorPartitions/2 })
	publishAndWait(20)
	for name, n := range seen.partitions(20) {
		if n != processorPartitions/2 {
			t.Errorf("%s got the second events of %d partitions, want %d", name, n, processorPartitions/2)
		}
	}

	a.stop()
	publishAndWait(20) // some of them before the other has taken over
	if n := b.holds(); n != processorPartitions {
		t.Errorf("the one that is left holds %d partitions, want %d", n, processorPartitions)
	}
	b.stop()
	checked, err := store.ListCheckpoints(within(t), s.Addr(), "logs", "$Default", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checked {
		if *c.SequenceNumber != int64(sent-1) {
			t.Errorf("checkpoint of partition %s at %d, want %d", c.PartitionID, *c.SequenceNumber, sent-1)
		}
	}
	if len(checked) != processorPartitions {
		t.Errorf("%d checkpoints, want %d", len(checked), processorPartitions)
	}

	c := join(t, s, store, seen, "c")
	publishAndWait(5)
	c.stop()
	seen.check(t, sent)
}

func checkpointStore(t *testing.T) *checkpoints.BlobStore {
	t.Helper()
	endpoint, account, key := localtest.StartAzurite(t)
	cred, err := container.NewSharedKeyCredential(account, key)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := container.NewClientWithSharedKeyCredential(endpoint+"/checkpoints", cred, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.Create(within(t), nil); err != nil {
		t.Fatal(err)
	}
	store, err := checkpoints.NewBlobStore(blobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// eventually waits for what others bring about.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// delivery is one event as a member of the group got it.
type delivery struct {
	member    string
	partition int
	sequence  int64
}

// received gathers what all members got, in the order in which they got it.
type received struct {
	mu  sync.Mutex
	all []delivery
}

func (r *received) add(d delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, d)
}

// behind counts the events below sequence n that nobody got.
func (r *received) behind(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	distinct := map[[2]int64]bool{}
	for _, d := range r.all {
		distinct[[2]int64{int64(d.partition), d.sequence}] = true
	}
	return n*processorPartitions - len(distinct)
}

// partitions counts, by member, the partitions whose event of that sequence number
// and later ones it got.
func (r *received) partitions(sequence int64) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := map[string]map[int]bool{}
	for _, d := range r.all {
		if got[d.member] == nil {
			got[d.member] = map[int]bool{}
		}
		if d.sequence >= sequence {
			got[d.member][d.partition] = true
		}
	}
	counts := map[string]int{}
	for name, set := range got {
		counts[name] = len(set)
	}
	return counts
}

// check holds that each partition's events came without a gap, and that nobody
// began again far behind a checkpoint: after a change of owner only what was
// received and not yet checkpointed may come twice.
func (r *received) check(t *testing.T, n int) {
	t.Helper()
	next := map[int]int64{}
	again := 0
	for _, d := range r.all {
		switch want := next[d.partition]; {
		case d.sequence > want:
			t.Errorf("partition %d: %s got event %d, want %d", d.partition, d.member, d.sequence, want)
		case d.sequence < want:
			again++
		}
		next[d.partition] = max(next[d.partition], d.sequence+1)
	}
	for p := range processorPartitions {
		if next[p] != int64(n) {
			t.Errorf("partition %d: %d events, want %d", p, next[p], n)
		}
	}
	if most := processorPartitions * batchEvents; again > most {
		t.Errorf("%d events came twice, want at most %d", again, most)
	}
	t.Logf("%d deliveries of %d events, %d of them again", len(r.all), n*processorPartitions, again)
}

// batchEvents is how many events a member takes before it sets a checkpoint.
const batchEvents = 5

// member is one processor with the partitions it holds.
type member struct {
	name   string
	seen   *received
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex
	held map[string]bool
}

func join(t *testing.T, s *emulator.Server, store azeventhubs.CheckpointStore, seen *received, name string) *member {
	t.Helper()
	client, err := azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString("logs"), "", "$Default", &azeventhubs.ConsumerClientOptions{RetryOptions: soon})
	if err != nil {
		t.Fatal(err)
	}
	processor, err := azeventhubs.NewProcessor(client, store, &azeventhubs.ProcessorOptions{
		UpdateInterval: 300 * time.Millisecond, PartitionExpirationDuration: 10 * time.Second,
		StartPositions: azeventhubs.StartPositions{Default: azeventhubs.StartPosition{Earliest: to.Ptr(true)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{name: name, seen: seen, cancel: cancel, held: map[string]bool{}}
	m.done.Go(func() {
		defer closeIt(t, client.Close)
		var running sync.WaitGroup
		running.Go(func() {
			if err := processor.Run(ctx); err != nil {
				t.Errorf("%s: run: %v", name, err)
			}
		})
		for {
			p := processor.NextPartitionClient(ctx)
			if p == nil {
				break
			}
			running.Go(func() { m.read(ctx, t, p) })
		}
		running.Wait()
	})
	t.Cleanup(m.stop)
	return m
}

// stop ends the member softly: it gives its partitions up.
func (m *member) stop() {
	m.cancel()
	m.done.Wait()
}

func (m *member) holds() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}

func (m *member) hold(partition string, held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if held {
		m.held[partition] = true
	} else {
		delete(m.held, partition)
	}
}

// read takes events of one partition until it is another's, or the member stops.
func (m *member) read(ctx context.Context, t *testing.T, p *azeventhubs.ProcessorPartitionClient) {
	defer closeIt(t, p.Close)
	m.hold(p.PartitionID(), true)
	defer m.hold(p.PartitionID(), false)
	for {
		wait, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		events, err := p.ReceiveEvents(wait, batchEvents, nil)
		cancel()
		var e *azeventhubs.Error
		switch {
		case ctx.Err() != nil && len(events) == 0, errors.As(err, &e) && e.Code == azeventhubs.ErrorCodeOwnershipLost:
			return
		case err != nil && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			t.Errorf("%s: partition %s: %v", m.name, p.PartitionID(), err)
			return
		case len(events) == 0:
			continue
		}
		for _, event := range events {
			var partition, n int
			if _, err := fmt.Sscanf(string(event.Body), "%d-%d", &partition, &n); err != nil || int64(n) != event.SequenceNumber {
				t.Errorf("event %q at %d: %v", event.Body, event.SequenceNumber, err)
			}
			m.seen.add(delivery{m.name, partition, event.SequenceNumber})
		}
		if err := p.UpdateCheckpoint(context.WithoutCancel(ctx), events[len(events)-1], nil); err != nil {
			t.Errorf("%s: checkpoint of partition %s: %v", m.name, p.PartitionID(), err)
		}
	}
}
