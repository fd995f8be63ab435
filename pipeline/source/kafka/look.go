package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
)

// lookTime is how long Look reads.
const lookTime = time.Second

// Look asks the brokers whether the topic and the group may be read, and gives the
// number of partitions. It joins no group, and commits nothing.
//
// Errors: each with what to do.
func Look(ctx context.Context, cfg Config, deps Deps) (partitions int, err error) {
	s := &Source{cfg: cfg, deps: deps.withDefaults()}
	if s.options, err = cfg.Broker.Options(s.deps.Logger); err != nil {
		return 0, s.named(err)
	}
	client, err := kgo.NewClient(slices.Concat(s.options, []kgo.Opt{kgo.ConsumeTopics(cfg.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd())})...)
	if err != nil {
		return 0, s.named(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	details, err := admin.ListTopics(ctx, cfg.Topic)
	if err == nil {
		err = details[cfg.Topic].Err
	}
	if err != nil {
		return 0, s.named(remedy(err))
	}
	// Only reading shows that it is allowed.
	reading, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if err := client.PollFetches(reading).Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return 0, s.named(remedy(err))
	}
	for {
		committed, err := admin.FetchOffsets(ctx, cfg.Group)
		if err == nil {
			err = committed.Error()
		}
		// A cluster that has had no group yet is making the topic for their offsets.
		if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.NotCoordinator) || pipeline.Wait(ctx, retryPause) != nil {
			return len(details[cfg.Topic].Partitions), s.named(remedy(err))
		}
	}
}

// refused says that no further try helps.
func refused(err error) bool {
	return broker.Advice(err) != "" || errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed)
}

// remedy says what to do about what the brokers answered.
func remedy(err error) error {
	advice := broker.Advice(err)
	switch {
	case err == nil:
		return nil
	case advice != "":
		return fmt.Errorf("%w: %s", err, advice)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("%w: create it, or correct its name", err)
	case refused(err):
		return fmt.Errorf("%w: grant the user READ on the topic and the group", err)
	}
	return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
}
