package jobtest

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// Estate writes logs until it is stopped, then gives the truth.
func (w *World) Estate(rate float64) (stop func() traffic.Truth) {
	w.T.Helper()
	return w.EstateInto(rate, w.Notify)
}

// Notify publishes a notification to the hub.
func (w *World) Notify(_ context.Context, body []byte) error {
	_, err := w.Hub.Publish(HubName, emulator.InTurn(), body, nil)
	return err
}

// EstateInto is Estate with notifications that go another way, and with what change
// says of it.
func (w *World) EstateInto(rate float64, publish func(ctx context.Context, body []byte) error, change ...func(*traffic.Config)) (stop func() traffic.Truth) {
	w.T.Helper()
	cfg := traffic.DefaultConfig()
	cfg.Account, cfg.NICs, cfg.TuplesPerMinute, cfg.TuplesPerSecond = w.Account, 16, 1000, rate
	cfg.Start = time.Now().Add(-time.Hour)
	for _, c := range change {
		c(&cfg)
	}
	sim, err := traffic.New(cfg, traffic.Deps{Blobs: w.Blobs, Publish: func(ctx context.Context, _ string, body []byte) error {
		return publish(ctx, body)
	}})
	if err != nil {
		w.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.T.Context()))
	done := make(chan error, 1)
	go func() { done <- sim.Run(ctx) }()
	stop = sync.OnceValue(func() traffic.Truth {
		cancel()
		if err := <-done; err != nil {
			w.T.Errorf("estate: %v", err)
		}
		return sim.Truth()
	})
	w.T.Cleanup(func() { stop() })
	return stop
}
