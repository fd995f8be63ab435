package assembly

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	source "github.com/millrace/millrace/pipeline/source/kafka"
	"github.com/millrace/millrace/sinks/kafka"
)

// kafkaName is what manifests call the Kafka sink.
const kafkaName = "kafka"

// kafkaSink is what both kinds of Kafka sink offer.
type kafkaSink interface {
	pipeline.Sink
	Setup(ctx context.Context) error
	Examine(ctx context.Context) (missing []string, err error)
	RegisterLedger(ctx context.Context, name string, shards int, given uint16, allowForeignRows bool) (uint16, error)
	Close() error
}

// openKafka makes the Kafka sink, when there is one; it connects nothing.
func (p *Pipeline) openKafka(cfg config.Config, deps Deps) error {
	p.log = deps.Logger
	if cfg.Kafka == nil {
		return nil
	}
	b, err := cfg.Kafka.Broker()
	if err != nil {
		return fmt.Errorf("kafka.%w", err)
	}
	c, tables, kd := cfg.Kafka.Sink(b), landedTables(cfg), kafka.Deps{Meter: deps.Meter, Logger: deps.Logger}
	if cfg.Kafka.Delivery == config.AtLeastOnce {
		var s *kafka.AtLeastOnce
		if s, err = kafka.NewAtLeastOnce(c, tables, kd); err == nil {
			p.kafka = s
		}
		return err
	}
	var s *kafka.Sink
	if s, err = kafka.New(c, tables, kd); err == nil {
		p.kafka = s
	}
	return err
}

// ExamineKafka asks the brokers of the Kafka sink what a start asks, and makes no
// topic: missing are those that a start would make.
func ExamineKafka(ctx context.Context, cfg config.Config, deps Deps) (missing []string, err error) {
	p := &Pipeline{}
	defer p.Close()
	if err := p.openKafka(cfg, deps); err != nil {
		return nil, err
	}
	return p.kafka.Examine(ctx)
}

// prepareKafka waits for the brokers and checks the topics.
func (p *Pipeline) prepareKafka(ctx context.Context, deps Deps) error {
	if p.kafka == nil {
		return nil
	}
	return patiently(ctx, deps.Logger, "kafka", func() error { return p.kafka.Setup(ctx) })
}

// sinks are what every batch lands in.
func (p *Pipeline) sinks() []engine.NamedSink {
	var sinks []engine.NamedSink
	if p.Sink != nil {
		sinks = append(sinks, engine.NamedSink{Sink: p.Sink})
	}
	if p.kafka != nil {
		sinks = append(sinks, engine.NamedSink{Name: kafkaName, Sink: p.kafka})
	}
	return sinks
}

// checkpoints is where byte ranges are kept beside the ledger: ClickHouse, if there is
// one.
func (p *Pipeline) checkpoints() engine.Checkpoints {
	if p.Sink == nil {
		return nil
	}
	return p.Sink
}

// register makes the ledger known to every target. ClickHouse, where there is one,
// gives the id, and Kafka takes it over.
func (p *Pipeline) register(ctx context.Context, name string, shards int, allowClickHouse, allowKafka bool) (id uint16, err error) {
	if p.Sink != nil {
		err = patiently(ctx, p.log, "target", func() (err error) {
			id, err = p.Sink.RegisterLedger(ctx, name, shards, allowClickHouse)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	if p.kafka == nil {
		return id, nil
	}
	given := id
	err = patiently(ctx, p.log, "kafka", func() (err error) {
		id, err = p.kafka.RegisterLedger(ctx, name, shards, given, allowKafka)
		return err
	})
	return id, err
}

// openTopics makes the sources of the topics; it connects nothing.
func (p *Pipeline) openTopics(cfg config.Config, ignored metric.Int64Counter, deps Deps) error {
	var faults []error
	for i, k := range cfg.KafkaSources {
		b, err := k.Broker()
		if err != nil {
			faults = append(faults, fmt.Errorf("kafka_sources[%d].%w", i, err))
			continue
		}
		s, err := source.New(k.Source(b), source.Deps{Parse: announcements(p.parser.Load, ignored), Meter: deps.Meter, Logger: deps.Logger})
		if err == nil {
			p.topics = append(p.topics, s)
		}
		faults = append(faults, prefixed(err, "kafka_sources[%d]", i))
	}
	return errors.Join(faults...)
}
