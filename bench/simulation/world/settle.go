package world

import (
	"encoding/json"
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
	w.process.clock, w.process.fuse = clock{}, 0
	w.process.thaw()
	w.hub.flush()
	began := w.now
	w.finish()
	for !w.process.drained && w.now-began < 30*time.Minute && w.process.failures < 20 {
		if at, ok := w.due.next(); !ok || at > began+30*time.Minute {
			break
		}
		w.step()
	}
	w.book.Drained, w.book.DrainMS = w.process.drained, (w.now - began).Milliseconds()
	if w.process.failures >= 20 {
		w.book.Unstartable = w.process.last.Error()
	}
	w.until(w.now + 5*time.Minute)
}

// finish asks the process again and again to come to its end, once it has read what the
// hub has.
func (w *World) finish() {
	p := w.process
	if p.drained {
		return
	}
	if p.up && !p.draining && w.hub.read(p) {
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

// each reads the manifests that are on the disk.
func (m manifests) each(on *machine, visit func(pipeline.Manifest)) {
	for _, name := range on.disk.Files(state) {
		if !strings.Contains(name, "/m/") || strings.HasSuffix(name, ".tmp") {
			continue
		}
		data, _ := on.disk.Read(name)
		_, body, _ := strings.Cut(string(data), "\n")
		var one pipeline.Manifest
		if json.Unmarshal([]byte(body), &one) == nil {
			visit(one)
		}
	}
}

// adopt notes what a new life has found.
func (m manifests) adopt(on *machine) { m.each(on, m.add) }

// needs says whether some manifest that is there names the blob.
func (m manifests) needs(on *machine, id pipeline.BlobID) bool {
	needed := false
	m.each(on, func(one pipeline.Manifest) {
		needed = needed || slices.ContainsFunc(one.Units, func(u pipeline.Unit) bool { return u.Blob == id })
	})
	return needed
}

func (m manifests) batches() []audit.Batch {
	var all []audit.Batch
	for _, one := range m {
		b := audit.Batch{ID: uint64(one.Batch), Shard: one.Shard, Seq: one.Seq, WatermarkMS: int64(one.Watermark)}
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
