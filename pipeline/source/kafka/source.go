package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/lowwater"
)

const (
	// pollRecords is how many messages are handed over at one time.
	pollRecords = 500
	// retryPause is what lies between two tries when the brokers answer with errors
	// that the client does not mend by itself.
	retryPause = time.Second
	// sessionTimeout is how long the group waits for a member that gives no sign of
	// life; meanwhile nobody reads the partitions of the dead one.
	sessionTimeout = 15 * time.Second
	// leavePatience bounds leaving the group. Who does not leave is thrown out after the
	// session timeout.
	leavePatience = 3 * time.Second
)

// Source reads one topic. It implements pipeline.Source.
type Source struct {
	cfg     Config
	deps    Deps
	options []kgo.Opt // of every client
	metrics *metrics

	mu         sync.Mutex
	partitions map[int32]*partition // those that the group has given us
	former     []former             // those that it has taken away
}

// former is a partition that is not ours any more.
type former struct {
	id        int32
	partition *partition
}

// partition is one partition for as long as it is ours.
type partition struct {
	tracker *lowwater.Tracker[position]
	next    int64    // offset behind the last message that was read; -1 before the first
	saved   position // what was committed last
}

// position is the place behind an acknowledged message: what is committed.
type position struct {
	offset int64
	epoch  int32
}

var _ pipeline.Source = (*Source)(nil)

// New makes a source. It connects nothing.
func New(cfg Config, deps Deps) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Parse == nil {
		panic("BUG: kafka: a source without Parse")
	}
	s := &Source{cfg: cfg, deps: deps.withDefaults(), partitions: map[int32]*partition{}}
	s.deps.Logger = s.deps.Logger.With(slog.String("topic", cfg.Topic), slog.String("group", cfg.Group))
	var err error
	if s.options, err = cfg.Broker.Options(s.deps.Logger); err == nil {
		s.metrics, err = newMetrics(s)
	}
	if err != nil {
		return nil, s.named(err)
	}
	return s, nil
}

func (s *Source) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("kafka topic %q: %w", s.cfg.Topic, err)
}

// Run reads the partitions that the group gives it until ctx ends. Acknowledgements
// may come after it has returned; Flush commits them.
//
// Errors: the brokers refuse us, or do not know the topic, at the first try. Later the
// same trouble is taken for passing.
func (s *Source) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	client, err := kgo.NewClient(slices.Concat(s.consumer(), s.options, []kgo.Opt{kgo.WithContext(life)})...)
	if err != nil {
		return s.named(err)
	}
	defer client.Close()
	defer end() // before: what still waits for the group is given up
	if err := s.known(ctx, kadm.NewClient(client)); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before the brokers answered
		}
		return s.named(err)
	}
	stop := make(chan struct{})
	var committer sync.WaitGroup
	committer.Go(func() { s.commitRegularly(client, stop) })
	err = s.poll(ctx, client, emit)
	close(stop)
	committer.Wait()
	// Leaving hands the partitions on, which commits them. While the group waits for a
	// member that was killed, the brokers answer nobody.
	leaving, cancel := context.WithTimeout(life, leavePatience)
	defer cancel()
	if leaveErr := client.LeaveGroupContext(leaving); leaveErr != nil {
		s.deps.Logger.Warn("left the group without a word", slog.Any("cause", leaveErr))
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Source) consumer() []kgo.Opt {
	start := kgo.NewOffset().AtStart()
	if s.cfg.Start == StartLatest {
		start = kgo.NewOffset().AtEnd()
	}
	return []kgo.Opt{
		kgo.ConsumerGroup(s.cfg.Group), kgo.ConsumeTopics(s.cfg.Topic), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(sessionTimeout), kgo.RebalanceTimeout(sessionTimeout),
		kgo.ConsumeStartOffset(start),
		// An offset that has expired goes on with what is still there.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.AdjustFetchOffsetsFn(s.check),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, given map[string][]int32) { s.assigned(given[s.cfg.Topic]) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, c *kgo.Client, taken map[string][]int32) {
			s.commit(ctx, c)
			s.lost(taken[s.cfg.Topic])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, taken map[string][]int32) { s.lost(taken[s.cfg.Topic]) }),
	}
}

// known asks for the topic until the brokers answer.
//
// Errors: they refuse us or do not know it.
func (s *Source) known(ctx context.Context, admin *kadm.Client) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
		details, err := admin.ListTopics(bounded, s.cfg.Topic)
		cancel()
		if err == nil {
			err = details[s.cfg.Topic].Err
		}
		if err == nil || errors.Is(err, kerr.UnknownTopicOrPartition) || refused(err) {
			return remedy(err)
		}
		s.deps.Logger.Warn("kafka does not answer", slog.Any("cause", err))
		if err := pipeline.Wait(ctx, retryPause); err != nil {
			return err
		}
	}
}

// poll hands messages on until ctx ends.
func (s *Source) poll(ctx context.Context, client *kgo.Client, emit func(context.Context, pipeline.Delivery) error) error {
	for {
		fetches := client.PollRecords(ctx, pollRecords)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, r := range fetches.Records() {
			if err := s.give(ctx, client, r, emit); err != nil {
				return err
			}
		}
		if s.skipTooLarge(ctx, client, fetches) {
			continue
		}
		if err := fetches.Err(); err != nil {
			s.metrics.troubles.Add(ctx, 1, s.metrics.topic)
			s.deps.Logger.Warn("kafka partition is not read", slog.Any("cause", err))
			if err := pipeline.Wait(ctx, retryPause); err != nil {
				return err
			}
		}
	}
}

// skipTooLarge goes on behind batches that the client does not inflate. A partition
// that is taken away meanwhile is left alone: whoever gets it meets the batch again.
func (s *Source) skipTooLarge(ctx context.Context, client *kgo.Client, fetches kgo.Fetches) (skipped bool) {
	fetches.EachError(func(topic string, id int32, err error) {
		var large *kgo.ErrDecompressTooLarge
		if !errors.As(err, &large) {
			return
		}
		skipped = true
		s.gap(ctx, Gap{Partition: id, Reason: GapTooLarge, From: large.Offset, Missing: large.NextOffset - large.Offset})
		s.mu.Lock()
		if p := s.partitions[id]; p != nil {
			p.next = large.NextOffset
		}
		s.mu.Unlock()
		client.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {id: {Epoch: large.Epoch, Offset: large.NextOffset}}})
	})
	return skipped
}

// give hands one message on. One of a partition that is not ours any more is dropped.
func (s *Source) give(ctx context.Context, client *kgo.Client, r *kgo.Record, emit func(context.Context, pipeline.Delivery) error) error {
	s.mu.Lock()
	p := s.partitions[r.Partition]
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	// Offsets that belong to ends of transactions, one each, are never seen.
	if p.next >= 0 && r.Offset > p.next+1 {
		s.jumped(ctx, client, r.Partition, p.next)
	}
	p.next = r.Offset + 1
	m, err := p.tracker.Begin(ctx, position{offset: r.Offset + 1, epoch: r.LeaderEpoch})
	if err != nil {
		return err
	}
	s.metrics.received(ctx, r)
	found := s.deps.Parse(r.Value)
	if len(found) == 0 {
		p.tracker.Done(m)
		return nil
	}
	return emit(ctx, pipeline.Delivery{Announcements: found, Ack: func() { p.tracker.Done(m) }})
}

// assigned takes partitions over.
func (s *Source) assigned(given []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range given {
		s.partitions[id] = &partition{tracker: lowwater.New[position](s.cfg.MaxUnacknowledged), next: -1}
		s.former = slices.DeleteFunc(s.former, func(f former) bool { return f.id == id })
	}
}

// lost lets partitions go. What is acknowledged of them later may still be committed
// by Flush, if nobody else has joined the group.
func (s *Source) lost(taken []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range taken {
		if p := s.partitions[id]; p != nil {
			s.former = append(s.former, former{id: id, partition: p})
			delete(s.partitions, id)
		}
	}
}
