package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/broker"
)

// hopeless are answers that no retry mends, with what to do.
var hopeless = map[error]string{
	kerr.TopicAuthorizationFailed:           "grant READ, WRITE, DESCRIBE and DESCRIBE_CONFIGS on the topics to the user",
	kerr.TransactionalIDAuthorizationFailed: "grant WRITE and DESCRIBE on transactional ids that begin with the progress topic's name",
	kerr.ClusterAuthorizationFailed:         "grant the user IDEMPOTENT_WRITE on the cluster",
	kerr.GroupAuthorizationFailed:           "grant READ on the group to the user",
	kerr.InvalidTransactionTimeout:          "transaction_timeout is above the brokers' transaction.max.timeout.ms: lower it",
	kerr.UnknownTopicOrPartition:            "a topic is missing: start the pipeline again to create it, or create it by hand",
	kerr.MessageTooLarge:                    "raise max.message.bytes of the topic",
	kerr.RecordListTooLarge:                 "raise max.message.bytes of the topic",
	kerr.UnsupportedForMessageFormat:        "the topic's message format is too old for transactions",
	kerr.UnsupportedVersion:                 "the brokers are too old, or have no transactions: use delivery at-least-once",
	kerr.PolicyViolation:                    "the brokers' policy refuses the topic: create it by hand",
	kerr.InvalidReplicationFactor:           "replication asks for more copies than there are brokers",
}

// classify says what a failed question, or a write that did not commit, came to.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if advice := broker.Advice(err); advice != "" {
		return fmt.Errorf("%w: %s", err, advice)
	}
	for cause, hint := range hopeless {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %s", err, hint)
		}
	}
	return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
}

// shutOut says that another writer with our transactional id has begun.
func shutOut(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) ||
		errors.Is(err, kerr.InvalidProducerIDMapping) || errors.Is(err, kerr.InvalidTxnState)
}

// bounded gives a context for one question.
func (c Config) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.RequestTimeout, fmt.Errorf("the brokers did not answer within %v", c.RequestTimeout))
}
