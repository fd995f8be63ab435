package world

import (
	"strings"
	"time"

	"github.com/millrace/millrace/bench/simulation/disk"
)

// state is the folder of the ledger.
const state = "/state"

// machine is the disk that processes keep their ledger on.
type machine struct {
	w    *World
	disk *disk.Disk
	// A file at rest that was damaged: where, what it was, and what it is. One at a time.
	damaged       string
	whole, broken []byte
}

func newMachine(w *World) *machine { return &machine{w: w, disk: disk.New()} }

// mount gives the disk to a process, which can die at each of its calls.
func (m *machine) mount(p *process) *disk.Mount {
	return m.disk.Mount(func(op disk.Op) disk.Verdict {
		p.point(op.Kind)
		if m.w.rng.IntN(8) == 0 {
			p.pause(between(m.w.rng, 0, 10*time.Millisecond))
		}
		if m.w.hit(DiskError) {
			return disk.FailsIO
		}
		return disk.Works
	})
}

// powerLoss takes what was not synced, all of it or some.
func (m *machine) powerLoss() {
	keep := func(n int) int { return m.w.rng.IntN(n + 1) }
	switch m.w.rng.IntN(3) {
	case 0:
		keep = func(int) int { return 0 }
	case 1:
		keep = func(n int) int { return n }
	}
	m.disk.PowerLoss(keep)
}

// damage flips a bit of a file at rest, or cuts it.
func (m *machine) damage(k Kind) {
	if m.outstanding() {
		return
	}
	var names []string
	for _, name := range m.disk.Files(state) {
		data, _ := m.disk.Read(name)
		if len(data) > 0 && !strings.HasSuffix(name, ".tmp") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	name := names[m.w.rng.IntN(len(names))]
	data, _ := m.disk.Read(name)
	broken := append([]byte(nil), data...)
	if k == FileCut {
		broken = broken[:m.w.rng.IntN(len(broken))]
	} else {
		broken[m.w.rng.IntN(len(broken))] ^= 1 << m.w.rng.IntN(8)
	}
	m.damaged, m.whole, m.broken = name, data, broken
	m.disk.Damage(name, broken)
	m.w.fault(k, name)
}

// outstanding says whether the damaged file is still there.
func (m *machine) outstanding() bool {
	data, there := m.disk.Read(m.damaged)
	return m.damaged != "" && there && string(data) == string(m.broken)
}

// restore is what an operator does whose start was refused: the file comes back from a
// copy.
func (m *machine) restore() bool {
	if !m.outstanding() {
		return false
	}
	m.disk.Damage(m.damaged, m.whole)
	m.damaged = ""
	m.w.say("restored", "")
	return true
}
