package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/bench/simulation/topic"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/shard"
	"github.com/millrace/millrace/schemas"
)

// kafkaName is the sink's name in manifests.
const kafkaName = "kafka"

// remembered is how many batches a progress record names.
const remembered = 64

// progress is what the progress topic says of a shard, as sinks/kafka writes it.
type progress struct {
	Epoch  uint64
	Before uint64           // every batch before it has landed
	Landed map[uint64]int64 // rows, by batch
}

func (s progress) has(seq uint64) bool { return seq < s.Before || s.Landed[seq] > 0 }

// with gives the progress after one more batch.
func (s progress) with(epoch, seq uint64, rows int64) progress {
	next := progress{max(s.Epoch, epoch), s.Before, map[uint64]int64{seq: rows}}
	for old, n := range s.Landed {
		next.Landed[old] = n
	}
	for len(next.Landed) > remembered {
		first := ^uint64(0)
		for old := range next.Landed {
			first = min(first, old)
		}
		delete(next.Landed, first)
		next.Before = first + 1
	}
	return next
}

// transactor writes the batches of one shard, one at a time, as sinks/kafka does:
// who begins reads what is committed before and after it shuts the others out.
type transactor struct {
	p       *process
	id      string
	x       *topic.Producer // nil: begin anew
	state   progress
	epoch   uint64 // the highest that was seen
	busy    bool
	planned []uint64 // batches that have not landed
}

// transactors gives a process its own.
func (p *process) transactors(shards int) {
	p.topics = make([]*transactor, shards)
	for id := range p.topics {
		p.topics[id] = &transactor{p: p, id: transactionalID(id)}
	}
}

func transactionalID(id int) string { return fmt.Sprint("progress/1/", id) }

var errTopic = fmt.Errorf("%w: the brokers do not answer", pipeline.ErrTransient)

func (t *transactor) read(epoch uint64) error {
	if t.p.w.hit(TopicFailed) {
		return errTopic
	}
	t.state = progress{}
	if text := t.p.w.cluster.Latest(t.id); text != "" {
		if err := json.Unmarshal([]byte(text), &t.state); err != nil {
			panic(err)
		}
	}
	return t.admit(epoch)
}

func (t *transactor) admit(epoch uint64) error {
	if t.epoch = max(t.epoch, t.state.Epoch); t.epoch > epoch {
		return fmt.Errorf("%w: epoch %d is there", pipeline.ErrFenced, t.epoch)
	}
	return nil
}

// open shuts the others out.
func (t *transactor) open(epoch uint64, pause func()) error {
	if t.x != nil {
		return t.admit(epoch)
	}
	if err := t.read(epoch); err != nil {
		return err
	}
	pause()
	x := t.p.w.cluster.Init(t.id)
	pause()
	if t.p.w.hit(TopicFailed) {
		return errTopic
	}
	if err := t.read(epoch); err != nil {
		return err
	}
	t.x = &x
	return nil
}

// fence makes the epoch known.
func (t *transactor) fence(epoch uint64) error {
	if err := t.admit(epoch); err != nil {
		return err
	}
	if t.busy {
		return fmt.Errorf("%w: a batch is being landed", pipeline.ErrTransient)
	}
	t.x = nil
	if err := t.open(epoch, func() {}); err != nil {
		return err
	}
	if t.state.Epoch == epoch {
		return nil
	}
	next := t.state
	next.Epoch = epoch
	err := t.commit(epoch, next, nil, func() {})
	if errors.Is(err, pipeline.ErrInDoubt) {
		err = errTopic // written twice, it says the same
	}
	return err
}

// land commits a batch, unless it is there.
func (t *transactor) land(seq, epoch uint64, rows []string, pause func()) error {
	if err := t.open(epoch, pause); err != nil {
		return err
	}
	t.planned = slices.DeleteFunc(t.planned, t.state.has)
	switch {
	case t.state.has(seq):
		return nil
	case len(t.planned) > 0 && t.planned[0] < seq:
		return fmt.Errorf("%w: batch %d of the shard comes first", pipeline.ErrTransient, t.planned[0])
	}
	return t.commit(epoch, t.state.with(epoch, seq, int64(len(rows))), rows, pause)
}

// commit writes the rows and the progress in one transaction.
func (t *transactor) commit(epoch uint64, next progress, rows []string, pause func()) error {
	value, err := json.Marshal(next)
	if err != nil {
		panic(err)
	}
	records := []topic.Record{}
	for _, r := range rows {
		records = append(records, topic.Record{Key: schemas.Flows.Name, Value: r})
	}
	unclear, err := t.transaction(append(records, topic.Record{Key: t.id, Value: string(value)}), pause)
	if err == nil {
		t.state, t.epoch = next, max(t.epoch, next.Epoch)
		if unclear {
			t.x = nil
		}
		return nil
	}
	t.x = nil
	if errors.Is(err, topic.ErrFenced) || errors.Is(err, topic.ErrState) {
		if readErr := t.read(epoch); readErr != nil {
			return readErr
		}
		return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	}
	return err
}

// transaction sends the records in two requests, and ends. unclear says that some
// request got no answer and was sent again: the first copy may still come.
func (t *transactor) transaction(records []topic.Record, pause func()) (unclear bool, err error) {
	w := t.p.w
	half := w.rng.IntN(len(records))
	for _, part := range [][]topic.Record{records[:half], records[half:]} {
		pause()
		t.disturbed()
		if w.hit(TopicFailed) {
			return false, errTopic
		}
		if err := w.cluster.Send(*t.x, part...); err != nil {
			return false, err
		}
	}
	pause()
	t.disturbed()
	p := *t.x
	late := func() { w.lateEnds[t.id] = append(w.lateEnds[t.id], p) }
	if w.hit(TopicUnanswered) {
		if w.rng.IntN(2) == 0 {
			_, _ = w.cluster.End(p, true)
		} else {
			late()
		}
		return true, fmt.Errorf("%w: commit: no answer", pipeline.ErrInDoubt)
	}
	if w.hit(TopicLateEnd) {
		unclear = true
		late()
	}
	next, err := w.cluster.End(p, true)
	if err != nil {
		return unclear, err
	}
	w.say("committed", p.ID, int64(p.Epoch), int64(len(records)))
	t.x = &next
	pause()
	return unclear, nil
}

// disturbed: in the middle of a transaction the broker ends it for its age, or an old
// request to commit arrives.
func (t *transactor) disturbed() {
	w := t.p.w
	if w.hit(TopicExpired) {
		w.cluster.Expire(t.id)
	}
	if old := w.lateEnds[t.id]; len(old) > 0 && w.rng.IntN(2) == 0 {
		w.lateEnds[t.id] = old[1:]
		_, err := w.cluster.End(old[0], true)
		w.say("late end", fmt.Sprint(old[0], " ", err))
	}
}

// landTopic lands a piece in the topic.
func (p *process) landTopic(id int, a shard.Land) {
	batch, piece := p.engine.Piece(id, a)
	var rows []string
	for _, part := range piece.Parts {
		rows = append(rows, texts(part.Record, flowColumns)...)
	}
	p.turn(id, a, batch.Seq(), rows)
}

// turn waits until the shard's transactor is free.
func (p *process) turn(id int, a shard.Land, seq uint64, rows []string) {
	w, t := p.w, p.topics[id]
	p.after(w.delay(20*time.Millisecond), func() {
		if t.busy {
			p.turn(id, a, seq, rows)
			return
		}
		t.busy = true
		var err error
		pause := func() {
			p.point("transaction")
			p.pause(w.delay(10 * time.Millisecond))
		}
		p.routine(func() { err = t.land(seq, a.Epoch, rows, pause) }, func() {
			t.busy = false
			p.step(id, shard.PieceLanded{Seq: a.Seq, Piece: a.Piece, Epoch: a.Epoch, Err: err})
		})
	})
}

// kafkaSink is the topic as one process sees it.
type kafkaSink struct{ p *process }

var (
	_ pipeline.Sink    = kafkaSink{}
	_ pipeline.Planner = kafkaSink{}
)

// Plan implements pipeline.Planner: all flows of a batch land as one.
func (s kafkaSink) Plan(batch pipeline.BatchID, pieces []pipeline.Piece, _ []pipeline.PieceRef) ([]pipeline.Piece, error) {
	var whole pipeline.Piece
	for _, p := range pieces {
		if p.Table != schemas.Flows.Name {
			continue
		}
		if len(whole.Parts) == 0 {
			whole.MinTime, whole.MaxTime = p.MinTime, p.MaxTime
		}
		whole.MinTime, whole.MaxTime = min(whole.MinTime, p.MinTime), max(whole.MaxTime, p.MaxTime)
		whole.Rows += p.Rows
		whole.Parts = append(whole.Parts, p)
	}
	if len(whole.Parts) == 0 {
		return nil, nil
	}
	whole.Retain()
	whole.Table = schemas.Flows.Name
	t := s.p.topics[batch.Shard()]
	t.planned = append(t.planned, batch.Seq())
	slices.Sort(t.planned)
	return []pipeline.Piece{whole}, nil
}

// Land implements pipeline.Sink; see sink.Land.
func (kafkaSink) Land(context.Context, pipeline.BatchID, uint64, pipeline.Piece) error {
	panic("a piece is landed behind the world's back")
}

// Fence implements pipeline.Sink.
func (s kafkaSink) Fence(_ context.Context, _ uint16, id int, epoch uint64) error {
	return s.p.topics[id].fence(epoch)
}

// Probe implements pipeline.Sink.
func (s kafkaSink) Probe(_ context.Context, batch pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	fresh := transactor{p: s.p, id: transactionalID(batch.Shard())}
	if err := fresh.read(^uint64(0)); err != nil {
		return nil, err
	}
	rows := make([]int64, len(pieces))
	for i, ref := range pieces {
		if fresh.state.has(batch.Seq()) {
			rows[i] = ref.Rows
		}
	}
	return rows, nil
}
