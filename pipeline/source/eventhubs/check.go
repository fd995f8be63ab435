package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// Report is what a look at a hub found.
type Report struct {
	Partitions int
	// Behind is how many messages are behind the checkpoints, over all partitions; 0
	// without checkpoints.
	Behind int64
	// Expired is how many of those are gone already, unread.
	Expired int64
	// Recreated: the hub was made anew since the checkpoints were written.
	Recreated bool
	// Oldest is when the oldest message that the hub still has came, Unread when the
	// first one came that is not acknowledged, both of the partition that is furthest
	// behind; zero when nothing is.
	Oldest, Unread time.Time
}

// Look connects to the hub, asks about every partition, opens a link as a reader of
// the consumer group, and compares checkpoints, which may be none, with what the hub
// holds. It changes nothing and takes no partition from anybody.
//
// Errors: the hub cannot be reached, is not there, or may not be read.
func Look(ctx context.Context, cfg Config, saved map[string]Checkpoint) (Report, error) {
	var r Report
	hub, err := cfg.entity()
	if err != nil {
		return r, err
	}
	c, err := newClient(cfg, hub)
	if err != nil {
		return r, err
	}
	defer c.close()
	props, err := c.hub(ctx)
	if err != nil {
		return r, err
	}
	r.Partitions = len(props.PartitionIDs)
	worst, most := "", int64(0)
	for _, id := range props.PartitionIDs {
		p, err := c.partition(ctx, id)
		if err != nil {
			return r, fmt.Errorf("partition %s: %w", id, err)
		}
		behind := r.compare(saved, id, props.CreatedOn, p)
		if behind > most {
			worst, most = id, behind
		}
	}
	if worst != "" {
		after := saved[worst].Sequence
		if r.Oldest, err = arrival(ctx, c, cfg, worst, nil); err == nil {
			r.Unread, err = arrival(ctx, c, cfg, worst, &after)
		}
		return r, err
	}
	if len(props.PartitionIDs) > 0 {
		return r, mayListen(ctx, c, props.PartitionIDs[0])
	}
	return r, nil
}

// compare adds one partition and says how far its checkpoint is behind.
func (r *Report) compare(saved map[string]Checkpoint, id string, created time.Time, p azeventhubs.PartitionProperties) int64 {
	mark, ok := saved[id]
	switch {
	case !ok:
		return 0
	case !mark.Created.IsZero() && !mark.Created.Equal(created):
		r.Recreated = true
		return 0
	}
	first := p.BeginningSequenceNumber
	if p.IsEmpty {
		first = p.LastEnqueuedSequenceNumber + 1
	}
	r.Expired += max(0, first-mark.Sequence-1)
	r.Behind += max(0, p.LastEnqueuedSequenceNumber-mark.Sequence)
	return max(0, p.LastEnqueuedSequenceNumber-max(mark.Sequence, first-1))
}

// arrival gives when the first message behind a position came.
func arrival(ctx context.Context, c *client, cfg Config, id string, after *int64) (time.Time, error) {
	pc, err := c.open(cfg, id, after)
	if err != nil {
		return time.Time{}, err
	}
	defer closeLink(ctx, pc)
	events, err := pc.ReceiveEvents(ctx, 1, nil)
	if err != nil || len(events) == 0 || events[0].EnqueuedTime == nil {
		return time.Time{}, err
	}
	return *events[0].EnqueuedTime, nil
}

// admitted is how long a link is held that nothing comes over: a refusal comes at
// once.
const admitted = time.Second

// mayListen opens a link at the end of a partition.
func mayListen(ctx context.Context, c *client, id string) error {
	latest := true
	pc, err := c.receive.NewPartitionClient(id, &azeventhubs.PartitionClientOptions{
		StartPosition: azeventhubs.StartPosition{Latest: &latest}, Prefetch: -1,
	})
	if err != nil {
		return err
	}
	defer closeLink(ctx, pc)
	wait, cancel := context.WithTimeout(ctx, admitted)
	defer cancel()
	_, err = pc.ReceiveEvents(wait, 1, nil)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	return err
}

func closeLink(ctx context.Context, pc *azeventhubs.PartitionClient) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	_ = pc.Close(ctx) // there is nobody to tell
}
