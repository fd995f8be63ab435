package eventhubs

import "time"

// Health is how a source stands, for people.
type Health struct {
	// Connected: the hub has answered, and no partition is in trouble.
	Connected bool
	// Err is the trouble that lasts; nil when there is none, or nobody was asked yet.
	Err error
	// Since is when this began.
	Since time.Time
}

// hubTrouble is the place of what is wrong with the hub as a whole among the
// partitions'.
const hubTrouble = ""

// trouble notes what is wrong with a partition, or with the hub; nil ends it.
func (s *Source) trouble(place string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.health()
	if err == nil {
		delete(s.troubles, place)
		s.answered = s.answered || place == hubTrouble
	} else {
		s.troubles[place] = err
	}
	if after := s.health(); after.Connected != before.Connected || (after.Err == nil) != (before.Err == nil) {
		s.since = s.deps.Now()
	}
}

// Health may be called at any time.
func (s *Source) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health()
}

func (s *Source) health() Health {
	h := Health{Connected: s.answered && len(s.troubles) == 0, Since: s.since, Err: s.troubles[hubTrouble]}
	first := ""
	for place, err := range s.troubles {
		if s.troubles[hubTrouble] == nil && (h.Err == nil || place < first) {
			first, h.Err = place, err
		}
	}
	return h
}
