package table

import "slices"

// token is one remembered block of one partition.
type token struct {
	id, partition string
	block         int64
	at            int64
}

// tokenLog is the window of a table: one queue for all its partitions, and the
// files from which a start reads it back. In a replicated table the queue alone,
// which Keeper has.
type tokenLog struct {
	window int
	shared bool // in Keeper
	known  []token
	files  []logFile
}

// logFile is one file of records. A start reads it up to a torn record.
type logFile struct {
	records []record
	torn    bool
	entries int // as the server counts them: those behind a torn one too
}

type record struct {
	token
	drop bool
}

func (l *tokenLog) knows(id string, now, life int64) bool {
	return id != "" && slices.ContainsFunc(l.known, func(k token) bool {
		return k.id == id && (life == 0 || now-k.at < life)
	})
}

// add remembers a token and forgets the oldest ones.
func (l *tokenLog) add(k token) {
	if k.id == "" || l.window == 0 {
		return
	}
	l.write(record{token: k})
	l.insert(k)
	l.rotate()
}

func (l *tokenLog) insert(k token) {
	if slices.ContainsFunc(l.known, func(o token) bool { return o.id == k.id }) {
		if !l.shared {
			return
		}
		l.known = slices.DeleteFunc(l.known, func(o token) bool { return o.id == k.id }) // It was too old.
	}
	l.known = append(l.known, k)
	l.shrink()
}

func (l *tokenLog) shrink() {
	if surplus := len(l.known) - l.window; surplus > 0 {
		l.known = slices.Clone(l.known[surplus:])
	}
}

// drop forgets tokens by their blocks, which is recorded too.
func (l *tokenLog) drop(which func(token) bool) {
	if l.window == 0 {
		return
	}
	for _, k := range slices.Clone(l.known) {
		if which(k) {
			l.write(record{k, true})
			l.known = slices.DeleteFunc(l.known, func(o token) bool { return o.id == k.id })
			l.rotate()
		}
	}
}

// write appends to the last file. What follows a torn record nobody can read.
func (l *tokenLog) write(r record) {
	if l.shared {
		return
	}
	if len(l.files) == 0 {
		l.files = append(l.files, logFile{})
	}
	f := &l.files[len(l.files)-1]
	f.entries++
	if !f.torn {
		f.records = append(f.records, r)
	}
}

// tear cuts the last record: what a loss of power leaves of a file that is never
// synced.
func (l *tokenLog) tear() {
	if len(l.files) == 0 {
		return
	}
	if f := &l.files[len(l.files)-1]; !f.torn && len(f.records) > 0 {
		f.records, f.torn = f.records[:len(f.records)-1:len(f.records)-1], true
	}
}

// lose takes records from the end of the last file, which no setting syncs, for as
// long as gone says so.
func (l *tokenLog) lose(gone func() bool) {
	if len(l.files) == 0 {
		return
	}
	f := &l.files[len(l.files)-1]
	for len(f.records) > 0 && gone() {
		f.records, f.torn = f.records[:len(f.records)-1:len(f.records)-1], false
	}
}

// rotate begins a file after twice the window, and removes those whose successors
// have records enough. Records of drops count like others, so that a start may know
// less than the window.
func (l *tokenLog) rotate() {
	if l.shared || len(l.files) > 0 && l.files[len(l.files)-1].entries < 2*l.window {
		return
	}
	l.files = append(l.files, logFile{})
	enough := 0
	for i := len(l.files) - 1; i >= 0; i-- {
		if enough >= l.window {
			l.files = slices.Clone(l.files[i+1:])
			return
		}
		enough += l.files[i].entries
	}
}

// load reads the files again, as a start does.
func (l *tokenLog) load() {
	if l.shared {
		return
	}
	l.known = nil
	for i := range l.files {
		f := &l.files[i]
		f.entries = 0
		if l.window == 0 {
			continue
		}
		for _, r := range f.records {
			if r.drop {
				l.known = slices.DeleteFunc(l.known, func(k token) bool { return k.id == r.id })
			} else {
				l.insert(r.token)
			}
		}
		if !f.torn { // Of a torn one the server counts none.
			f.entries = len(f.records)
		}
	}
	if l.window > 0 {
		l.rotate()
	}
}

// resize changes the window. What it forgets stands in the files still.
func (l *tokenLog) resize(window int) {
	if window == l.window {
		return
	}
	l.window = window
	l.shrink()
	if window > 0 {
		l.rotate()
	}
}

func (l *tokenLog) clone() tokenLog {
	c := *l
	c.known = slices.Clone(l.known)
	c.files = slices.Clone(l.files)
	for i := range c.files {
		c.files[i].records = slices.Clone(c.files[i].records)
	}
	return c
}
