package world

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/bench/simulation/audit"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// settle lets the faults end and the pipeline finish, then whatever is still on its
// way arrive.
func (w *World) settle() {
	w.until(w.plan.Length + w.plan.Quiet)
	w.say("settle", "")
	w.faulty, w.settling = false, true
	w.blobs.away, w.target.away = 0, 0
	w.disk.disk.Fill(false)
	w.target.server.Restart()
	for _, p := range w.processes {
		p.clock, p.fuse = clock{}, 0
		p.thaw()
	}
	w.hub.flush()
	began := w.now
	w.finish()
	for !w.drained() && w.book.Unstartable == "" {
		if at, ok := w.due.next(); !ok || at > began+30*time.Minute {
			break
		}
		w.step()
	}
	w.book.Drained, w.book.DrainMS = w.drained(), (w.now - began).Milliseconds()
	w.book.EndOfInput, w.book.OutOfOrdernessMS = true, w.plan.Core.OutOfOrderness.Milliseconds()
	w.until(w.now + 5*time.Minute)
	for _, p := range w.processes {
		p.end()
	}
}

// drained says whether the pipeline has come to its end.
func (w *World) drained() bool {
	return slices.ContainsFunc(w.processes, func(p *process) bool { return p.drained })
}

// owner gives the process that owns the ledger now, nil when none does.
func (w *World) owner() *process {
	var owner *process
	for _, p := range w.processes {
		if p.up && (owner == nil || p.epoch > owner.epoch) {
			owner = p
		}
	}
	return owner
}

// finish asks the owner again and again to come to its end, once it has read what the hub
// has.
func (w *World) finish() {
	if w.drained() {
		for _, p := range w.processes {
			p.end()
		}
		return
	}
	for _, p := range w.processes {
		if p.failures >= 20 {
			w.book.Unstartable = p.last.Error()
		}
	}
	if p := w.owner(); p != nil && !p.draining && w.hub.read(p) {
		p.run(func() { p.drain(true) })
	}
	w.after(time.Second, w.finish)
}

// fill completes the book.
func (w *World) fill() {
	b := &w.book
	for _, row := range w.target.server.Rows(schemas.Flows.Name) {
		b.Landed = append(b.Landed, parseRow(row))
	}
	for _, row := range w.target.server.Rows(schemas.Quarantine.Name) {
		b.Rejected = append(b.Rejected, parseRejected(row))
	}
	for _, c := range w.plan.Windows {
		name := c.Table().Name
		b.WindowDefs = append(b.WindowDefs, audit.Window{Table: name, SizeMS: c.Size.Milliseconds(), LatenessMS: c.Lateness.Milliseconds(), GroupBy: c.GroupBy})
		for _, row := range w.target.server.Rows(name) {
			b.Windows = append(b.Windows, parseWindow(name, len(c.GroupBy), row))
		}
	}
	if b.HasTopic = w.plan.Topic; b.HasTopic {
		for _, r := range w.cluster.Committed() {
			if r.Key == schemas.Flows.Name {
				b.Topic = append(b.Topic, parseRow(r.Value))
			}
		}
	}
	b.Batches = w.ledger.batches()
	w.say("end", "", int64(len(b.Written)), int64(len(b.Landed)), int64(len(b.Windows)), int64(len(b.Batches)))
	w.until(w.now)
}

// manifests are those that ever counted, by batch.
type manifests map[pipeline.BatchID]pipeline.Manifest

func (m manifests) add(one pipeline.Manifest) {
	if _, there := m[one.Batch]; !there {
		m[one.Batch] = one
	}
}

// each reads the manifests among the objects of a ledger.
func (m manifests) each(objects map[string][]byte, visit func(pipeline.Manifest)) {
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		if !strings.Contains(name, "/m/") || strings.HasSuffix(name, ".tmp") {
			continue
		}
		_, body, _ := bytes.Cut(objects[name], []byte("\n"))
		var one pipeline.Manifest
		if json.Unmarshal(body, &one) == nil {
			visit(one)
		}
	}
}

// adopt notes what a new owner has found.
func (m manifests) adopt(objects map[string][]byte) { m.each(objects, m.add) }

// needs says whether some manifest that is there names the blob.
func (m manifests) needs(objects map[string][]byte, id pipeline.BlobID) bool {
	needed := false
	m.each(objects, func(one pipeline.Manifest) {
		needed = needed || slices.ContainsFunc(one.Units, func(u pipeline.Unit) bool { return u.Blob == id })
	})
	return needed
}

// objects gives what the ledger holds, seen from outside.
func (w *World) objects() map[string][]byte {
	all := map[string][]byte{}
	for name, o := range w.shared.objects {
		all[name] = o.data
	}
	for _, name := range w.disk.disk.Files(state) {
		all[name], _ = w.disk.disk.Read(name)
	}
	if w.disk.outstanding() {
		all[w.disk.damaged] = w.disk.whole
	}
	return all
}

func (m manifests) batches() []audit.Batch {
	var all []audit.Batch
	for _, one := range m {
		b := audit.Batch{ID: uint64(one.Batch), Shard: one.Shard, Seq: one.Seq, WatermarkMS: int64(one.Watermark), Idle: one.Idle}
		for _, u := range one.Units {
			b.Units = append(b.Units, audit.Unit{Blob: u.Blob.String(), Generation: int(u.Generation), Offset: u.Offset, Length: u.Length, Rows: u.Rows})
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(x, y audit.Batch) int {
		if x.ID < y.ID {
			return -1
		}
		return 1
	})
	return all
}
