package world

import (
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/shard"
	"github.com/millrace/millrace/pipeline/source/lowwater"
)

// write is one write to the ledger that waits for those before it.
type write struct {
	action shard.Action
	do     engine.Deed
}

// read is a read of a blob that has come to its end, with chunks that were not taken.
type read struct {
	job shard.JobID
	end shard.Event
}

var _ engine.Hands = (*process)(nil)

// Work implements engine.Hands.
func (p *process) Work(id int, a shard.Action, do engine.Deed) {
	w := p.w
	switch a := a.(type) {
	case shard.Fetch:
		w.say("fetch", a.Position.Blob.Path, int64(id), a.Position.End, a.ContentLength)
		p.after(w.delay(50*time.Millisecond), func() {
			ev, _ := do()
			p.reads[id] = append(p.reads[id], read{job: a.Job, end: ev})
			p.flush(id)
		})
	case shard.Land:
		if _, piece := p.engine.Piece(id, a); piece.Sink == kafkaName {
			p.landTopic(id, a)
			return
		}
		p.land(id, a)
	default:
		p.attempt(id, w.delay(10*time.Millisecond), 0, do)
	}
}

// attempt does a deed until it works.
func (p *process) attempt(id int, wait time.Duration, tries int, do engine.Deed) {
	p.after(wait, func() {
		p.point("attempt")
		ev, err := do()
		switch {
		case err != nil:
			p.attempt(id, min(100*time.Millisecond<<min(tries, 10), 10*time.Second), tries+1, do)
		case ev != nil:
			p.after(p.w.delay(5*time.Millisecond), func() { p.step(id, ev) })
		}
	})
}

// land sends an INSERT; the process may die before and behind each of its steps.
func (p *process) land(id int, a shard.Land) {
	in := p.w.target.insert(p, id, a)
	life := p.life
	p.after(p.w.delay(20*time.Millisecond), func() {
		p.point("land")
		p.w.target.land(in, func(err error) {
			if p.life != life {
				return
			}
			p.after(p.w.delay(5*time.Millisecond), func() {
				p.step(id, shard.PieceLanded{Seq: a.Seq, Piece: a.Piece, Epoch: a.Epoch, Err: err})
			})
		})
	})
}

// Write implements engine.Hands.
func (p *process) Write(id int, a shard.Action, do engine.Deed) {
	p.writes[id] = append(p.writes[id], write{a, do})
	if len(p.writes[id]) == 1 {
		p.write(id, p.w.delay(5*time.Millisecond), 0)
	}
}

// write does the first of a shard's writes, then the next.
func (p *process) write(id int, wait time.Duration, tries int) {
	p.after(wait, func() {
		if p.writing {
			// Another shard writes, and may hold one of the ledger's locks at a pause.
			p.write(id, time.Millisecond, tries)
			return
		}
		p.writing = true
		first := p.writes[id][0]
		var ev shard.Event
		var err error
		p.routine(func() { ev, err = first.do() }, func() {
			p.writing = false
			if err != nil {
				p.write(id, min(100*time.Millisecond<<min(tries, 10), 10*time.Second), tries+1)
				return
			}
			p.written(id, first, ev)
		})
	})
}

// written: the first of a shard's writes was done.
func (p *process) written(id int, first write, ev shard.Event) {
	if m, ok := first.action.(shard.WriteManifest); ok {
		if _, written := ev.(shard.ManifestWritten); written {
			p.w.ledger.add(m.Manifest)
		}
	}
	if p.writes[id] = p.writes[id][1:]; len(p.writes[id]) > 0 {
		p.write(id, p.w.delay(5*time.Millisecond), 0)
	}
	p.point("written")
	if ev != nil {
		p.step(id, ev)
	}
}

// takeChunks passes chunks on while the shard has room, one read after the other.
func (p *process) takeChunks(id int) {
	for i := 0; i < len(p.reads[id]); {
		job := p.reads[id][i].job
		taken, more := p.engine.TakeChunk(p.w.ctx, id, job)
		switch {
		case taken:
		case more:
			i++ // waits
		default:
			end := p.reads[id][i].end
			p.reads[id] = append(p.reads[id][:i:i], p.reads[id][i+1:]...)
			p.engine.Step(p.w.ctx, id, end)
		}
		if stopped, _ := p.engine.Stopped(id); stopped {
			return
		}
	}
}

// listen begins to read every partition behind its checkpoint.
func (p *process) listen() {
	h := p.w.hub
	p.next, p.marks = append([]int64(nil), h.saved...), nil
	for i := range h.partitions {
		p.marks = append(p.marks, lowwater.New[int64](1<<20))
		p.woken(i)
	}
	p.after(p.w.plan.Checkpoint, p.checkpoint)
}

// woken: a partition has a message.
func (p *process) woken(to int) {
	if p.up {
		p.after(p.w.delay(20*time.Millisecond), func() { p.receive(to) })
	}
}

// receive passes a few messages on.
func (p *process) receive(to int) {
	part := &p.w.hub.partitions[to]
	for range 10 {
		p.next[to] = max(p.next[to], part.first)
		if p.draining || p.next[to] >= int64(len(part.messages)) {
			return
		}
		offset := p.next[to]
		p.next[to]++
		p.deliver(to, offset, &part.messages[offset])
		if !p.up {
			return
		}
	}
	p.woken(to)
}

func (p *process) deliver(to int, offset int64, m *message) {
	found, _ := p.w.hub.parser.Parse(m.body)
	mark := p.marks[to]
	begun, err := mark.Begin(p.w.ctx, offset)
	if err != nil {
		panic(err)
	}
	message := *m
	p.emit(pipeline.Delivery{Announcements: found, Ack: func() {
		mark.Done(begun)
		p.w.hub.acknowledged(to, offset, &message, p.now())
	}})
}

// stolen: the link to a partition was taken by another reader, and comes back behind
// the checkpoint.
func (p *process) stolen(to int) {
	p.w.fault(HubRedelivered, p.name)
	p.marks[to] = lowwater.New[int64](1 << 20)
	p.next[to] = p.w.hub.saved[to]
	p.woken(to)
}

func (p *process) checkpoint() {
	if !p.w.hit(CheckpointFailed) {
		p.saveMarks()
	}
	p.after(p.w.plan.Checkpoint, p.checkpoint)
}

func (p *process) saveMarks() {
	for i, m := range p.marks {
		if low, ok := m.Mark(); ok {
			p.w.hub.save(i, low+1, p.now())
		}
	}
}
