package world

import (
	"iter"
	"time"
)

// routine is something that a process does over time: it runs until it waits, and goes
// on when its time has come. It is a coroutine: nothing runs beside it.
type routine struct {
	next  func() (time.Duration, bool)
	stop  func()
	yield func(time.Duration) bool
	then  func()
}

// routine begins f, which may call pause, and then, when f has come to its end.
func (p *process) routine(f, then func()) {
	r := &routine{then: then}
	r.next, r.stop = iter.Pull(func(yield func(time.Duration) bool) {
		r.yield = yield
		f()
	})
	p.routines = append(p.routines, r)
	p.goOn(r)
}

// goOn lets a routine run up to its next pause.
func (p *process) goOn(r *routine) {
	before := p.running
	p.running = r
	wait, more := r.next()
	p.running = before
	if more {
		p.after(wait, func() { p.goOn(r) })
		return
	}
	for i, o := range p.routines {
		if o == r {
			p.routines = append(p.routines[:i:i], p.routines[i+1:]...)
			break
		}
	}
	r.then()
}

// pause lets time pass in the routine that runs; outside of one there is none.
func (p *process) pause(d time.Duration) {
	if r := p.running; r != nil && !r.yield(d) {
		panic(killed{})
	}
}

// unwind ends the routines of a life.
func (p *process) unwind() {
	routines := p.routines
	p.routines, p.running = nil, nil
	for _, r := range routines {
		func() {
			defer func() {
				if died := recover(); died != nil {
					if _, ok := died.(killed); !ok {
						panic(died)
					}
				}
			}()
			r.stop()
		}()
	}
}
