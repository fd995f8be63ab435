package engine

import (
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// totals since the start, for the status.
type totals struct {
	notifications, reads, bytes, rows, quarantined, filtered, landed atomic.Int64
}

// Status is how the pipeline stands, for people and for the demo.
type Status struct {
	Live          bool  `json:"live"`
	Notifications int64 `json:"notifications"`
	Reads         int64 `json:"reads"`
	Bytes         int64 `json:"bytes"`       // decoded
	Rows          int64 `json:"rows"`        // decoded
	Landed        int64 `json:"landed"`      // rows of flows
	Quarantined   int64 `json:"quarantined"` // entries
	Filtered      int64 `json:"filtered"`    // rows that filters left out
	Queued        int   `json:"queued"`      // blobs that wait for a read
	Reading       int   `json:"reading"`     // blobs being read
	InFlight      int   `json:"in_flight"`   // commits between intent and done
	Inflight      int64 `json:"inflight_bytes"`
	Unacked       int   `json:"unacknowledged"`
	Watermark     int64 `json:"watermark"` // least of the shards, ms UTC; 0 before the first
	LagMS         int64 `json:"lag_ms"`    // clock minus watermark
	OldestMS      int64 `json:"oldest_ms"` // clock minus the event time of the oldest notification that is not acknowledged
	Behind        int64 `json:"behind"`    // messages that wait at the sources, received or not; those known, where a source cannot say
	LagBytes      int64 `json:"lag_bytes"` // told of and not committed
	InDoubt       int   `json:"in_doubt"`  // commits whose landing is being found out
	Streams       int   `json:"streams"`
	IdleStreams   int   `json:"idle_streams"`
}

// oldest gives the age of the oldest event that is not acknowledged, 0 without one.
func (e *Engine) oldest() time.Duration {
	at := e.acks.oldest()
	if at.IsZero() {
		return 0
	}
	return max(0, e.parts.Now().Sub(at))
}

// behind sums what waits at the sources. Where none can say, it is what was received.
func (e *Engine) behind() int64 {
	var sum int64
	known := false
	for _, s := range e.parts.Sources {
		if l, ok := s.(Lagger); ok {
			sum, known = sum+l.Lag(), true
		}
	}
	if !known {
		return int64(e.acks.size())
	}
	return sum
}

// Status sums the shards up. It may be called at any time.
func (e *Engine) Status() Status {
	t := &e.metrics.totals
	s := Status{
		Live: e.Ready(), Notifications: t.notifications.Load(), Reads: t.reads.Load(), Bytes: t.bytes.Load(), Rows: t.rows.Load(),
		Landed: t.landed.Load(), Quarantined: t.quarantined.Load(), Filtered: t.filtered.Load(), Inflight: e.budget.memory(), Unacked: e.acks.size(),
		OldestMS: e.oldest().Milliseconds(),
	}
	s.Behind = e.behind()
	for _, r := range e.runners() {
		p := r.status.Load()
		if p == nil {
			continue
		}
		s.Queued += p.Queued
		s.Reading += p.Reading
		s.InFlight += p.InFlight
		s.Streams += p.Streams
		s.IdleStreams += p.Idle
		s.LagBytes += p.LagBytes
		s.InDoubt += p.InDoubt
		if w := int64(p.Watermark); w > 0 && p.Watermark != pipeline.EndOfInput && (s.Watermark == 0 || w < s.Watermark) {
			s.Watermark = w
		}
	}
	if s.Watermark > 0 {
		s.LagMS = e.parts.Now().UnixMilli() - s.Watermark
	}
	return s
}
