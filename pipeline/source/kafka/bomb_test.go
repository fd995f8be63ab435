package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// A message that inflates to a thousand times its size is passed over and told of;
// those before and behind it are read.
func TestBombIsPassedOver(t *testing.T) {
	for name, codec := range map[string]kgo.CompressionCodec{"gzip": kgo.GzipCompression(), "zstd": kgo.ZstdCompression(), "lz4": kgo.Lz4Compression()} {
		t.Run(name, func(t *testing.T) {
			w := newTopic(t, 1)
			w.Send(t, "1")
			c, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Broker.Brokers...), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(64<<20), kgo.BrokerMaxWriteBytes(80<<20))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: w.cfg.Topic, Value: make([]byte, 32<<20)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			w.Send(t, "2", "3")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var read []string
			if err := w.Open(t).Run(ctx, func(_ context.Context, d pipeline.Delivery) error {
				d.Ack()
				if read = append(read, pipelinetest.Path(d)); len(read) == 3 {
					cancel()
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]string{"1", "2", "3"}, read); diff != "" {
				t.Errorf("read: %s", diff)
			}
			select {
			case g := <-w.gaps:
				if diff := cmp.Diff(Gap{Reason: GapTooLarge, From: 1, Missing: 1}, g); diff != "" {
					t.Error(diff)
				}
			default:
				t.Error("nobody was told of the message")
			}
		})
	}
}
