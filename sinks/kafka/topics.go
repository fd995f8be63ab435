package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
)

// progressSettings make a progress topic: small segments, so that compaction keeps it
// short, and a restart reads little.
var progressSettings = map[string]*string{
	"cleanup.policy":            text("compact"),
	"segment.bytes":             text(strconv.Itoa(16 << 20)),
	"min.cleanable.dirty.ratio": text("0.1"),
}

func text(s string) *string { return &s }

// topicFacts is what is known of a topic.
type topicFacts struct {
	replicas int
	settings map[string]string
}

// Setup creates what is missing, if the configuration allows it, and asserts what
// the promise needs of the topics. Run twice, the second run changes nothing.
//
// Errors: every fault at once, each with its remedy; ErrTransient when no broker
// answers.
func (s *Sink) Setup(ctx context.Context) error {
	admin := kadm.NewClient(s.progress.client)
	return s.setup(ctx, admin, true)
}

// Setup is that of Sink, without a progress topic.
func (s *AtLeastOnce) Setup(ctx context.Context) error {
	return s.setup(ctx, kadm.NewClient(s.client), false)
}

func (t *target) setup(ctx context.Context, admin *kadm.Client, progress bool) error {
	return t.assert(ctx, admin, t.topics(progress), progress)
}

// topics are those of the tables, and the progress topic.
func (t *target) topics(progress bool) []string {
	topics := slices.Compact(slices.Sorted(maps.Values(t.config.Topics)))
	if progress {
		topics = append(topics, t.config.ProgressTopic)
	}
	return topics
}

// assert makes those topics that are missing, and checks all of them.
func (t *target) assert(ctx context.Context, admin *kadm.Client, topics []string, progress bool) error {
	ctx, cancel := t.config.bounded(ctx)
	defer cancel()
	wrap := func(err error) error {
		if why := context.Cause(ctx); why != nil {
			err = fmt.Errorf("%w: %w", pipeline.ErrTransient, why)
		}
		return fmt.Errorf("check the topics: %w", err)
	}
	facts, err := t.ensure(ctx, admin, topics)
	if err != nil {
		return wrap(err)
	}
	var faults []error
	for _, topic := range topics {
		if topic == t.config.ProgressTopic && progress {
			faults = append(faults, t.checkProgress(facts[topic]))
		} else {
			faults = append(faults, checkRows(topic, facts[topic]))
		}
		t.advise(topic, facts[topic])
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("check the topics:\n%w", err)
	}
	return nil
}

// ensure gives the facts of all topics, after creating those that are missing.
func (t *target) ensure(ctx context.Context, admin *kadm.Client, topics []string) (map[string]topicFacts, error) {
	var faults []error
	for _, topic := range topics {
		_, err := describe(ctx, admin, topic)
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			err = t.create(ctx, admin, topic)
		case broker.Advice(err) != "": // so it would be with the others
			return nil, classify(err)
		case err != nil:
			err = fmt.Errorf("topic %q: %w", topic, classify(err))
		}
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	// The client remembers for a while that a topic was missing. Once all are made, that
	// is waited for once.
	facts := map[string]topicFacts{}
	for _, topic := range topics {
		var d kadm.TopicDetail
		err := untilKnown(ctx, func() (err error) {
			d, err = describe(ctx, admin, topic)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("topic %q: %w", topic, err)
		}
		facts[topic] = topicFacts{replicas: d.Partitions.NumReplicas(), settings: map[string]string{}}
		var c kadm.ResourceConfig
		err = untilKnown(ctx, func() error {
			configs, err := admin.DescribeTopicConfigs(ctx, topic)
			if err == nil {
				c, err = configs.On(topic, nil)
			}
			return errors.Join(err, c.Err)
		})
		if err != nil {
			return nil, fmt.Errorf("topic %q: settings: %w", topic, err)
		}
		for _, setting := range c.Configs {
			facts[topic].settings[setting.Key] = setting.MaybeValue()
		}
	}
	return facts, nil
}

// describe tells of a topic that has a leader for each partition.
func describe(ctx context.Context, admin *kadm.Client, topic string) (kadm.TopicDetail, error) {
	details, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, err
	}
	d := details[topic]
	err = d.Err
	for _, p := range d.Partitions {
		err = errors.Join(err, p.Err)
	}
	return d, err
}

// untilKnown asks until the brokers know of a topic that has just been made: they
// hear of it one after the other.
func untilKnown(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.LeaderNotAvailable) {
			return classify(err)
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", pipeline.ErrTransient, context.Cause(ctx))
		}
	}
}

func (t *target) create(ctx context.Context, admin *kadm.Client, topic string) error {
	partitions, settings := t.config.Partitions, map[string]*string(nil)
	if topic == t.config.ProgressTopic {
		partitions, settings = 1, progressSettings
	}
	if !t.config.CreateTopics {
		return fmt.Errorf("topic %q is missing: create it, or set create_topics", topic)
	}
	resp, err := admin.CreateTopic(ctx, partitions, t.config.Replication, settings, topic)
	if err == nil {
		err = resp.Err
	}
	switch {
	case errors.Is(err, kerr.TopicAlreadyExists): // another pipeline was quicker
		return nil
	case err != nil:
		return fmt.Errorf("create topic %q: %w", topic, classify(err))
	}
	t.log.Info("created a topic", slog.String("topic", topic), slog.Int("partitions", int(partitions)))
	return nil
}

// checkProgress wants a topic that forgets nothing but what was replaced.
func (t *target) checkProgress(f topicFacts) error {
	if policy := f.settings["cleanup.policy"]; policy != "compact" {
		return fmt.Errorf("topic %q: cleanup.policy is %q, want compact: what has landed would be forgotten, and land again", t.config.ProgressTopic, policy)
	}
	return nil
}

// checkRows wants a topic that keeps every row, and takes what a client sends.
func checkRows(topic string, f topicFacts) error {
	var faults []error
	if policy := f.settings["cleanup.policy"]; strings.Contains(policy, "compact") {
		faults = append(faults, fmt.Errorf("topic %q: cleanup.policy is %q, want delete: compaction removes rows with the same key", topic, policy))
	}
	if n, err := strconv.Atoi(f.settings["max.message.bytes"]); err == nil && n < minMessageBytes {
		faults = append(faults, fmt.Errorf("topic %q: max.message.bytes is %d, want at least %d", topic, n, minMessageBytes))
	}
	return errors.Join(faults...)
}

// advise warns of topics that a lost broker can take with it.
func (t *target) advise(topic string, f topicFacts) {
	isr := f.settings["min.insync.replicas"]
	switch {
	case f.replicas == 1:
		t.log.Warn("a topic has one copy: what is lost with its broker does not land again", slog.String("topic", topic))
	case f.replicas > 1 && isr == "1":
		t.log.Warn("a topic confirms rows with one copy in sync: set min.insync.replicas to 2", slog.String("topic", topic), slog.Int("copies", f.replicas))
	}
}
