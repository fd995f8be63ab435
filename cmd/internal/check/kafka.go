package check

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline"
	source "github.com/millrace/millrace/pipeline/source/kafka"
)

// quiet is for clients that would log what the findings say.
var quiet = slog.New(slog.DiscardHandler)

// kafka asks the brokers of the sink what a start asks.
func (r *run) kafka(ctx context.Context) {
	const key = "kafka"
	missing, err := assembly.ExamineKafka(ctx, r.cfg, assembly.Deps{Meter: noop.Meter{}, Logger: quiet})
	if err != nil {
		r.broker(ctx, key, strings.TrimSpace(strings.TrimPrefix(err.Error(), "check the topics:")), err)
		return
	}
	if len(missing) > 0 {
		r.add(Warn, key+".topics", "not there yet, and made at the first start: %s", strings.Join(missing, ", "))
	}
	promise := "transactions are possible"
	if r.cfg.Kafka.Delivery == config.AtLeastOnce {
		promise = "rows land at least once: after a crash some come again"
	}
	r.add(OK, key, "the brokers answer, the topics are as the promise needs them, %s", promise)
}

// topic asks whether a source may read.
func (r *run) topic(ctx context.Context, key string, k config.KafkaSource) {
	b, err := k.Broker()
	if err != nil {
		r.add(Fault, key, "%v", err)
		return
	}
	partitions, err := source.Look(ctx, k.Source(b), source.Deps{Logger: quiet})
	if err != nil {
		r.broker(ctx, key, err.Error(), err)
		return
	}
	r.add(OK, key, "topic %q may be read, %d partitions; so may the group %q", k.Topic, partitions, k.Group)
}

// broker tells of what brokers answered, a line a fault.
func (r *run) broker(ctx context.Context, key, text string, err error) {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		r.add(Fault, key+".brokers", "%s", told(ctx, err))
		return
	}
	if errors.Is(err, pipeline.ErrTransient) {
		first, _, _ := strings.Cut(text, "\n") // each topic says the same
		r.add(Fault, key+".brokers", "%s: are the addresses right, do the brokers run, and does the network let it through?", first)
		return
	}
	for line := range strings.Lines(text) {
		r.add(Fault, key, "%s", strings.TrimSpace(line))
	}
}
