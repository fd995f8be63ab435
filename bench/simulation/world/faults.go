package world

import "time"

// schedule lets the faults begin that come by themselves.
func (w *World) schedule() {
	for _, k := range Kinds() {
		if w.plan.Gaps[k] > 0 {
			w.again(k)
		}
	}
}

// again lets a fault happen some time from now, and again. Where there is no input
// they are rare: nothing would be learnt.
func (w *World) again(k Kind) {
	gap := time.Duration(w.rng.ExpFloat64() * float64(w.plan.Gaps[k]))
	if w.now > w.plan.Length {
		gap *= 20
	}
	w.after(gap, func() {
		if w.faulty {
			w.strike(k)
			w.again(k)
		}
	})
}

// strike lets one fault happen, if there is something that it can happen to.
func (w *World) strike(k Kind) {
	switch k {
	case HubExpired:
		w.hub.expire()
	case BlobReplaced:
		w.blobs.replace()
	case BlobAway:
		w.fault(k, "")
		w.blobs.away = w.now + between(w.rng, time.Second, 2*time.Minute)
	case TopicShutOut:
		if w.plan.Topic {
			w.fault(k, "")
			w.cluster.Init(transactionalID(w.rng.IntN(w.plan.Shards)))
		}
	case ServerKilled:
		w.fault(k, "")
		w.target.down()
	case ServerAway:
		w.fault(k, "")
		w.target.away = w.now + between(w.rng, time.Second, 2*time.Minute)
	case DropOfNothing:
		w.fault(k, "")
		_ = w.target.server.DropPartition("flows", "19700101")
	case PowerLost, DiskFull, FileFlipped, FileCut:
		if w.plan.Instances == 0 {
			w.strikeDisk(k)
		}
	case ClockJumped, ClockDrifted:
		w.turn(k)
	default:
		w.strikeProcess(k)
	}
}

// powerSoon lets the power go some seconds after a process died: its next life has built
// on what was in the page cache.
func (w *World) powerSoon() {
	if w.plan.Gaps[PowerLost] == 0 {
		return
	}
	w.after(between(w.rng, time.Second, 12*time.Second), func() {
		if w.faulty {
			w.strikeDisk(PowerLost)
		}
	})
}

func (w *World) strikeDisk(k Kind) {
	switch k {
	case PowerLost:
		w.fault(k, "")
		w.disk.powerLoss()
		w.processes[0].kill()
	case DiskFull:
		w.fault(k, "")
		w.disk.disk.Fill(true)
		w.after(between(w.rng, time.Second, time.Minute), func() { w.disk.disk.Fill(false) })
	default:
		w.disk.damage(k)
	}
}

func (w *World) strikeProcess(k Kind) {
	p := w.processes[w.rng.IntN(len(w.processes))]
	if o := w.owner(); o != nil && w.rng.IntN(3) > 0 {
		p = o
	}
	if !p.alive || p.frozen {
		return
	}
	switch k {
	case HubRedelivered:
		if p.up {
			p.stolen(w.rng.IntN(w.plan.Partitions))
		}
	case ProcessKilled:
		w.fault(k, p.name)
		p.kill()
	case ProcessKilledInside:
		p.fuse, p.unsynced = 1+w.rng.IntN(60), p.lease == nil && w.rng.IntN(3) == 0
	case ProcessFrozen:
		w.fault(k, p.name)
		p.freeze()
	case ProcessStopped:
		if p.up && !p.draining {
			w.fault(k, p.name)
			p.run(func() { p.drain(false) })
		}
	case MemoryShort:
		if p.up {
			w.fault(k, p.name)
			p.run(p.pressed)
		}
	default:
		panic("BUG: nobody strikes with " + k.String())
	}
}

// turn sets the wall clock of a process's machine wrong, or right again.
func (w *World) turn(k Kind) {
	w.fault(k, "")
	c := &w.processes[w.rng.IntN(len(w.processes))].clock
	if k == ClockDrifted {
		c.offset += time.Duration(c.drift * float64(w.now-c.since))
		c.offset = min(max(c.offset, -24*time.Hour), 24*time.Hour)
		c.drift, c.since = w.rng.Float64()*0.2-0.1, w.now
		return
	}
	c.drift, c.since = 0, w.now
	switch w.rng.IntN(3) {
	case 0:
		c.offset = 0
	case 1:
		c.offset = between(w.rng, -24*time.Hour, 24*time.Hour)
	case 2:
		c.offset = between(w.rng, -10*time.Second, 10*time.Second)
	}
}
