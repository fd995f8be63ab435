package eventhubs_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// A namespace that claims frames of up to 4 GiB, in the login or behind it, gets no
// memory for them: the client takes what has arrived.
func TestHugeFramesTakeNoMemory(t *testing.T) {
	const loginHeader, header = "AMQP\x03\x01\x00\x00", "AMQP\x00\x01\x00\x00"
	frame := func(size uint32, kind byte) string {
		return string(binary.BigEndian.AppendUint32(nil, size)) + "\x02" + string(kind) + "\x00\x00"
	}
	// Offers one mechanism and lets everybody in.
	mechanisms := frame(8+16, 1) + "\x00\x53\x40\xc0\x0b\x01\xe0\x08\x01\xa3\x05PLAIN"
	for name, answer := range map[string]string{
		"2 GiB at the login":    loginHeader + frame(1<<31-1, 1),
		"4 GiB at the login":    loginHeader + frame(1<<32-1, 1),
		"2 GiB without a login": header + frame(1<<31-1, 0),
		"list of 4 Gi items":    loginHeader + frame(8+12, 1) + "\x00\x53\x40\xd0\x00\x00\x00\x04\xff\xff\xff\xff",
		"array of 4 Gi items":   loginHeader + frame(8+18, 1) + "\x00\x53\x40\xc0\x0d\x01\xf0\x00\x00\x00\x05\xff\xff\xff\xff\xa3",
		"text of 4 GiB":         loginHeader + frame(8+12, 1) + "\x00\x53\x40\xc0\x07\x01\xb3\xff\xff\xff\xff",
		"body behind the frame": loginHeader + "\x00\x00\x00\x08\xff\x01\x00\x00",
		"frame of no size":      loginHeader + "\x00\x00\x00\x00\x02\x01\x00\x00",
		"2 GiB behind it":       loginHeader + mechanisms + frame(1<<31-1, 1),
	} {
		t.Run(name, func(t *testing.T) {
			address := pipelinetest.Serve(t, func(conn net.Conn) {
				if _, err := io.ReadFull(conn, make([]byte, 8)); err == nil {
					_, _ = io.WriteString(conn, answer)
				}
			})
			text := fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=a;SharedAccessKey=%s;UseDevelopmentEmulator=true", address, canary)
			cfg := eventhubs.DefaultConfig(secret.New(text), "logs")
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := eventhubs.Look(ctx, cfg, nil)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("it is taken for a namespace")
			}
			if taken := after.TotalAlloc - before.TotalAlloc; taken > 32<<20 {
				t.Errorf("%d MiB were taken", taken>>20)
			}
		})
	}
}
