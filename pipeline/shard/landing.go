package shard

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/mutant"
)

// proceedReplay replays the manifests behind the base, one after the other: the
// operators' state needs their order.
func (c *Core) proceedReplay() {
	if c.live || c.sealing {
		return
	}
	for _, b := range c.batches {
		if b.replayed {
			continue
		}
		c.sealing = true
		m := b.manifest
		if mutant.On(mutant.WatermarkOfNow) {
			m.Watermark = c.watermark
		}
		c.do(Replay{Manifest: m, Muted: b.state == landed})
		return
	}
	if c.doubt || c.unlanded() > 0 {
		return
	}
	c.live = true
	// A base behind what was replayed, before anything new is. So a start replays one
	// life: a shard that is killed every few seconds, long before a base is due by its
	// age, would else replay all of them, and take longer each time.
	c.baseLast()
	c.do(Live{})
}

// baseLast writes a base behind the last batch that was sealed, if there is none, and
// says whether it does.
func (c *Core) baseLast() bool {
	last := c.nextSeq - 1
	if c.baseSeq >= last {
		return false
	}
	c.basing = true
	c.do(WriteBase{Base: *c.snapshot(last)})
	c.baseTime, c.sealedBytes = c.now, 0
	return true
}

func (c *Core) replayed(e Replayed) {
	c.sealing = false
	b := c.batch(e.Seq)
	b.replayed = true
	if b.state == landed {
		c.finish()
	}
}

// proceedDoubt resolves landings whose outcome nobody knows. A late INSERT may
// still stand in some socket's buffer, so no piece is landed again before a new
// epoch shuts it out: first all our own calls return, then the fence is set, then
// every batch behind its intent is probed.
func (c *Core) proceedDoubt() {
	if !c.doubt || c.fencing || c.landing > 0 || c.probesOut() {
		return
	}
	c.fencing = true
	if mutant.On(mutant.FenceSkipped) {
		c.fenceSet(FenceSet{Epoch: c.epoch})
		return
	}
	if !mutant.On(mutant.FenceEpochKept) {
		c.epoch++
	}
	c.do(SetFence{Epoch: c.epoch})
}

func (c *Core) probesOut() bool {
	for _, b := range c.batches {
		for _, p := range b.pieces {
			if p.probing {
				return true
			}
		}
	}
	return false
}

func (c *Core) fenceSet(e FenceSet) {
	if e.Epoch != c.epoch {
		return
	}
	c.fencing, c.doubt = false, false
	for _, b := range c.batches {
		if b.state != intended || len(b.pieces) == 0 || mutant.On(mutant.ProbeSkipped) {
			continue
		}
		for i := range b.pieces {
			b.pieces[i].probing = true
		}
		c.do(Probe{Seq: b.manifest.Seq, Pieces: b.manifest.Pieces})
	}
}

func (c *Core) probed(e Probed) {
	b := c.batch(e.Seq)
	for i, rows := range e.Rows {
		p := &b.pieces[i]
		p.probing = false
		switch ref := b.manifest.Pieces[i]; rows {
		case ref.Rows:
			p.landed = true
		case 0:
			p.landed = mutant.On(mutant.ProbeBelieved)
		default:
			c.fail(fmt.Errorf("batch %v: table %q, partition %s holds %d of its %d rows: %w: a part is whole or absent, so rows were deleted or written by someone else; put them right by batch_id, then start again",
				b.manifest.Batch, ref.Table, ref.Partition, rows, ref.Rows, ErrImpossible))
			return
		}
	}
}

// proceedLanding sends what may be sent. Nothing lands before its intent is
// durable, nor while an older landing is in doubt.
func (c *Core) proceedLanding() {
	if c.doubt || c.fencing {
		return
	}
	for _, b := range c.batches {
		ready := b.state == intended || b.state == intending && mutant.On(mutant.LandBeforeIntent)
		if !ready || !b.replayed {
			continue
		}
		whole := true
		for i := range b.pieces {
			p := &b.pieces[i]
			if p.landed && !p.probing {
				continue
			}
			whole = false
			if p.flying || p.probing || c.now.Before(p.retryAt) {
				continue
			}
			p.flying = true
			c.landing++
			c.do(Land{Seq: b.manifest.Seq, Piece: i, Epoch: c.epoch})
		}
		if whole {
			b.state = landed
			c.do(Release{Seq: b.manifest.Seq})
		}
	}
	c.finish()
}

func (c *Core) pieceLanded(e PieceLanded) {
	c.landing--
	p := &c.batch(e.Seq).pieces[e.Piece]
	p.flying = false
	switch {
	case e.Err == nil || mutant.On(mutant.DoubtBelieved) && errors.Is(e.Err, pipeline.ErrInDoubt):
		p.landed, p.attempts = true, 0
		c.landedAt = c.now
	case errors.Is(e.Err, pipeline.ErrInDoubt):
		c.doubt = c.doubt || !mutant.On(mutant.DoubtRetried)
		// A target that leaves every insert in doubt must not be fenced in a tight loop.
		p.retryAt = c.now.Add(c.backoff(p.attempts))
		p.attempts++
	case errors.Is(e.Err, pipeline.ErrFenced) && e.Epoch < c.epoch:
		// Our own fence refused it: it is not there, and is sent again.
	case errors.Is(e.Err, pipeline.ErrTransient):
		p.retryAt = c.now.Add(c.backoff(p.attempts))
		p.attempts++
	default:
		c.fail(e.Err)
	}
}

// backoff doubles from RetryMin to RetryMax.
func (c *Core) backoff(attempts int) time.Duration {
	return min(c.cfg.RetryMin<<min(attempts, 20), c.cfg.RetryMax)
}

// finish moves the done mark over the landed batches without a gap, in order.
func (c *Core) finish() {
	for _, b := range c.batches {
		seq := b.manifest.Seq
		if seq <= c.doneSeq || b.state != landed && mutant.On(mutant.DonePastHole) {
			continue
		}
		if (seq != c.doneSeq+1 || b.state != landed) && !mutant.On(mutant.DonePastHole) {
			break
		}
		c.doneSeq = seq
	}
	c.forget()
}

// setDurable tells the sources about everything that the ledger now calls done.
func (c *Core) setDurable(seq uint64) {
	c.durable = max(c.durable, min(seq, c.doneSeq))
	c.forget()
}

// forget drops the batches that need nothing any more.
func (c *Core) forget() {
	c.batches = slices.DeleteFunc(c.batches, func(b *batch) bool {
		if b.manifest.Seq > c.durable || !b.replayed {
			return false
		}
		if len(b.acks) > 0 {
			c.do(Ack{IDs: b.acks})
			b.acks = nil
		}
		return b.base == nil || b.manifest.Seq <= c.baseSeq
	})
}

// proceedLedger writes what makes done durable: the next manifest carries the
// mark; when none is near, a head does. A base is written behind its batch.
func (c *Core) proceedLedger() {
	c.proceedIntent()
	if !c.basing {
		for _, b := range c.batches {
			if b.base != nil && b.manifest.Seq > c.baseSeq && (b.manifest.Seq <= c.doneSeq || mutant.On(mutant.BaseTooEarly)) {
				if mutant.On(mutant.BasePositionsLate) {
					b.base.Positions = c.positions()
				}
				c.basing = true
				c.do(WriteBase{Base: *b.base})
				return
			}
		}
	}
	if c.basing || c.heading || c.doneSeq <= c.durable || c.manifestNear() {
		return
	}
	c.heading = true
	c.do(WriteHead{DoneSeq: c.doneSeq})
}

// proceedIntent writes manifests one after the other: a crash must never leave a
// gap in their sequence.
func (c *Core) proceedIntent() {
	for _, b := range c.batches {
		if b.state == intending {
			return
		}
		if b.state == closed && b.replayed {
			b.state = intending
			b.manifest.DoneSeq = c.doneSeq
			if mutant.On(mutant.DoneAhead) {
				b.manifest.DoneSeq = b.manifest.Seq - 1
			}
			if mutant.On(mutant.WatermarkRecordedLate) {
				b.manifest.Watermark = c.nextWatermark()
			}
			c.do(WriteManifest{Manifest: b.manifest})
			return
		}
	}
}

// manifestNear says that a manifest which carries the done mark is, or will soon
// be, under way.
func (c *Core) manifestNear() bool {
	if len(c.open.units) > 0 && !c.draining || c.sealing {
		return true
	}
	for _, b := range c.batches {
		if b.state == closed || b.state == intending && b.manifest.DoneSeq >= c.doneSeq {
			return true
		}
	}
	return false
}

// proceedDrain ends the shard when nothing is left to do: the final base first,
// and before it the batch that closes every window.
func (c *Core) proceedDrain() {
	if !c.draining || !c.live || !c.quiet() || c.sealing || len(c.open.units) > 0 || c.doubt || c.stopped ||
		c.unlanded() > 0 && !mutant.On(mutant.DrainEarly) {
		return
	}
	if c.eoi && !c.eoiSeal {
		c.seal()
		return
	}
	if c.basing || c.heading {
		return
	}
	if c.baseLast() {
		return
	}
	c.forget()
	c.stopped = true
	c.do(Stop{})
}

// snapshot gives the state after batch seq, which is the last one sealed.
func (c *Core) snapshot(seq uint64) *ledger.Base {
	return &ledger.Base{
		Shard: c.cfg.Shard, Seq: seq, Watermark: c.watermark,
		Positions: c.positions(), Streams: c.streamTimes(),
	}
}
