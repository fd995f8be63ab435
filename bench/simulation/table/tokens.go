package table

// token is one remembered block of one partition.
type token struct {
	id, partition string
	at            int64
	// lost says that the record on disk cannot be read back: it stands behind a torn
	// one.
	lost bool
}

// tokenLog is the window of a table: one queue for all its partitions.
type tokenLog struct {
	window int
	known  []token
	torn   bool // the file ends in a torn record: what is appended will be lost
}

func (l *tokenLog) knows(id string, now, life int64) bool {
	if id == "" {
		return false
	}
	for _, k := range l.known {
		if k.id == id && (life == 0 || now-k.at < life) {
			return true
		}
	}
	return false
}

// add remembers a token and forgets the oldest ones.
func (l *tokenLog) add(id, partition string, now int64) {
	if id == "" || l.window == 0 {
		return
	}
	l.known = append(l.known, token{id: id, partition: partition, at: now, lost: l.torn})
	if surplus := len(l.known) - l.window; surplus > 0 {
		l.known = append([]token(nil), l.known[surplus:]...)
	}
}

// forget drops the tokens that the filter names.
func (l *tokenLog) forget(which func(token) bool) {
	var left []token
	for _, k := range l.known {
		if !which(k) {
			left = append(left, k)
		}
	}
	l.known = left
}

// reload reads the file again, as a start does.
func (l *tokenLog) reload() {
	l.forget(func(k token) bool { return k.lost })
}
