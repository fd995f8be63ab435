package table

// fault is what happens to one of the next INSERTs.
type fault struct {
	err     error
	doubt   bool // the statement's fate is unknown to its sender …
	written bool // … but it wrote
}

// Refuse lets the next n INSERTs fail with the error, having written nothing.
func (s *Server) Refuse(err error, n int) {
	for range n {
		s.faults = append(s.faults, fault{err: err})
	}
}

// Doubt lets the next INSERT fail with the error (ErrLost, ErrMemory,
// ErrUnknownStatus) before or behind its commit.
func (s *Server) Doubt(err error, written bool) {
	s.faults = append(s.faults, fault{err: err, doubt: true, written: written})
}

// Heal takes back what Refuse and Doubt have left.
func (s *Server) Heal() { s.faults = nil }

func (s *Server) nextFault() fault {
	if s.down || len(s.faults) == 0 {
		return fault{}
	}
	f := s.faults[0]
	s.faults = s.faults[1:]
	return f
}

// Kill ends the server (SIGKILL). What runs has written nothing, and never will.
func (s *Server) Kill() {
	s.down = true
	s.runs = nil
	for _, t := range s.sorted() {
		t.restart() // Numbers that no part took are given away again.
	}
}

// Restart starts the server again; one that runs is killed first.
func (s *Server) Restart() {
	s.Kill()
	s.faults = nil
	for _, t := range s.sorted() {
		t.log.load()
	}
	s.down = false
}

// InsertKilled runs an INSERT in which the server dies, at the point of its last
// part. The parts before it are there. The sender sees ErrLost.
func (s *Server) InsertKilled(in Insert, at Point) error {
	return s.InsertKilledIn(in, len(in.steps())-1, at)
}

// InsertKilledIn is InsertKilled at the point of the given part, counted from 0 over
// all blocks.
func (s *Server) InsertKilledIn(in Insert, number int, at Point) error {
	if err := s.check(in, s.nextFault()); err != nil {
		s.Kill()
		return err
	}
	t := s.tables[in.Table]
	for i, p := range in.steps()[:number+1] {
		if i == number && at < AfterPart {
			s.half(t, in, p, at)
		} else {
			s.write(t, in, p)
		}
	}
	s.Kill()
	return ErrLost
}

// half leaves what a kill leaves of one part.
func (s *Server) half(t *contents, in Insert, p step, at Point) {
	block := t.number()
	if at != BetweenTokenAndPart || s.replicated() || t.log.knows(p.id, s.now, s.life()) {
		return // Keeper writes token and part at once, or neither.
	}
	switch s.options.Tokens {
	case TokenFirst:
		t.log.add(s.token(p, block))
	case PartFirst:
		s.add(t, in, p, block)
	case Torn:
		if p.id != "" && t.log.window > 0 {
			t.log.add(s.token(p, block))
			t.log.tear()
		}
	case None:
	}
}

// TearTokens cuts the last record of a table's token log, of a server that is down.
func (s *Server) TearTokens(table string) {
	if t := s.tables[table]; t != nil && s.down {
		t.log.tear()
	}
}

// Burn leaves of an INSERT its tokens without its parts, as a server with replicas can
// that cancels an INSERT while Keeper has not answered: a later retry does nothing.
func (s *Server) Burn(in Insert) {
	t := s.tables[in.Table]
	for _, p := range in.steps() {
		if block := t.number(); !t.log.knows(p.id, s.now, s.life()) {
			t.log.add(s.token(p, block))
		}
	}
}

// life is how long a token lasts; 0 for ever.
func (s *Server) life() int64 {
	if s.replicated() {
		return s.options.TokenLifeMS
	}
	return 0
}

// PowerLoss ends the server and takes from the platter what was not yet there, each
// part for which lost says so (nil: all of them). Restart starts it.
func (s *Server) PowerLoss(lost func() bool) {
	s.Kill()
	gone := func() bool { return lost == nil || lost() }
	for _, t := range s.sorted() {
		var left []*part
		for _, p := range t.parts {
			if p.synced || !gone() {
				left = append(left, p)
			}
		}
		t.parts = left
		t.restart()
		t.log.lose(gone)
	}
}

// Flush brings the page cache to the platter, as the kernel does in time.
func (s *Server) Flush() {
	for _, t := range s.sorted() {
		for _, p := range t.parts {
			p.synced = true
		}
	}
}
