package shard

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/mutant"
)

// footer is the length of the `]}` that ends every blob and moves as it grows.
const footer = 2

// givenUpAttempts is how often a read may be refused before the sources stop
// waiting for it.
const givenUpAttempts = 8

type blobState struct {
	id        pipeline.BlobID
	position  ledger.Position // behind the last unit taken into a batch
	lastSeq   uint64          // batch of that unit; 0 when it is done long ago
	announced int64           // highest content length announced; -1 when unknown
	wanted    bool            // announced since the last read began
	queued    bool            // in ready or waiting
	reading   bool
	attempts  int
	retryAt   time.Time
	acks      []AckID
}

type fetch struct {
	blob *blobState
	acks []AckID
}

type streamState struct {
	maxTime   int64     // ms UTC; 0: no row yet
	announced time.Time // last sign of life
	pending   int       // blobs of the stream that wait for a read or are being read
}

// Reasons of Ignore.
const (
	IgnoredBeforeStart = "before_start" // the blob's hour is before the pipeline's start
	IgnoredTooOld      = "too_old"      // the blob's hour is older than its position is kept
	IgnoredKnown       = "known"        // everything that it announces was read
	// IgnoredAhead: the blob's hour has not come. Announced then, it is read.
	IgnoredAhead = "ahead_of_clock"
)

func (c *Core) announced(e Announced) {
	id := e.Announcement.Blob
	if reason := c.outside(id); reason != "" {
		c.do(Ignore{Blob: id, Reason: reason})
		c.ackNow(e.Ack)
		return
	}
	s := c.stream(id)
	s.announced = c.now
	b := c.blobs[id]
	if b == nil {
		b = &blobState{id: id, position: ledger.Position{Blob: id}}
		if from := e.Announcement.From; from != nil {
			b.position.Generation, b.position.End, b.position.Tail = from.Generation, from.End, from.Tail
		}
		c.blobs[id] = b
	}
	length := e.Announcement.ContentLength
	if length >= 0 && b.position.End > 0 && length <= b.position.End+footer {
		c.do(Ignore{Blob: id, Reason: IgnoredKnown})
		c.ackBehind(b, []AckID{e.Ack})
		return
	}
	if b.reading && mutant.On(mutant.AckWhileReading) {
		c.ackNow(e.Ack)
	} else if e.Ack != 0 {
		b.acks = append(b.acks, e.Ack)
	}
	switch {
	case !b.wanted:
		b.announced = length
	case length < 0 || b.announced < 0:
		b.announced = -1
	default:
		b.announced = max(b.announced, length)
	}
	b.wanted = true
	c.queue(b)
}

// outside says why a blob is not read at all, or "".
func (c *Core) outside(id pipeline.BlobID) string {
	hour, ok := id.Hour()
	if !ok {
		return ""
	}
	if most := c.cfg.MaxHourAhead; most > 0 && hour.After(c.now.Add(most)) {
		// Read, it would bring rows of a day that has not come, and a partition with them.
		return IgnoredAhead
	}
	return Outside(hour, c.cfg.Start, c.now, c.cfg.KeepOffsets)
}

// Outside says why the blobs of an hour are not read by a shard that began at
// start and keeps offsets for so long, or "". What is outside stays so, as the
// clock of a core never goes back.
func Outside(hour, start, now time.Time, keep time.Duration) string {
	switch {
	case !hour.Add(time.Hour).After(start):
		return IgnoredBeforeStart
	case hour.Before(now.Add(-keep)):
		return IgnoredTooOld
	}
	return ""
}

func (c *Core) stream(id pipeline.BlobID) *streamState {
	name := id.Stream()
	s := c.streams[name]
	if s == nil {
		s = &streamState{announced: c.now}
		c.streams[name] = s
	}
	return s
}

// queue makes a blob wait for a read. A blob is read by one job at a time: what
// is announced meanwhile makes it wait again.
func (c *Core) queue(b *blobState) {
	if b.queued || b.reading {
		return
	}
	b.queued = true
	c.stream(b.id).pending++
	if c.now.Before(b.retryAt) {
		c.waiting = append(c.waiting, b)
		return
	}
	c.ready = append(c.ready, b)
}

// wake moves the blobs whose wait is over.
func (c *Core) wake() {
	c.waiting = slices.DeleteFunc(c.waiting, func(b *blobState) bool {
		if c.now.Before(b.retryAt) {
			return false
		}
		c.ready = append(c.ready, b)
		return true
	})
}

func (c *Core) startFetches() {
	for len(c.ready) > 0 && len(c.fetches) < c.cfg.MaxFetches && !c.stalled() {
		b := c.ready[0]
		c.ready = c.ready[1:]
		if reason := c.outside(b.id); reason != "" {
			// It waited until its hour was too old: others may read it by now.
			b.queued, b.wanted = false, false
			c.stream(b.id).pending--
			c.do(Ignore{Blob: b.id, Reason: reason})
			c.ackBehind(b, b.acks)
			b.acks = nil
			continue
		}
		b.queued, b.reading, b.wanted = false, true, false
		c.nextJob++
		c.fetches[c.nextJob] = &fetch{blob: b, acks: b.acks}
		b.acks = nil
		c.do(Fetch{Job: c.nextJob, Position: b.position, ContentLength: b.announced})
		if mutant.On(mutant.PositionEarly) {
			b.position.End = max(b.position.End, b.announced-footer)
		}
	}
}

func (c *Core) decoded(e Decoded) {
	f := c.fetches[e.Job]
	if f == nil {
		panic(fmt.Sprintf("BUG: chunk of job %d, which has ended", e.Job))
	}
	u := e.Unit
	if ahead := c.now.Add(c.cfg.MaxAhead).UnixMilli(); u.MaxTime > ahead {
		u.MaxTime = ahead
	}
	if len(c.open.units) == 0 {
		c.open.since = c.now
	}
	c.open.units = append(c.open.units, u)
	c.open.bytes += u.Length
	c.open.rows += u.Rows + u.Quarantined
	c.advance(u, c.nextSeq, c.now)
}

// advance moves the position and the stream's time over a unit. Live and recovery
// take the same way.
func (c *Core) advance(u pipeline.Unit, seq uint64, now time.Time) {
	b := c.blobs[u.Blob]
	if b == nil {
		b = &blobState{id: u.Blob}
		c.blobs[u.Blob] = b
	}
	b.lastSeq = seq
	b.position = ledger.Position{Blob: u.Blob, Generation: u.Generation, End: u.End(), Tail: u.Tail, Touched: now.UnixMilli()}
	s := c.stream(u.Blob)
	s.maxTime = max(s.maxTime, u.MaxTime)
}

func (c *Core) fetchDone(e FetchDone) {
	f := c.fetches[e.Job]
	delete(c.fetches, e.Job)
	b := f.blob
	b.reading = false
	c.stream(b.id).pending--
	switch {
	case e.Err != nil:
		c.fetchFailed(f, e.Err)
		return
	case e.Outcome == Rewritten && !mutant.On(mutant.RewriteIgnored), e.Outcome == Gone && mutant.On(mutant.GoneIsRewritten):
		// The blob's old bytes are gone. What was landed stays; the new content gets
		// addresses of its own, and people are told.
		b.position = ledger.Position{Blob: b.id, Generation: b.position.Generation + 1}
		if mutant.On(mutant.GenerationKept) {
			b.position.Generation--
		}
		b.acks = append(f.acks, b.acks...)
		b.announced = -1
		b.wanted = true
		c.do(Report{Blob: b.id, Kind: "rewritten"})
		c.queue(b)
		return
	case e.Outcome == Gone:
		c.do(Report{Blob: b.id, Kind: "gone"})
	}
	b.attempts = 0
	if e.Again {
		b.wanted, b.announced = true, -1
	}
	c.ackBehind(b, f.acks)
	if !b.wanted {
		c.forgetEmpty(b)
	} else {
		if b.announced >= 0 && b.position.End > 0 && b.announced <= b.position.End+footer {
			b.wanted = false
			c.ackBehind(b, b.acks)
			b.acks = nil
			return
		}
		c.queue(b)
	}
}

func (c *Core) fetchFailed(f *fetch, err error) {
	b := f.blob
	b.acks = append(f.acks, b.acks...)
	b.retryAt = c.now.Add(c.backoff(b.attempts))
	b.attempts++
	if b.attempts >= givenUpAttempts && !errors.Is(err, pipeline.ErrTransient) {
		// One blob that may not be read must not hold back the whole partition: it is
		// tried again and again, but its announcements are let go.
		c.ackBehind(b, b.acks)
		b.acks = nil
	}
	b.wanted, b.announced = true, -1
	c.do(Report{Blob: b.id, Kind: "unreadable", Err: err})
	c.queue(b)
}

// forgetEmpty forgets a blob of which nothing was ever taken, and its stream if no
// other blob has brought it rows: announcements of blobs that are not there, however
// many, leave nothing behind.
func (c *Core) forgetEmpty(b *blobState) {
	if b.position.End > 0 || b.position.Generation > 0 || b.lastSeq > 0 || len(b.acks) > 0 {
		return
	}
	delete(c.blobs, b.id)
	if name := b.id.Stream(); c.streams[name].maxTime == 0 && c.streams[name].pending == 0 {
		delete(c.streams, name)
	}
}

// ackBehind acknowledges once everything read of the blob is done.
func (c *Core) ackBehind(b *blobState, ids []AckID) {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id AckID) bool { return id == 0 })
	if len(ids) == 0 {
		return
	}
	if mutant.On(mutant.AckEarly) {
		c.do(Ack{IDs: ids})
		return
	}
	if b.lastSeq == c.nextSeq && len(c.open.units) > 0 {
		c.open.acks = append(c.open.acks, ids...)
		return
	}
	if b.lastSeq > c.durable {
		if sealed := c.batch(b.lastSeq); sealed != nil {
			sealed.acks = append(sealed.acks, ids...)
			return
		}
	}
	c.do(Ack{IDs: ids})
}

func (c *Core) ackNow(id AckID) {
	if id != 0 {
		c.do(Ack{IDs: []AckID{id}})
	}
}

// positions gives the positions that are still needed, sorted, and forgets the
// others.
func (c *Core) positions() []ledger.Position {
	old := c.now.Add(-c.cfg.KeepOffsets - 2*time.Hour)
	if mutant.On(mutant.PositionForgotten) {
		old = c.now.Add(-time.Hour)
	}
	var ps []ledger.Position
	for id, b := range c.blobs {
		if hour, ok := id.Hour(); ok && hour.Before(old) && !b.queued && !b.reading {
			delete(c.blobs, id)
			continue
		}
		if c.cfg.Once && !b.queued && !b.reading && b.lastSeq <= c.durable {
			delete(c.blobs, id)
			continue
		}
		if b.position.End > 0 || b.position.Generation > 0 {
			ps = append(ps, b.position)
		}
	}
	slices.SortFunc(ps, func(a, b ledger.Position) int { return cmp.Compare(a.Blob.String(), b.Blob.String()) })
	return ps
}
