package shard

import (
	"cmp"
	"slices"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/mutant"
)

// nextWatermark is the least event time that the shard's streams still expect,
// never before the watermark that holds.
//
// A stream that was not announced for IdleAfter is not waited for. One that was
// announced but has no row yet is: its first rows are on their way.
func (c *Core) nextWatermark() pipeline.Watermark {
	least := int64(0)
	for _, s := range c.streams {
		if s.maxTime == 0 {
			if s.pending > 0 && !c.idle(s) {
				return c.watermark
			}
			continue
		}
		if c.idle(s) {
			continue
		}
		if t := s.maxTime - c.cfg.OutOfOrderness.Milliseconds(); least == 0 || (t < least) != mutant.On(mutant.WatermarkOfFastest) {
			least = t
		}
	}
	if mutant.On(mutant.WatermarkByClock) {
		least = c.now.UnixMilli()
	}
	if mutant.On(mutant.WatermarkBack) {
		return pipeline.Watermark(least)
	}
	return max(c.watermark, pipeline.Watermark(least))
}

func (c *Core) idle(s *streamState) bool { return c.now.Sub(s.announced) >= c.cfg.IdleAfter }

func (c *Core) idleStreams() int {
	n := 0
	for _, s := range c.streams {
		if c.idle(s) {
			n++
		}
	}
	return n
}

// streamTimes gives the streams' times, sorted, and forgets those silent for as
// long as positions are kept.
func (c *Core) streamTimes() []ledger.StreamTime {
	var ts []ledger.StreamTime
	for name, s := range c.streams {
		if s.pending == 0 && c.now.Sub(s.announced) > c.cfg.KeepOffsets {
			delete(c.streams, name)
			continue
		}
		if s.maxTime > 0 {
			ts = append(ts, ledger.StreamTime{Stream: name, MaxTime: s.maxTime})
		}
	}
	slices.SortFunc(ts, func(a, b ledger.StreamTime) int { return cmp.Compare(a.Stream, b.Stream) })
	return ts
}

// Status is what people are shown of a shard.
type Status struct {
	Watermark pipeline.Watermark
	Queued    int // blobs that wait for a read
	Reading   int // reads under way
	OpenBytes int64
	InFlight  int // batches between intent and done
	DoneSeq   uint64
	Live      bool
	Streams   int
	Idle      int
	LagBytes  int64 // announced, or read, and not landed
	InDoubt   int   // batches whose landing is being found out
}

// Status tells how the shard stands.
func (c *Core) Status() Status {
	return Status{
		Watermark: c.watermark, Queued: len(c.ready) + len(c.waiting), Reading: len(c.fetches), OpenBytes: c.open.bytes,
		InFlight: c.unlanded(), DoneSeq: c.doneSeq, Live: c.live, Streams: len(c.streams), Idle: c.idleStreams(),
		LagBytes: c.lagBytes(), InDoubt: c.inDoubt(),
	}
}

// lagBytes sums what is on its way. A blob whose length nobody told counts only once
// it is read.
func (c *Core) lagBytes() int64 {
	lag := c.open.bytes
	announced := func(b *blobState) { lag += max(0, b.announced-footer-b.position.End) }
	for _, b := range c.ready {
		announced(b)
	}
	for _, b := range c.waiting {
		announced(b)
	}
	for _, f := range c.fetches {
		announced(f.blob)
	}
	for _, b := range c.batches {
		if b.state != landed {
			for _, u := range b.manifest.Units {
				lag += u.Length
			}
		}
	}
	return lag
}

// inDoubt counts the batches that may have landed while nobody knows.
func (c *Core) inDoubt() int {
	n := 0
	for _, b := range c.batches {
		if b.state == intended && (c.doubt || c.fencing || slices.ContainsFunc(b.pieces, func(p pieceState) bool { return p.probing })) {
			n++
		}
	}
	return n
}
