package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Examine asserts what Setup does, and makes no topic: missing are those that Setup
// would make. It also asks whether transactions are possible, by beginning to write
// under a transactional id that nobody else uses; brokers forget it after
// transactional.id.expiration.ms. Nothing else is written.
//
// Errors: as Setup.
func (s *Sink) Examine(ctx context.Context) (missing []string, err error) {
	missing, err = s.examine(ctx, kadm.NewClient(s.progress.client), true)
	if err != nil {
		return missing, err
	}
	x, err := begin(ctx, s.config, s.options, s.transactionalID("check"))
	if err == nil {
		x.close()
	}
	return missing, err
}

// Examine is that of Sink, without transactions and their progress topic.
func (s *AtLeastOnce) Examine(ctx context.Context) (missing []string, err error) {
	return s.examine(ctx, kadm.NewClient(s.client), false)
}

func (t *target) examine(ctx context.Context, admin *kadm.Client, progress bool) (missing []string, err error) {
	topics := t.topics(progress)
	if !t.config.CreateTopics {
		return nil, t.assert(ctx, admin, topics, progress)
	}
	bounded, cancel := t.config.bounded(ctx)
	defer cancel()
	var there []string
	for _, topic := range topics {
		_, err := describe(bounded, admin, topic)
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			missing = append(missing, topic)
		case err != nil:
			return nil, fmt.Errorf("topic %q: %w", topic, classify(err))
		default:
			there = append(there, topic)
		}
	}
	return missing, t.assert(ctx, admin, there, progress)
}
