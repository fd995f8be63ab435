package emulator_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// A processor of azeventhubs v2.0.2 asks for the hub's properties, and its client
// leaves the goroutine that renews the claim for them behind.
const sdkLeak = "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/internal.(*Namespace).startNegotiateClaimRenewer.func3"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(sdkLeak)) }

// start runs an emulator until the test ends.
func start(t testing.TB, change func(*emulator.Config)) *emulator.Server {
	t.Helper()
	cfg := emulator.DefaultConfig()
	cfg.Addr = "127.0.0.1:0"
	cfg.Hubs = []emulator.Hub{{Name: "logs", Partitions: 4, ConsumerGroups: []string{"second"}}}
	if change != nil {
		change(&cfg)
	}
	s, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the emulator does not stop")
		}
	})
	return s
}

// within gives a context that ends long before the test binary does.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
