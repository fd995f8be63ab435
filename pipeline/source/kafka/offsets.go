package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// commitRegularly commits until stop is closed.
func (s *Source) commitRegularly(client *kgo.Client, stop <-chan struct{}) {
	tick := time.NewTicker(s.cfg.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		s.commit(context.Background(), client)
	}
}

// marks gives what is acknowledged and not committed yet.
func (s *Source) marks() map[int32]position {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[int32]position{}
	for id, p := range s.partitions {
		if at, ok := p.tracker.Mark(); ok && at != p.saved {
			out[id] = at
		}
	}
	return out
}

// commit saves the marks of our partitions. The brokers refuse one whose partition has
// gone to another member; that one reads again what we do not commit.
func (s *Source) commit(ctx context.Context, client *kgo.Client) {
	marks := s.marks()
	if len(marks) == 0 {
		return
	}
	offsets := map[int32]kgo.EpochOffset{}
	for id, at := range marks {
		offsets[id] = kgo.EpochOffset{Offset: at.offset, Epoch: at.epoch}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	var failed error
	client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{s.cfg.Topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			failed = commitError(resp, err)
		})
	if failed != nil {
		s.deps.Logger.Warn("offsets not committed", slog.Any("cause", failed))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range marks {
		if p := s.partitions[id]; p != nil {
			p.saved = at
		}
	}
}

// commitError finds the first refusal in the brokers' answer.
func commitError(resp *kmsg.OffsetCommitResponse, err error) error {
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}

// Flush commits the acknowledgements that came after Run had left the group. Call it
// once more when the pipeline has ended. While others are in the group the brokers
// refuse, and those read again what is not committed.
func (s *Source) Flush(ctx context.Context) error {
	offsets := kadm.Offsets{}
	s.mu.Lock()
	for _, f := range s.former {
		if at, ok := f.partition.tracker.Mark(); ok && at != f.partition.saved {
			offsets.AddOffset(s.cfg.Topic, f.id, at.offset, at.epoch)
			f.partition.saved = at
		}
	}
	s.former = nil
	s.mu.Unlock()
	if len(offsets) == 0 {
		return nil
	}
	client, err := kgo.NewClient(s.options...)
	if err != nil {
		return s.named(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	if err := kadm.NewClient(client).CommitAllOffsets(ctx, s.cfg.Group, offsets); err != nil {
		s.deps.Logger.Warn("offsets not committed: some messages are read again", slog.Any("cause", err))
	}
	return nil
}

// check compares the committed offsets of partitions that we are given with what the
// topic still holds.
func (s *Source) check(ctx context.Context, given map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	client, err := kgo.NewClient(s.options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	committed, err := admin.FetchOffsets(ctx, s.cfg.Group)
	if err != nil {
		return nil, fmt.Errorf("read committed offsets: %w", err)
	}
	first, err := admin.ListStartOffsets(ctx, s.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("read the topic's beginning: %w", err)
	}
	last, err := admin.ListEndOffsets(ctx, s.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("read the topic's end: %w", err)
	}
	for id := range given[s.cfg.Topic] {
		at, known := committed.Lookup(s.cfg.Topic, id)
		from, _ := first.Lookup(s.cfg.Topic, id)
		to, _ := last.Lookup(s.cfg.Topic, id)
		switch {
		case !known || at.At < 0 || from.Err != nil || to.Err != nil:
			continue
		case at.At < from.Offset:
			s.gap(ctx, Gap{Partition: id, Reason: GapExpired, From: at.At, Missing: from.Offset - at.At})
		case at.At > to.Offset:
			s.gap(ctx, Gap{Partition: id, Reason: GapRecreated, From: at.At, Missing: -1})
		default:
			continue
		}
		given[s.cfg.Topic][id] = kgo.NewOffset().At(from.Offset)
	}
	return given, nil
}

// jumped finds out whether retention passed us by while we read: the pipeline was full
// for long.
func (s *Source) jumped(ctx context.Context, client *kgo.Client, id int32, next int64) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	first, err := kadm.NewClient(client).ListStartOffsets(ctx, s.cfg.Topic)
	if err != nil {
		s.deps.Logger.Warn("nobody knows whether messages expired", slog.Any("cause", err))
		return
	}
	if from, ok := first.Lookup(s.cfg.Topic, id); ok && from.Err == nil && from.Offset > next {
		s.gap(ctx, Gap{Partition: id, Reason: GapExpired, From: next, Missing: from.Offset - next})
	}
}

func (s *Source) gap(ctx context.Context, g Gap) {
	s.deps.Logger.Warn("kafka messages were not read", slog.Int("partition", int(g.Partition)), slog.String("reason", string(g.Reason)),
		slog.Int64("from", g.From), slog.Int64("missing", g.Missing))
	s.metrics.gap(ctx, g)
	s.deps.OnGap(g)
}
