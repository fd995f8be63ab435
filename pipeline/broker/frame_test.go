package broker

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// hostile answers every connection with the same bytes, once it was asked something,
// and keeps it open.
func hostile(t *testing.T, answer []byte) (address string) {
	t.Helper()
	return pipelinetest.Serve(t, func(conn net.Conn) {
		if _, err := io.ReadAtLeast(conn, make([]byte, 1<<10), 4); err == nil {
			_, _ = conn.Write(answer)
		}
	})
}

// An answer that claims to be huge is refused before memory is taken for it.
func TestHugeAnswersTakeNoMemory(t *testing.T) {
	for name, answer := range map[string][]byte{
		"2 GiB":         {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"below zero":    {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"101 MiB":       binary.BigEndian.AppendUint32(nil, 101<<20),
		"HTTP":          []byte("HTTP/1.1 200 OK\r\n\r\n"),
		"array of 2 Gi": append([]byte{0, 0, 0, 16, 0, 0, 0, 0}, "\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00"...),
	} {
		options, err := Config{Brokers: []string{hostile(t, answer)}}.Options(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		taken := allocated(func() {
			client, err := kgo.NewClient(append(options, kgo.RequestRetries(1), kgo.RetryTimeout(time.Second))...)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if err := client.Ping(ctx); err == nil {
				t.Errorf("%s: it is taken for a broker", name)
			} else if name == "2 GiB" && !strings.Contains(err.Error(), "large") && ctx.Err() == nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		if taken > 32<<20 {
			t.Errorf("%s: %d MiB were taken", name, taken>>20)
		}
	}
}
