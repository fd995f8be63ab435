package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/millrace/millrace/cmd/internal/jobtest"
)

// Kinds of network faults.
const (
	down      = "down"       // connections end, and nobody listens
	reset     = "reset"      // connections are reset as soon as something is said
	blackHole = "black_hole" // everything is lost, connections stay until the fault ends
	halfOpen  = "half_open"  // the same in one direction: requests arrive, answers do not, or the other way round
	latency   = "latency"    // 2 s
	bandwidth = "bandwidth"  // 50 kB/s
	slicer    = "slicer"     // small pieces
	limitData = "limit_data" // connections end after some bytes: lost answers, half requests
	timeout   = "timeout"    // nothing comes through, then connections end
)

var networkFaults = []string{down, reset, blackHole, halfOpen, latency, bandwidth, slicer, limitData, timeout}

// networkPath is a proxy in front of one service.
type networkPath struct {
	service jobtest.Service
	proxy   *toxiproxy.Proxy
	renewed int // proxies that did not let go of a fault
}

func newServer() *toxiproxy.ApiServer {
	return toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
}

// newPath listens; its service may get its address later.
func newPath(t *testing.T, s jobtest.Service, upstream string) *networkPath {
	t.Helper()
	p := &networkPath{service: s, proxy: toxiproxy.NewProxy(newServer(), string(s), "127.0.0.1:0", upstream)}
	if err := p.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.proxy.Stop() })
	return p
}

// leadTo changes the service's address; there must be no connections.
func (p *networkPath) leadTo(t *testing.T, upstream string) {
	t.Helper()
	p.proxy.Stop()
	p.proxy.Upstream = upstream
	if err := p.proxy.Start(); err != nil {
		t.Fatal(err)
	}
}

const (
	up     = "upstream"
	answer = "downstream"
)

// begin begins a fault.
func (p *networkPath) begin(t *testing.T, kind string, rng *rand.Rand) {
	t.Helper()
	both := []string{up, answer}
	either := both[rng.IntN(2):][:1]
	switch kind {
	case down:
		p.proxy.Stop()
	case reset:
		p.proxy.Stop() // what is open ends; what comes next is reset
		if err := p.proxy.Start(); err != nil {
			t.Fatal(err)
		}
		p.add(t, "reset_peer", both, map[string]int{"timeout": 0})
	case blackHole:
		p.add(t, "timeout", both, map[string]int{"timeout": 0})
	case halfOpen:
		p.add(t, "timeout", either, map[string]int{"timeout": 0})
	case latency:
		p.add(t, "latency", either, map[string]int{"latency": 2000, "jitter": 300})
	case bandwidth:
		p.add(t, "bandwidth", both, map[string]int{"rate": 50})
	case slicer:
		p.add(t, "slicer", both, map[string]int{"average_size": 64, "size_variation": 32, "delay": 100})
	case limitData:
		p.add(t, "limit_data", either, map[string]int{"bytes": 1 + rng.IntN(8<<10)})
	case timeout:
		p.add(t, "timeout", both, map[string]int{"timeout": 200})
	}
}

// add always names a toxicity of 1: 0 is not neutral.
func (p *networkPath) add(t *testing.T, kind string, streams []string, attributes map[string]int) {
	t.Helper()
	for _, s := range streams {
		text, err := json.Marshal(map[string]any{"type": kind, "stream": s, "toxicity": 1, "attributes": attributes})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.proxy.Toxics.AddToxicJson(bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// end ends the fault. A toxic that waits for a connection which is gone never lets go:
// then the proxy is replaced, which ends its connections.
func (p *networkPath) end(t *testing.T, kind string) {
	t.Helper()
	if kind == down {
		if err := p.proxy.Start(); err != nil {
			t.Fatal(err)
		}
		return
	}
	done := make(chan struct{})
	old := p.proxy
	go func() {
		defer close(done)
		old.Toxics.ResetToxics(context.Background())
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
		old.Stop()
		p.renewed++
		p.proxy = toxiproxy.NewProxy(newServer(), old.Name, old.Listen, old.Upstream)
		if err := p.proxy.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// drawFault gives a kind and how long it lasts: a moment, or so long that whoever
// waits longer from try to try waits longest.
func drawFault(rng *rand.Rand) (kind string, lasts time.Duration) {
	kind = networkFaults[rng.IntN(len(networkFaults))]
	if rng.IntN(50) == 0 {
		return kind, 10*time.Second + time.Duration(rng.Int64N(int64(20*time.Second)))
	}
	return kind, 300*time.Millisecond + time.Duration(rng.Int64N(int64(1700*time.Millisecond)))
}

// shuffled gives the paths in the order of this run's seed.
func shuffled(rng *rand.Rand, paths []*networkPath) []*networkPath {
	out := slices.Clone(paths)
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
