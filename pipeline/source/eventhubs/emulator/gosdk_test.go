package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// The official Go SDK is the judge in this file.

func producer(t testing.TB, s *emulator.Server) *azeventhubs.ProducerClient {
	t.Helper()
	p, err := azeventhubs.NewProducerClientFromConnectionString(s.ConnectionString(""), "logs", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeIt(t, p.Close) })
	return p
}

func consumer(t testing.TB, s *emulator.Server) *azeventhubs.ConsumerClient {
	t.Helper()
	c, err := azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString("logs"), "", "$default", nil)
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
