package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// The official Go SDK is the judge in this file. Properties are asked through its
// producer: a ConsumerClient that was asked for them leaves a goroutine behind when
// it is closed (azeventhubs v2.0.2).

// soon makes the SDK try again sooner than after its 4 s.
var soon = azeventhubs.RetryOptions{RetryDelay: 50 * time.Millisecond}

func producer(t testing.TB, s *emulator.Server) *azeventhubs.ProducerClient {
	t.Helper()
	p, err := azeventhubs.NewProducerClientFromConnectionString(s.ConnectionString(""), "logs", &azeventhubs.ProducerClientOptions{RetryOptions: soon})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeIt(t, p.Close) })
	return p
}

func consumer(t testing.TB, s *emulator.Server) *azeventhubs.ConsumerClient {
	t.Helper()
	c, err := azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString("logs"), "", "$default", &azeventhubs.ConsumerClientOptions{RetryOptions: soon})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeIt(t, c.Close) })
	return c
}

func closeIt(t testing.TB, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func send(t testing.TB, p *azeventhubs.ProducerClient, opts *azeventhubs.EventDataBatchOptions, bodies ...string) {
	t.Helper()
	batch, err := p.NewEventDataBatch(within(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range bodies {
		e := &azeventhubs.EventData{Body: []byte(b), Properties: map[string]any{"n": int64(i)}, MessageID: to.Ptr(fmt.Sprint("id", i))}
		if err := batch.AddEventData(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.SendEventDataBatch(within(t), batch, nil); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, c *azeventhubs.ConsumerClient, partition string, start azeventhubs.StartPosition, n int) []*azeventhubs.ReceivedEventData {
	t.Helper()
	p, err := c.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: start})
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, p.Close)
	var out []*azeventhubs.ReceivedEventData
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for len(out) < n {
		events, err := p.ReceiveEvents(ctx, n-len(out), nil)
		if err != nil {
			t.Fatalf("received %d of %d events: %v", len(out), n, err)
		}
		out = append(out, events...)
	}
	// One more must not come.
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if events, err := p.ReceiveEvents(ctx, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("an event too many: %v, %v", events, err)
	}
	return out
}

func bodies(events []*azeventhubs.ReceivedEventData) []string {
	var out []string
	for _, e := range events {
		out = append(out, string(e.Body))
	}
	return out
}

func TestGoRoundTrip(t *testing.T) {
	s := start(t, nil)
	p, c := producer(t, s), consumer(t, s)
	before := time.Now().Truncate(time.Millisecond)
	send(t, p, &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("2")}, "a", "b", "c")
	got := receive(t, c, "2", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 3)
	if diff := cmp.Diff([]string{"a", "b", "c"}, bodies(got)); diff != "" {
		t.Fatal(diff)
	}
	for i, e := range got {
		if e.SequenceNumber != int64(i) || e.Offset == "" || e.EnqueuedTime.Before(before) || time.Since(*e.EnqueuedTime) > time.Minute {
			t.Errorf("event %d: sequence %d, offset %q, time %v", i, e.SequenceNumber, e.Offset, e.EnqueuedTime)
		}
		if e.Properties["n"] != int64(i) || *e.MessageID != fmt.Sprint("id", i) || e.PartitionKey != nil {
			t.Errorf("event %d: properties %v, id %v, key %v", i, e.Properties, e.MessageID, e.PartitionKey)
		}
	}
}

func TestGoStartPositions(t *testing.T) {
	s := start(t, nil)
	p, c := producer(t, s), consumer(t, s)
	for _, b := range []string{"a", "b", "c", "d"} {
		send(t, p, &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("0")}, b)
		time.Sleep(3 * time.Millisecond) // each event in a millisecond of its own
	}
	all := receive(t, c, "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 4)
	b := all[1]
	tests := []struct {
		name string
		pos  azeventhubs.StartPosition
		want []string
	}{
		{"offset", azeventhubs.StartPosition{Offset: &b.Offset}, []string{"c", "d"}},
		{"offset inclusive", azeventhubs.StartPosition{Offset: &b.Offset, Inclusive: true}, []string{"b", "c", "d"}},
		{"sequence", azeventhubs.StartPosition{SequenceNumber: &b.SequenceNumber}, []string{"c", "d"}},
		{"sequence inclusive", azeventhubs.StartPosition{SequenceNumber: &b.SequenceNumber, Inclusive: true}, []string{"b", "c", "d"}},
		{"sequence of the last", azeventhubs.StartPosition{SequenceNumber: to.Ptr(int64(3))}, nil},
		{"sequence of the next", azeventhubs.StartPosition{SequenceNumber: to.Ptr(int64(4)), Inclusive: true}, nil},
		{"time", azeventhubs.StartPosition{EnqueuedTime: b.EnqueuedTime}, []string{"c", "d"}},
		{"time inclusive", azeventhubs.StartPosition{EnqueuedTime: b.EnqueuedTime, Inclusive: true}, []string{"b", "c", "d"}},
		{"time before all", azeventhubs.StartPosition{EnqueuedTime: to.Ptr(b.EnqueuedTime.Add(-time.Hour))}, []string{"a", "b", "c", "d"}},
		{"time after all", azeventhubs.StartPosition{EnqueuedTime: to.Ptr(b.EnqueuedTime.Add(time.Hour))}, nil},
		{"latest", azeventhubs.StartPosition{Latest: to.Ptr(true)}, nil},
		{"latest inclusive", azeventhubs.StartPosition{Latest: to.Ptr(true), Inclusive: true}, []string{"d"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := bodies(receive(t, c, "0", tt.pos, len(tt.want)))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGoPositionBeyondTheEnd(t *testing.T) {
	s := start(t, nil)
	c := consumer(t, s)
	for _, pos := range []azeventhubs.StartPosition{
		{SequenceNumber: to.Ptr(int64(7))}, {SequenceNumber: to.Ptr(int64(7)), Inclusive: true}, {Offset: to.Ptr("900")},
	} {
		p, err := c.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: pos})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.ReceiveEvents(within(t), 1, nil)
		wantCondition(t, err, "com.microsoft:argument-out-of-range")
		closeIt(t, p.Close)
	}
}

func wantCondition(t testing.TB, err error, condition string) {
	t.Helper()
	// The SDK does not let errors.As through to the AMQP error in every case.
	if err == nil || !strings.Contains(err.Error(), "Condition: "+condition+",") {
		t.Errorf("error %v, want condition %q", err, condition)
	}
}

func TestGoProperties(t *testing.T) {
	s := start(t, nil)
	p, c := producer(t, s), consumer(t, s)
	hub, err := p.GetEventHubProperties(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "3"}, hub.PartitionIDs); diff != "" || hub.Name != "logs" || time.Since(hub.CreatedOn) > time.Minute || hub.GeoReplicationEnabled {
		t.Errorf("hub %+v %s", hub, diff)
	}
	empty, err := p.GetPartitionProperties(within(t), "1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !empty.IsEmpty || empty.LastEnqueuedSequenceNumber != -1 || empty.LastEnqueuedOffset != "-1" || empty.BeginningSequenceNumber != 0 {
		t.Errorf("empty partition %+v", empty)
	}
	send(t, p, &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("1")}, "a", "b", "c")
	if err := s.Expire("logs", 1, 1); err != nil {
		t.Fatal(err)
	}
	got, err := p.GetPartitionProperties(within(t), "1", nil)
	if err != nil {
		t.Fatal(err)
	}
	last := receive(t, c, "1", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 2)[1]
	want := azeventhubs.PartitionProperties{
		EventHubName: "logs", PartitionID: "1", BeginningSequenceNumber: 1, LastEnqueuedSequenceNumber: 2,
		LastEnqueuedOffset: last.Offset, LastEnqueuedOn: *last.EnqueuedTime,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := p.GetPartitionProperties(within(t), "9", nil); err == nil {
		t.Error("properties of a partition that does not exist")
	}
}

func TestGoPartitionKeys(t *testing.T) {
	s := start(t, nil)
	p, c := producer(t, s), consumer(t, s)
	seen := map[string]string{}
	for i := range 12 {
		key := fmt.Sprint("key-", i%6)
		send(t, p, &azeventhubs.EventDataBatchOptions{PartitionKey: &key}, key)
	}
	total := 0
	for id := range 4 {
		n := kept(t, p, fmt.Sprint(id))
		total += n
		for _, e := range receive(t, c, fmt.Sprint(id), azeventhubs.StartPosition{Earliest: to.Ptr(true)}, n) {
			if e.PartitionKey == nil || *e.PartitionKey != string(e.Body) {
				t.Errorf("event %q has key %v", e.Body, e.PartitionKey)
			}
			if before := seen[string(e.Body)]; before != "" && before != fmt.Sprint(id) {
				t.Errorf("key %q in partitions %s and %d", e.Body, before, id)
			}
			seen[string(e.Body)] = fmt.Sprint(id)
		}
	}
	if total != 12 || len(seen) != 6 {
		t.Errorf("%d events with %d keys, want 12 with 6", total, len(seen))
	}
}

// kept gives the number of events in the partition, by its properties.
func kept(t testing.TB, p *azeventhubs.ProducerClient, id string) int {
	t.Helper()
	props, err := p.GetPartitionProperties(within(t), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return int(props.LastEnqueuedSequenceNumber - props.BeginningSequenceNumber + 1)
}

func TestGoInTurn(t *testing.T) {
	s := start(t, nil)
	p := producer(t, s)
	for range 8 {
		send(t, p, nil, "x", "y")
	}
	for id := range 4 {
		if n := kept(t, p, fmt.Sprint(id)); n != 4 {
			t.Errorf("partition %d holds %d events, want 4", id, n)
		}
	}
}

// TestGoLargeBatch sends a batch and an event that take many frames each way.
func TestGoLargeBatch(t *testing.T) {
	s := start(t, func(c *emulator.Config) { c.MaxFrameSize = 4096 })
	p, c := producer(t, s), consumer(t, s)
	big := string(bytes.Repeat([]byte("0123456789abcdef"), 50_000))
	opts := &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("3")}
	send(t, p, opts, big)
	var want []string
	for i := range 500 {
		want = append(want, fmt.Sprint(i, "-", big[:1000]))
	}
	send(t, p, opts, want...)
	got := bodies(receive(t, c, "3", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 501))
	if got[0] != big {
		t.Errorf("the large event came back with %d bytes, want %d", len(got[0]), len(big))
	}
	if diff := cmp.Diff(want, got[1:]); diff != "" {
		t.Error(diff)
	}
}

func TestGoBatchSizeLimit(t *testing.T) {
	s := start(t, func(c *emulator.Config) { c.MaxMessageSize = 10_000 })
	p := producer(t, s)
	batch, err := p.NewEventDataBatch(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = batch.AddEventData(&azeventhubs.EventData{Body: make([]byte, 10_000)}, nil)
	if !errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
		t.Errorf("error %v, want too large: the attach frame must tell the limit", err)
	}
}

func TestGoNotFound(t *testing.T) {
	s := start(t, nil)
	p := producer(t, s)
	_, err := p.NewEventDataBatch(within(t), &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("4")})
	wantCondition(t, err, "com.microsoft:argument-out-of-range")

	other, err := azeventhubs.NewProducerClientFromConnectionString(s.ConnectionString(""), "absent", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, other.Close)
	_, err = other.NewEventDataBatch(within(t), nil)
	wantCondition(t, err, "amqp:not-found")
	if _, err := other.GetEventHubProperties(within(t), nil); err == nil {
		t.Error("properties of a hub that does not exist")
	}

	c, err := azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString("logs"), "", "absent", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, c.Close)
	pc, err := c.NewPartitionClient("0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, pc.Close)
	_, err = pc.ReceiveEvents(within(t), 1, nil)
	wantCondition(t, err, "amqp:not-found")
}

func TestGoConsumerGroups(t *testing.T) {
	s := start(t, nil)
	send(t, producer(t, s), &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("0")}, "a")
	for _, group := range []string{"$Default", "SECOND"} {
		c, err := azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString("logs"), "", group, nil)
		if err != nil {
			t.Fatal(err)
		}
		receive(t, c, "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 1)
		closeIt(t, c.Close)
	}
}

// TestGoOwnerLevel: a receiver loses its link to one of a higher level, and cannot
// come back with a lower one.
func TestGoOwnerLevel(t *testing.T) {
	s := start(t, nil)
	send(t, producer(t, s), &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("0")}, "a")
	open := func(level *int64) *azeventhubs.PartitionClient {
		c, err := azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString("logs"), "", "$Default", &azeventhubs.ConsumerClientOptions{
			RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1}, // the SDK would try a refused link again
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeIt(t, c.Close) })
		p, err := c.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{
			OwnerLevel: level, StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeIt(t, p.Close) })
		return p
	}
	none, first, second := open(nil), open(to.Ptr(int64(1))), open(to.Ptr(int64(2)))
	receiveOne := func(p *azeventhubs.PartitionClient) {
		t.Helper()
		if _, err := p.ReceiveEvents(within(t), 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	lost := func(p *azeventhubs.PartitionClient) {
		t.Helper()
		_, err := p.ReceiveEvents(within(t), 1, nil)
		var e *azeventhubs.Error
		if !errors.As(err, &e) || e.Code != azeventhubs.ErrorCodeOwnershipLost {
			t.Errorf("error %v, want ownership lost", err)
		}
	}
	receiveOne(none)
	receiveOne(first)
	lost(none)
	receiveOne(second)
	lost(first)
	for _, lower := range []*int64{to.Ptr(int64(1)), nil} {
		_, err := open(lower).ReceiveEvents(within(t), 1, nil)
		wantCondition(t, err, "amqp:link:stolen")
	}
	receiveOne(open(to.Ptr(int64(2)))) // the same level takes over as well
	lost(second)
	if n := s.Stats().LinksStolen; n != 3 {
		t.Errorf("%d links stolen, want 3", n)
	}
}

func TestGoAuthorization(t *testing.T) {
	s := start(t, func(c *emulator.Config) { c.Key = "c2VjcmV0" })
	send(t, producer(t, s), &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("0")}, "a")
	receive(t, consumer(t, s), "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 1)
	if _, err := producer(t, s).GetEventHubProperties(within(t), nil); err != nil {
		t.Error(err)
	}
	bad := strings.Replace(s.ConnectionString("logs"), "c2VjcmV0", "d3Jvbmc=", 1)
	p, err := azeventhubs.NewProducerClientFromConnectionString(bad, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, p.Close)
	_, err = p.NewEventDataBatch(within(t), nil)
	var e *azeventhubs.Error
	if !errors.As(err, &e) || e.Code != azeventhubs.ErrorCodeUnauthorizedAccess {
		t.Errorf("error %v, want unauthorized", err)
	}
}
